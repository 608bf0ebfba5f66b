"""What the scripted model says: read from the words in double brackets of the last prompt. Owns the words' meaning.

Does not own any API's shapes (model_apis.py) nor HTTP (model_server.py). A step of a prompt is ``[[word]]`` or
``[[word:value]]``; each request of a turn gets the next step, told by how often the model has answered since that
prompt, so that the model needs no memory. After the last step it says "Done.".

====================  ===============================================================================================
``text:WORDS``        a short text, in pieces
``think:WORDS``       a thought, then "Thought about it."
``bash:COMMAND``      a call of the agent's shell tool; ``bg:`` the same in the background
``write:PATH=TEXT``   a call of the agent's tool that writes a file
``agent:PROMPT``      a call of the tool that starts a sub-agent
``ask:QUESTION``      a call of the tool that asks the user, with the options Red and Blue
``mcp:SERVER.TOOL``   a call of an MCP server's tool, without arguments
``slow:N``            N pieces, 50 ms apart
``hold:NAME``         a first piece, then nothing until the test releases NAME, then the rest
``endless``           pieces, 20 ms apart, until the client goes away
``huge:N``            a text of N characters
``error:STATUS``      the API's error; ``error:STATUS*N`` only the first N times, then the step that follows
====================  ===============================================================================================

Asked to continue where it left off, it takes its last step again.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

_STEP = re.compile(r"\[\[([a-z]+)(?::(.*?))?\]\]", re.DOTALL)
CONTINUE = "Continue where you left off"
NO_ANSWER = "No response requested."
"""What Claude Code puts for the model after a call that was cut."""
DONE = "Done."
GREETING = "Hello from the scripted model."


@dataclass
class Block:
    """A text or a thought in pieces, or a call of a tool."""

    kind: Literal["text", "thinking", "tool"]
    pieces: Iterable[str] = ()
    name: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    namespace: str = ""
    """The tool's, where an API has such."""


class ApiError(Exception):
    """The API's answer is an error with this HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"scripted error {status}")
        self.status = status


@dataclass
class Turn:
    """One message of a conversation: who, and the text in it (empty for tool results)."""

    role: Literal["user", "assistant"]
    text: str


class Script:
    """Chooses what the model says. Thread-safe."""

    def __init__(self, wait: Callable[[str], bool], pause: Callable[[float], bool]) -> None:
        """``wait(name)`` until a hold is released, ``pause(seconds)``: both answer False when all is over."""
        self._wait = wait
        self._pause = pause
        self._lock = threading.Lock()
        self._errors: Counter[tuple[str, int]] = Counter()

    def reply(self, history: list[Turn], tools: list[str]) -> list[Block]:
        """The blocks of the next message. Raises `ApiError` where the script has one."""
        prompt, answers = "", 0
        for turn in history:
            if turn.role == "assistant":
                answers += turn.text != NO_ANSWER
            elif _STEP.search(turn.text):
                prompt, answers = turn.text, 0
            elif CONTINUE in turn.text:
                answers = max(answers - 1, 0)
        if not prompt:
            return [Block("text", _pieces(GREETING))]
        step = 0
        for place, (word, value) in enumerate(_STEP.findall(prompt)):
            if word == "error":
                if step == answers:
                    self._fail(prompt, place, value)
                continue
            if step == answers:
                return self._blocks(word, value, tools)
            step += 1
        return [Block("text", _pieces(DONE))]

    def _fail(self, prompt: str, place: int, value: str) -> None:
        status, _, times = value.partition("*")
        with self._lock:
            self._errors[prompt, place] += 1
            if times and self._errors[prompt, place] > int(times):
                return
        raise ApiError(int(status))

    def _blocks(self, word: str, value: str, tools: list[str]) -> list[Block]:
        if word == "think":
            return [Block("thinking", _pieces(value or "Let me think.")), Block("text", _pieces("Thought about it."))]
        if word == "mcp":
            server, _, name = value.partition(".")
            space = f"mcp__{server}"
            return [Block("tool", (), name, {}, space) if space in tools else Block("tool", (), f"{space}__{name}")]
        if word in TOOLS:
            return [_tool(word, value, tools)]
        return [Block("text", self._text(word, value))]

    def _text(self, word: str, value: str) -> Iterator[str]:
        if word == "huge":
            count = int(value)
            for start in range(0, count, 65536):
                yield ("huge text " * 6554)[: min(65536, count - start)]
        elif word == "hold":
            yield "Held"
            if self._wait(value):
                yield " and released."
        elif word in ("slow", "endless"):
            for number in range(int(value)) if word == "slow" else itertools.count():
                yield f"tick{number} "
                if not self._pause(0.05 if word == "slow" else 0.02):
                    return
        else:
            yield from _pieces(value or GREETING)


def _pieces(text: str) -> list[str]:
    return re.findall(r".{1,12}", text, re.DOTALL)


def _write(name: str, value: str) -> dict[str, Any]:
    path, _, text = value.partition("=")
    member = "filePath" if name == "write" else "file_path"  # opencode's, all others'
    return {member: path, "content": text}


def _shell(name: str, value: str) -> dict[str, Any]:
    if name == "exec_command":  # codex, as it names them since 0.60
        return {"cmd": value}
    if name == "shell":  # codex before
        return {"command": ["bash", "-lc", value]}
    return {"command": value, "description": "run a command"}


def _ask(name: str, value: str) -> dict[str, Any]:
    options = [{"label": label, "description": f"the colour {label}"} for label in ("Red", "Blue")]
    own = {"id": "colour"} if name == "request_user_input" else {"multiSelect": False}
    return {"questions": [{"question": value, "header": "Colour", "options": options, **own}]}


_SHELLS = ("Bash", "bash", "exec_command", "shell", "shell_command", "run_shell_command")
TOOLS: dict[str, tuple[tuple[str, ...], Callable[[str, str], dict[str, Any]]]] = {
    "bash": (_SHELLS, _shell),
    "bg": (_SHELLS, lambda name, value: _shell(name, value) | {"run_in_background": True}),
    "write": (("Write", "write", "write_file"), _write),
    "agent": (
        ("Agent", "Task", "task"),
        lambda name, value: {"description": "sub", "prompt": value, "subagent_type": "general-purpose"},
    ),
    "ask": (("AskUserQuestion", "question", "request_user_input"), _ask),
}
"""Words that call a tool: the names agents give it, and what it is called with."""


def _tool(word: str, value: str, offered: list[str]) -> Block:
    names, arguments = TOOLS[word]
    name = next((name for name in names if name in offered), names[0])
    return Block("tool", (), name, arguments(name, value))
