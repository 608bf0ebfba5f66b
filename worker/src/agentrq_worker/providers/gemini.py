"""The output of Gemini CLI's `--output-format stream-json` (0.61) as typed messages. Pure.

Owns the mapping of its output lines. Does not own how gemini is started; `gemini --acp` (acp/protocol.py) can do more:
permissions, several turns in one process.

What the format asks of a reader: an assistant's text comes in pieces without an end or an id; there is no cost in USD;
one process is one turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias, get_args

import msgspec
from msgspec import UNSET, Raw

from agentrq.wire.messages import Error, Init, SessionTotal, StatusReport
from agentrq_worker.providers import json_line
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.json_line import ABSENT
from agentrq_worker.providers.parser import INTERRUPTED, NO_TURNS, OutputParser, Reader
from agentrq_worker.providers.streamed_text import CurrentText

_UNANSWERED = "Interrupted: the turn ended before the tool answered"


class _Line(msgspec.Struct, gc=False):
    """Any line."""


class InitLine(_Line, tag="init"):
    """The first line of a process."""

    session_id: Any = None
    model: Any = None


class MessageLine(_Line, tag="message"):
    """The prompt, or a text of the agent: a piece of it when ``delta`` is true."""

    role: Any = None
    content: str | None = None
    delta: Any = None


class ToolUse(_Line, tag="tool_use"):
    """A tool call."""

    tool_id: str
    tool_name: Any = None
    parameters: Raw = ABSENT


class ToolResultLine(_Line, tag="tool_result"):
    """The result of a tool call."""

    tool_id: str
    status: Any = None
    output: Raw = ABSENT
    error: Any = None


class ErrorLine(_Line, tag="error"):
    """A fault that does not end the turn."""

    severity: Any = None
    message: Any = None


class ResultLine(_Line, tag="result"):
    """The end of the turn."""

    status: Any = None
    error: Any = None
    stats: Any = None


Line: TypeAlias = InitLine | MessageLine | ToolUse | ToolResultLine | ErrorLine | ResultLine


class GeminiParser(OutputParser):
    """Reads Gemini CLI's `stream-json`."""

    ends_each_turn = True
    _decoder = msgspec.json.Decoder(Line)
    _turn_ends = frozenset({"result"})
    _tags = frozenset(str(kind.__struct_config__.tag) for kind in get_args(Line))

    def __init__(self, total: SessionTotal = NO_TURNS, epoch: int = 1) -> None:
        super().__init__(total, epoch)
        self._session: Any = None
        self._text = CurrentText(epoch)
        self._last_end = b""

    def _init(self, event: InitLine, line: bytes) -> list[DraftMessage]:
        if self._session is not None and event.session_id == self._session:
            return self._text.end()
        self._session = event.session_id
        init = Init(provider_session_id=json_line.optional(event.session_id), model=json_line.optional(event.model))
        return [*self._text.end(), DraftMessage("init", init)]

    def _message(self, event: MessageLine, line: bytes) -> list[DraftMessage]:
        if event.role == "user":  # the prompt, which the session has published
            return self._text.end()
        if event.content is None:
            return [*self._text.end(), DraftMessage(*json_line.malformed("message", "its content is missing", line))]
        if event.delta is True:
            return self._text.add(event.content)
        drafts = self._text.end()
        self._text.add(event.content)
        return drafts + self._text.end()

    def _tool_use(self, event: ToolUse, line: bytes) -> list[DraftMessage]:
        drafts = self._text.end()
        self._call(
            event.tool_id,
            json_line.text(event.tool_name),
            json_line.passed_or(event.parameters, {}),
            None,
            drafts,
            line,
        )
        return drafts

    def _tool_result(self, event: ToolResultLine, line: bytes) -> list[DraftMessage]:
        drafts = self._text.end()
        failed = event.status == "error"
        output = json_line.passed_or(event.output, "")
        if failed and output == "":
            output = json_line.text(json_line.mapping(event.error).get("message"))
        self._result(event.tool_id, output, failed, None, drafts, line)
        return drafts

    def _error(self, event: ErrorLine, line: bytes) -> list[DraftMessage]:
        message = json_line.text(event.message) or "unknown"
        if event.severity == "warning":
            return [*self._text.end(), DraftMessage("status", StatusReport(subtype="warning", message=message))]
        return [*self._text.end(), DraftMessage("error", Error(message=message))]

    def _result_line(self, event: ResultLine, line: bytes) -> list[DraftMessage]:
        if line == self._last_end:  # lines carry their time: this one was repeated
            return []
        self._last_end = line
        drafts = self.close(_UNANSWERED)
        stats = json_line.mapping(event.stats)
        error = json_line.text(json_line.mapping(event.error).get("message"))
        failed = event.status == "error" or bool(error)
        drafts.append(
            self._cost(
                0.0,
                json_line.whole(stats.get("input_tokens")),
                json_line.whole(stats.get("output_tokens")),
                num_turns=1,
                is_error=failed,
                duration_ms=json_line.whole(stats.get("duration_ms")),
                errors=[error or "The turn failed"] if failed else UNSET,
            )
        )
        return drafts

    def finish_texts(self) -> list[DraftMessage]:
        """Like `OutputParser.finish_texts`."""
        return self._text.end()

    def close(self, reason: str = INTERRUPTED) -> list[DraftMessage]:
        """Like `OutputParser.close`; an unfinished text is published as it stands."""
        return [*self._text.end(), *super().close(reason)]

    _readers: ClassVar[Mapping[type, Reader]] = {
        InitLine: _init,
        MessageLine: _message,
        ToolUse: _tool_use,
        ToolResultLine: _tool_result,
        ErrorLine: _error,
        ResultLine: _result_line,
    }
