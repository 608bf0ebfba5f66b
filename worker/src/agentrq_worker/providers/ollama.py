"""The lines of Ollama's `POST /api/chat` (stream) as typed messages. Pure.

Owns the mapping of its chunks, and of the two lines that the built-in runner adds (``init``, ``notice``). Does not own
the requests (builtin_runners/ollama.py).

What the format asks of a reader: thought and text come in pieces and end with the next kind or with ``done``; a
failure in mid-stream is a line with ``error``; older servers give a call no id; times are in nanoseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from msgspec import UNSET, Raw

from agentrq.wire.messages import Error, Init, SessionTotal, StatusReport
from agentrq_worker.providers import json_line
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.json_line import ABSENT
from agentrq_worker.providers.parser import INTERRUPTED, NO_TURNS, OutputParser, Reader
from agentrq_worker.providers.streamed_text import CurrentText

_NO_TOOLS = "Not run: nothing here runs a model's tools"


class Function(msgspec.Struct, gc=False):
    """The tool and its arguments."""

    name: Any = None
    arguments: Raw = ABSENT


class Call(msgspec.Struct, gc=False):
    """One tool call."""

    id: Any = None
    function: Function | None = None


class Message(msgspec.Struct, gc=False):
    """A piece of the model's answer."""

    content: str | None = None
    thinking: str | None = None
    tool_calls: list[Call] | None = None


class Chunk(msgspec.Struct, gc=False):
    """One line of the stream, or of the runner."""

    type: Any = None
    model: Any = None
    message: Message | str | None = None
    done: Any = None
    done_reason: Any = None
    total_duration: Any = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    error: Any = None
    session_id: Any = None
    cwd: Any = None
    code: Any = None


class OllamaParser(OutputParser):
    """Reads the chunks of Ollama's `POST /api/chat`."""

    ends_each_turn = True
    _decoder = msgspec.json.Decoder(Chunk)
    _tags = None

    def __init__(self, total: SessionTotal = NO_TURNS, epoch: int = 1) -> None:
        super().__init__(total, epoch)
        self._began = False
        self._text = CurrentText(epoch)
        self._call_count = 0

    def _chunk(self, event: Chunk, line: bytes) -> list[DraftMessage]:
        if event.type == "init":
            return self._init(event)
        if event.type == "notice":
            message = event.message if isinstance(event.message, str) else "unknown"
            return [DraftMessage("error", Error(message=message, code=json_line.optional(event.code)))]
        if event.error is not None:
            message = (
                json_line.text(event.error)
                or json_line.text(json_line.mapping(event.error).get("message"))
                or "unknown"
            )
            return [*self.close(), DraftMessage("error", Error(message=message)), self._figures(event, message)]
        if not isinstance(event.message, Message) and event.done is not True:
            return [DraftMessage(*json_line.unknown(line))]
        drafts = [] if self._began else self._init(event)
        if isinstance(event.message, Message):
            self._message(event.message, drafts, line)
        if event.done is True:
            drafts += self.close(_NO_TOOLS)
            reason = json_line.text(event.done_reason)
            if reason not in ("", "stop"):
                drafts.append(DraftMessage("status", StatusReport(subtype="done", message=reason)))
            drafts.append(self._figures(event, ""))
        return drafts

    def _after_unread(self, line: bytes, found: json_line.Unread) -> list[DraftMessage]:
        # Its lines have no type: what ends an answer is known by one of these members.
        is_end = found.type == "error" and (b'"done":true' in line or line.lstrip().startswith(b'{"error"'))
        return self.lost_end("The line that ends the turn could not be read") if is_end else []

    def _init(self, event: Chunk) -> list[DraftMessage]:
        if self._began:
            return []
        self._began = True
        session, model, cwd = (json_line.optional(found) for found in (event.session_id, event.model, event.cwd))
        return [DraftMessage("init", Init(provider_session_id=session, model=model, cwd=cwd))]

    def _message(self, message: Message, drafts: list[DraftMessage], line: bytes) -> None:
        if message.thinking:
            drafts += self._text.add(message.thinking, thought=True)
        if message.content:
            drafts += self._text.add(message.content)
        for call in message.tool_calls or ():
            drafts += self._text.end()
            self._call_count += 1
            function = call.function or Function()
            name, arguments = json_line.text(function.name), json_line.passed_or(function.arguments, {})
            own_id = json_line.text(call.id)
            if not own_id or own_id in self._calls:  # each call of a chunk is another one, whatever its id
                own_id = f"{own_id or 'call'}_{self._call_count}"
            self._call(own_id, name, arguments, None, drafts, line)

    def _figures(self, event: Chunk, error: str) -> DraftMessage:
        return self._cost(
            0.0,
            json_line.whole(event.prompt_eval_count),
            json_line.whole(event.eval_count),
            num_turns=1,
            is_error=bool(error),
            duration_ms=json_line.whole(event.total_duration) // 1_000_000,
            errors=[error] if error else UNSET,
        )

    def finish_texts(self) -> list[DraftMessage]:
        """Like `OutputParser.finish_texts`."""
        return self._text.end()

    def close(self, reason: str = INTERRUPTED) -> list[DraftMessage]:
        """Like `OutputParser.close`; an unfinished text is published as it stands."""
        return [*self._text.end(), *super().close(reason)]

    _readers: ClassVar[Mapping[type, Reader]] = {Chunk: _chunk}
