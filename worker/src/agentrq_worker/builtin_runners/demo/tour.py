"""The demo's first turn: one look at the working directory that shows every type of message there is.

Owns its order and its words; the shapes are `demo_voice`'s, the findings `demo_files`'.
"""

from __future__ import annotations

import os

from agentrq_worker.builtin_runners.demo import files as demo_files
from agentrq_worker.builtin_runners.demo.voice import Voice
from agentrq_worker.builtin_runners.protocol import displayable

_QUOTED = 500
"""Characters of a prompt that are quoted."""


def tour(voice: Voice, prompt: str) -> str:
    """Give the first turn, all but its init and its result; returns the closing text."""
    _opening(voice)
    counted = _look(voice)
    _sub_agent(voice, counted)
    _housekeeping(voice)
    _questions(voice)
    _oddities(voice)
    report = (
        f"Your prompt was “{quote(prompt)}”. No model was asked, so here is only what I found: "
        f"{displayable(voice.cwd)} holds {counted}. This cost nothing. Prompt me again, or stop me."
    )
    voice.say(report)
    return report


def quote(prompt: str) -> str:
    """The prompt, shortened to its first 500 characters."""
    return prompt if len(prompt) <= _QUOTED else prompt[:_QUOTED] + "…"


def _opening(voice: Voice) -> None:
    voice.system("status", status="requesting")
    info = {"status": "allowed", "rateLimitType": "five_hour"}
    voice.emit(0.5, {"type": "rate_limit_event", "rate_limit_info": info, "session_id": voice.session})
    voice.say(
        "Hello. I am the built-in demo: no language model is asked, every word here was written beforehand. "
        f"What my tools find is real, though: I look at {displayable(voice.cwd)} now.",
        thinking="My plan: list the working directory, read one file of it, count it all, then show the other "
        "types of messages, and report.",
    )


def _look(voice: Voice) -> demo_files.Count:
    directory = displayable(voice.cwd)
    call = voice.call("LS", {"path": directory})
    voice.answer(call, demo_files.listing(voice.cwd))
    path = demo_files.choose(voice.cwd) or os.path.join(voice.cwd, "README.md")
    call = voice.call("Read", {"file_path": displayable(path), "limit_bytes": demo_files.MAX_READ})
    voice.answer(call, demo_files.head(path))
    return count(voice)


def count(voice: Voice) -> demo_files.Count:
    """Call the tool that counts what is in the working directory."""
    call = voice.call("Count", {"path": displayable(voice.cwd), "skip": sorted(demo_files.SKIPPED)})
    counted = demo_files.count(voice.cwd)
    voice.answer(call, (str(counted), False))
    return counted


def _sub_agent(voice: Voice, counted: demo_files.Count) -> None:
    task = {"description": "Check the count", "prompt": "Say the figures again.", "subagent_type": "demo"}
    call = voice.call("Task", task)
    said = f"I am a sub-agent of the demo. I was told: {counted}."
    voice.sub_agent_says(call, said)
    voice.answer(call, (said, False))


def _housekeeping(voice: Voice) -> None:
    voice.system("compact_boundary", compact_metadata={"trigger": "manual", "pre_tokens": 0})


def _questions(voice: Voice) -> None:
    command = {"command": "true", "description": "Do nothing (a demonstration)"}
    call = voice.call("Bash", command)
    voice.ask_and_withdraw(
        {
            "subtype": "can_use_tool",
            "tool_name": "Bash",
            "input": command,
            "tool_use_id": call,
            "description": "A demonstration of an approval: I withdraw it myself, you need not answer.",
        }
    )
    voice.answer(call, ("Withdrawn by the demo; nothing was run.", True))
    colours = {"type": "string", "title": "Colour", "enum": ["red", "green"]}
    voice.ask_and_withdraw(
        {
            "subtype": "elicitation",
            "mcp_server_name": "demo",
            "message": "Which colour? (A demonstration of a question: I withdraw it myself, you need not answer.)",
            "mode": "form",
            "requested_schema": {"type": "object", "properties": {"colour": colours}},
        }
    )


def _oddities(voice: Voice) -> None:
    voice.emit(0.5, {"type": "demo_novelty", "note": "A type nobody knows is passed on as it came."})
    voice.runner.write(b"This line is not JSON, on purpose: a demonstration of an error the session survives.\n")
    voice.pause(0.5)
