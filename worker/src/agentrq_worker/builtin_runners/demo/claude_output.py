"""The demo's output: Claude Code's stream-json shapes (CLI 2.1.330), each line inside an ``agent_event``, paced.

Owns the shapes and their ids, and the wait for an answer. Does not own the content, nor its order.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import msgspec

from agentrq_worker.builtin_runners.protocol import NotAnswered, Runner, displayable

_ANSWER_S = 600.0
_BATCH = 65536
"""Bytes of lines written at once where there is no pause: a pipe's capacity."""
_NO_USAGE = {
    "input_tokens": 0,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 0,
}

ToolOutput = tuple[str, bool]
"""A tool's output, and whether it is an error."""


class ClaudeOutput:
    """Prints as one agent. ``pace`` is the seconds a step takes, 0 for no pause.

    Ids carry a token of the process: a session's next runner does not repeat them.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        session: str | None,
        model: str | None,
        cwd: str,
        pace: float,
        asks_permission: bool,
        asks_questions: bool,
    ) -> None:
        self.runner = runner
        self.cwd = cwd
        self.asks_permission = asks_permission
        self.asks_questions = asks_questions
        self._token = os.urandom(6).hex()
        self.session = session or f"demo-{self._token}"
        self._model = model or "demo"
        self._pace = pace
        self._count = 0
        self._turn_began = time.monotonic()

    def new_id(self, kind: str) -> str:
        """A new id: ``kind`` says whose (msg, toolu, req, task)."""
        self._count += 1
        return f"{kind}_demo{self._token}{self._count:06d}"

    def pause(self, steps: float = 1.0) -> None:
        """Waits this many steps. Raises `TurnInterrupted` when the user interrupts the turn."""
        self.runner.pause(self._pace * steps)

    def emit(self, steps: float, event: dict[str, Any]) -> None:
        """Prints one object as it is, then pauses for so many ``steps``."""
        self.runner.write(self._line(event))
        self.pause(steps)

    def system(self, subtype: str, **members: Any) -> None:
        """Prints a ``system`` object."""
        self.emit(1, {"type": "system", "subtype": subtype, **members, **self._stamp()})

    def init(self) -> None:
        """Begins a turn."""
        self._turn_began = time.monotonic()
        self.system(
            "init",
            cwd=displayable(self.cwd),
            tools=["LS", "Read", "Count", "Task"],
            mcp_servers=[],
            model=self._model,
            permissionMode="default",
            slash_commands=[],
            apiKeySource="none",
            claude_code_version="demo",
            output_style="default",
            skills=[],
            plugins=[],
        )

    def text(self, text: str, *, thinking: str | None = None) -> None:
        """Prints a message of a thought, if any, and a text, each in pieces first and then whole."""
        message = self.new_id("msg")
        start = {**self._message(message, []), "stop_reason": None}
        self._stream({"type": "message_start", "message": start})
        blocks = [("text", text)] if thinking is None else [("thinking", thinking), ("text", text)]
        for index, (kind, whole) in enumerate(blocks):
            self._stream({"type": "content_block_start", "index": index, "content_block": {"type": kind, kind: ""}})
            size = -(-len(whole) // 4) or 1
            for at in range(0, len(whole), size):
                delta = {"type": f"{kind}_delta", kind: whole[at : at + size]}
                self._stream({"type": "content_block_delta", "index": index, "delta": delta}, 0.25)
            self.emit(0.5, self._frame(message, {"type": kind, kind: whole}))
            self._stream({"type": "content_block_stop", "index": index})
        ending = {"stop_reason": "end_turn", "stop_sequence": None}
        self._stream({"type": "message_delta", "delta": ending, "usage": {"output_tokens": 0}})
        self._stream({"type": "message_stop"})

    def texts(self, make: Callable[[int], str], count: int) -> None:
        """Prints the texts 1 to ``count``, each a message of its own, whole, and without a pause."""
        lines: list[bytes] = []
        size = 0
        for number in range(1, count + 1):
            lines.append(self._line(self._frame(self.new_id("msg"), {"type": "text", "text": make(number)})))
            size += len(lines[-1])
            if size >= _BATCH or number == count:
                self.runner.write(b"".join(lines))
                lines.clear()
                size = 0

    def sub_agent_text(self, parent: str, text: str) -> None:
        """Prints a text of the sub-agent that the tool call ``parent`` started."""
        self.emit(1, self._frame(self.new_id("msg"), {"type": "text", "text": text}, parent))

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Prints that a tool is called; returns the call's id."""
        call = self.new_id("toolu")
        block = {"type": "tool_use", "id": call, "name": name, "input": arguments}
        self.emit(1, self._frame(self.new_id("msg"), block))
        return call

    def tool_result(self, call: str, output: ToolOutput) -> None:
        """Prints what the tool answered."""
        content, is_error = output
        block = {"tool_use_id": call, "type": "tool_result", "content": content, "is_error": is_error}
        message = {"role": "user", "content": [block]}
        self.emit(0.5, {"type": "user", "message": message, "parent_tool_use_id": None, **self._stamp()})

    def ask(self, request: dict[str, Any], waits: bool) -> Any:
        """Asks the user (a ``control_request``); returns the answer, None if nobody gives one.

        It ``waits`` for ten minutes, or withdraws the request after a moment.
        """
        request_id = self.new_id("req")
        bound_s = _ANSWER_S if waits else 1.5 * self._pace
        self.emit(0, {"type": "control_request", "request_id": request_id, "request": request})
        try:
            return self.runner.wait_for_answer(request_id, bound_s)
        except NotAnswered:
            self.emit(0.5, {"type": "control_cancel_request", "request_id": request_id})
            return None

    def may_use(self, tool: str, given: dict[str, Any], call: str, waits: bool, **members: Any) -> bool:
        """Asks for permission to make a call; whether it was given."""
        request = {"subtype": "can_use_tool", "tool_name": tool, "input": given, "tool_use_id": call}
        answer = self.ask(request | members, waits)
        if isinstance(answer, dict):
            answer = answer.get("decision", answer.get("behavior"))
        return bool(answer == "allow")

    def result(self, text: str, *, errors: list[str] | None = None) -> None:
        """Ends the turn: nothing was spent, the duration is true; with ``errors`` the turn has failed."""
        ending: dict[str, Any] = {"subtype": "success", "is_error": False, "result": text}
        if errors is not None:
            ending = {"subtype": "error_during_execution", "is_error": True, "errors": errors}
        event = {
            "type": "result",
            **ending,
            "duration_ms": round((time.monotonic() - self._turn_began) * 1000),
            "duration_api_ms": 0,
            "num_turns": 1,
            "stop_reason": "end_turn",
            "total_cost_usd": 0.0,
            "usage": _NO_USAGE,
            "modelUsage": {},
            "permission_denials": [],
        }
        self.runner.write(self._line({**event, **self._stamp()}))  # no pause: an interrupt is too late for this turn

    def _line(self, event: dict[str, Any]) -> bytes:
        return msgspec.json.encode({"type": "agent_event", "event": event}) + b"\n"

    def _stamp(self) -> dict[str, str]:
        self._count += 1
        return {"session_id": self.session, "uuid": f"{self._token[:8]}-{self._token[8:]}-4000-8000-{self._count:012x}"}

    def _message(self, message: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": message,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_sequence": None,
            "usage": _NO_USAGE,
        }

    def _frame(self, message: str, block: dict[str, Any], parent: str | None = None) -> dict[str, Any]:
        whole = {**self._message(message, [block]), "stop_reason": None}
        return {"type": "assistant", "message": whole, "parent_tool_use_id": parent, **self._stamp()}

    def _stream(self, event: dict[str, Any], steps: float = 0) -> None:
        self.emit(steps, {"type": "stream_event", "event": event, "parent_tool_use_id": None, **self._stamp()})
