"""The demo's first turn: it reads the working directory, and shows every type of message.

Owns the turn's order and its texts. Does not own the shapes (claude_output.py), nor the findings (directory_tools.py).
"""

from __future__ import annotations

import os

from agentrq_worker.builtin_runners.demo import directory_tools
from agentrq_worker.builtin_runners.demo.claude_output import ClaudeOutput
from agentrq_worker.builtin_runners.protocol import displayable

_QUOTED = 500
"""Characters of a prompt that are quoted."""
_NOT_ASKED = "A demonstration: I withdraw it myself. Start me with permission_mode=default, and I wait for your answer."
_COLOURS = ("red", "green")


def show(output: ClaudeOutput, prompt: str) -> str:
    """Prints the first turn, all but its init and its result; returns the closing text."""
    _open(output)
    counted = _read_directory(output)
    _show_sub_agent(output, counted)
    output.system("compact_boundary", compact_metadata={"trigger": "manual", "pre_tokens": 0})
    answers = _show_requests(output)
    _show_oddities(output)
    report = (
        f"Your prompt was “{quote(prompt)}”. No model was asked, so here is only what I found: "
        f"{displayable(output.cwd)} holds {counted}.{answers} This cost nothing. Prompt me again, or stop me."
    )
    output.text(report)
    return report


def quote(prompt: str) -> str:
    """The prompt, shortened to its first 500 characters."""
    return prompt if len(prompt) <= _QUOTED else prompt[:_QUOTED] + "…"


def _open(output: ClaudeOutput) -> None:
    output.system("status", status="requesting")
    info = {"status": "allowed", "rateLimitType": "five_hour"}
    output.emit(0.5, {"type": "rate_limit_event", "rate_limit_info": info, "session_id": output.session})
    output.text(
        "Hello. I am the built-in demo: no language model is asked, every word here was written beforehand. "
        f"What my tools find is real, though: I read {displayable(output.cwd)} now.",
        thinking="My plan: list the working directory, read one file of it, count it all, then show the other "
        "types of messages, and report.",
    )


def _read_directory(output: ClaudeOutput) -> directory_tools.Count:
    call = output.call("LS", {"path": displayable(output.cwd)})
    output.tool_result(call, directory_tools.list_names(output.cwd))
    path = directory_tools.choose_file(output.cwd) or os.path.join(output.cwd, "README.md")
    given = {"file_path": displayable(path), "limit_bytes": directory_tools.MAX_READ}
    call = output.call("Read", given)
    if output.asks_permission and not output.may_use("Read", given, call, waits=True):
        output.tool_result(call, ("Not allowed: I did not read this file.", True))
    else:
        output.tool_result(call, directory_tools.read_start(path))
    return count(output)


def count(output: ClaudeOutput) -> directory_tools.Count:
    """Calls the tool that counts what is in the working directory."""
    call = output.call("Count", {"path": displayable(output.cwd), "skip": sorted(directory_tools.SKIPPED)})
    counted = directory_tools.count(output.cwd)
    output.tool_result(call, (str(counted), False))
    return counted


def _show_sub_agent(output: ClaudeOutput, counted: directory_tools.Count) -> None:
    task = {"description": "Check the count", "prompt": "Say the figures again.", "subagent_type": "demo"}
    call = output.call("Task", task)
    repeated = f"I am a sub-agent of the demo. I was given: {counted}."
    output.sub_agent_text(call, repeated)
    output.tool_result(call, (repeated, False))


def _show_requests(output: ClaudeOutput) -> str:
    """Shows an approval request and a question; returns what the report says of the answer."""
    if not output.asks_permission:
        command = {"command": "true", "description": "Do nothing (a demonstration)"}
        call = output.call("Bash", command)
        output.may_use("Bash", command, call, waits=False, description=_NOT_ASKED)
        output.tool_result(call, ("Withdrawn by the demo; nothing was run.", True))
    colour = {"type": "string", "title": "Colour", "enum": list(_COLOURS)}
    answer = output.ask(
        {
            "subtype": "elicitation",
            "mcp_server_name": "demo",
            "message": "Which colour?" if output.asks_questions else f"Which colour? ({_NOT_ASKED})",
            "mode": "form",
            "requested_schema": {"type": "object", "properties": {"colour": colour}},
        },
        waits=output.asks_questions,
    )
    chosen = next((name for name in _COLOURS if name in str(answer)), None)
    return "" if chosen is None else f" You chose {chosen}."


def _show_oddities(output: ClaudeOutput) -> None:
    output.emit(0.5, {"type": "demo_novelty", "note": "A type nobody knows is passed on as it came."})
    output.runner.write(b"This line is not JSON, on purpose: a demonstration of an error the session survives.\n")
    output.pause(0.5)
