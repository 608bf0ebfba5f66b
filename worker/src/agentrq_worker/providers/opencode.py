"""The output of `opencode run --format json` (1.18) as typed messages. Pure.

Owns the mapping of its output lines. Does not own how opencode is started; `opencode acp` (acp/protocol.py) can do
more.

What the format asks of a reader: texts and calls come whole, a call together with its result; a turn is several
steps, each with its own cost and tokens, and the last is known by its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias, get_args

import msgspec
from msgspec import UNSET, Raw

from agentrq.wire.messages import Error, Init, SessionTotal, StatusReport, Text, Thinking
from agentrq_worker.providers import json_line
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.json_line import ABSENT
from agentrq_worker.providers.parser import NO_TURNS, OutputParser, Reader

_GOES_ON = frozenset({"tool-calls", "unknown"})
"""The reasons for which another step follows (opencode, session/prompt.ts)."""


class State(msgspec.Struct, gc=False):
    """The state of a tool call."""

    status: Any = None
    input: Raw = ABSENT
    output: Raw = ABSENT
    error: Raw = ABSENT


class Part(msgspec.Struct, gc=False):
    """The part of a message that a line tells."""

    id: str | None = None
    text: Raw = ABSENT
    call: str | None = msgspec.field(default=None, name="callID")
    tool: Any = None
    state: State | None = None
    reason: Any = None
    cost: Any = None
    tokens: Any = None


class _Line(msgspec.Struct, gc=False, kw_only=True):
    """What every line has."""

    session: Any = msgspec.field(default=None, name="sessionID")
    timestamp: Any = None


class StepStart(_Line, tag="step_start"):
    """A request to the model begins."""


class TextLine(_Line, tag="text"):
    """A whole text."""

    part: Part


class ReasoningLine(_Line, tag="reasoning"):
    """A whole thought (with ``--thinking``)."""

    part: Part


class ToolUse(_Line, tag="tool_use"):
    """A tool call that has ended."""

    part: Part


class StepFinish(_Line, tag="step_finish"):
    """A request to the model has ended."""

    part: Part


class ErrorLine(_Line, tag="error"):
    """The turn failed."""

    error: Any = None


Line: TypeAlias = StepStart | TextLine | ReasoningLine | ToolUse | StepFinish | ErrorLine


class OpencodeParser(OutputParser):
    """Reads `opencode run --format json`."""

    ends_each_turn = True
    _decoder = msgspec.json.Decoder(Line)
    _turn_ends = frozenset({"step_finish", "error"})
    _tags = frozenset(str(kind.__struct_config__.tag) for kind in get_args(Line))

    def __init__(self, total: SessionTotal = NO_TURNS, epoch: int = 1) -> None:
        super().__init__(total, epoch)
        self._session: str | None = None
        self._parts: set[str] = set()  # ids of the turn's parts
        self._last_end = b""
        self._began: int | None = None
        self._spent = (0.0, 0, 0)

    def _init(self, event: _Line) -> list[DraftMessage]:
        """The session's `init`: every line carries its id."""
        if not isinstance(event.session, str) or event.session == self._session:
            return []
        self._session = event.session
        return [DraftMessage("init", Init(provider_session_id=event.session))]

    def _is_repeated_part(self, part: Part) -> bool:
        if part.id is None:
            return False
        seen = part.id in self._parts
        self._parts.add(part.id)
        return seen

    def _step_start(self, event: StepStart, line: bytes) -> list[DraftMessage]:
        if self._began is None:  # the turn's first step
            self._began = json_line.whole(event.timestamp)
        return self._init(event)

    def _text(self, event: TextLine, line: bytes) -> list[DraftMessage]:
        return [*self._init(event), *self._publish_text(event.part, "text", line)]

    def _reasoning(self, event: ReasoningLine, line: bytes) -> list[DraftMessage]:
        return [*self._init(event), *self._publish_text(event.part, "reasoning", line)]

    def _publish_text(self, part: Part, kind: str, line: bytes) -> list[DraftMessage]:
        if not json_line.is_text(part.text):
            return [DraftMessage(*json_line.malformed(kind, "its text is missing", line))]
        if self._is_repeated_part(part):
            return []
        words = json_line.passed(part.text)
        return [
            DraftMessage("text", Text(text=words)) if kind == "text" else DraftMessage("thinking", Thinking(text=words))
        ]

    def _tool_use(self, event: ToolUse, line: bytes) -> list[DraftMessage]:
        drafts = self._init(event)
        part, state = event.part, event.part.state or State()
        if part.call is None:
            return [*drafts, DraftMessage(*json_line.malformed("tool_use", "it has no callID", line))]
        self._call(part.call, json_line.text(part.tool), json_line.passed_or(state.input, {}), None, drafts, line)
        if state.status == "error":
            self._result(part.call, json_line.passed_or(state.error, ""), True, None, drafts, line)
        elif state.status == "completed":
            self._result(part.call, json_line.passed_or(state.output, ""), False, None, drafts, line)
        return drafts

    def _step_finish(self, event: StepFinish, line: bytes) -> list[DraftMessage]:
        drafts = self._init(event)
        part = event.part
        if self._is_repeated_part(part) or line == self._last_end:
            return drafts
        tokens = json_line.mapping(part.tokens)
        cost, tokens_in, tokens_out = self._spent
        self._spent = (
            cost + json_line.amount(part.cost),
            tokens_in + json_line.whole(tokens.get("input")),
            tokens_out + json_line.whole(tokens.get("output")),
        )
        reason = json_line.text(part.reason)
        if reason in _GOES_ON:
            return drafts
        self._last_end = line
        if reason not in ("", "stop"):
            drafts.append(DraftMessage("status", StatusReport(subtype="finish", message=reason)))
        return [*drafts, *self._end_turn(event, "The model ended with an error" if reason == "error" else None)]

    def _after_unread(self, line: bytes, found: json_line.Unread) -> list[DraftMessage]:
        goes_on = any(f'"{reason}"'.encode() in line for reason in _GOES_ON)
        return [] if goes_on else super()._after_unread(line, found)

    def lost_end(self, reason: str) -> list[DraftMessage]:
        """Like `OutputParser.lost_end`, with what the turn's steps have cost."""
        return self._end_turn(None, reason)

    def _end_turn(self, event: _Line | None, error: str | None) -> list[DraftMessage]:
        (cost, tokens_in, tokens_out), self._spent = self._spent, (0.0, 0, 0)
        began = self._began
        duration = 0 if event is None or began is None else max(json_line.whole(event.timestamp) - began, 0)
        self._began = None
        self._parts.clear()
        errors = [error] if error is not None else UNSET
        drafts = self.close("Interrupted: the turn ended before the tool answered")
        return [*drafts, self._cost(cost, tokens_in, tokens_out, 1, error is not None, duration, errors=errors)]

    def _error(self, event: ErrorLine, line: bytes) -> list[DraftMessage]:
        drafts = self._init(event)
        found = json_line.mapping(event.error)
        name = json_line.text(found.get("name"))
        message = json_line.text(json_line.mapping(found.get("data")).get("message")) or name or "The turn failed"
        drafts.append(DraftMessage("error", Error(message=message, code=name or UNSET)))
        return [*drafts, *self._end_turn(event, message)]

    _readers: ClassVar[Mapping[type, Reader]] = {
        StepStart: _step_start,
        TextLine: _text,
        ReasoningLine: _reasoning,
        ToolUse: _tool_use,
        StepFinish: _step_finish,
        ErrorLine: _error,
    }
