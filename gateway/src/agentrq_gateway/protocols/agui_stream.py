"""A run as AG-UI 1.0 events: the session's events in, AG-UI's events out, each with the id of its place.

The shapes are those of the npm package `@ag-ui/core` 1.0. An id says what its reader has: the last kept event that was
sent whole, and how many characters of what is open. From an id a stream goes on in the middle of a message: what is
open is opened again, and continued. Texts in pieces are sent as they come. Does no IO.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

from msgspec import to_builtins

from agentrq import Event, Message
from agentrq.wire.codec import encode
from agentrq.wire.ids import ORIGIN, Cursor
from agentrq.wire.messages import (
    ApprovalRequest,
    Compaction,
    Error,
    Init,
    Prompt,
    Question,
    RateLimit,
    StatusReport,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
    ToolResult,
)
from agentrq_gateway.protocols.run import Run
from agentrq_gateway.protocols.text_blocks import BlockStep, TextBlocks

PROTOCOL_VERSION: Final = "1.0"
MAX_PIECE: Final = 256 * 1024
"""Characters of a text in one event: the client gives up a frame of over 10 Mi characters."""
MAX_RESULT: Final = 4 * 1024 * 1024
"""Characters of a tool's result, which cannot be sent in pieces."""

AgUiEvent = dict[str, Any]


class Place(NamedTuple):
    """What a reader has: every event up to ``cursor``, and so many characters of what is open."""

    cursor: Cursor
    sent: dict[str, int]

    def __str__(self) -> str:
        return ",".join([str(self.cursor), *(f"{quote(block, safe='')}:{had}" for block, had in self.sent.items())])

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read an id; raises ValueError for what is not one."""
        head, *rest = text.split(",")
        if len(rest) > 64:
            raise ValueError("Not an id of this stream")
        sent: dict[str, int] = {}
        for part in rest:
            block, colon, had = part.rpartition(":")
            if not (colon and block and had.isascii() and had.isdigit() and len(had) < 12):
                raise ValueError("Not an id of this stream")
            sent[unquote(block)] = int(had)
        return cls(Cursor.parse(head), sent)


class Frame(NamedTuple):
    """One event of AG-UI, and the id of the place after it."""

    event: AgUiEvent
    id: str


class AgUiStream:
    """The events of one run. `begin`, then `see` for every event of the session from the run's origin on.

    ``place`` is what the reader has already; without one, all that belongs to the run is sent.
    """

    def __init__(self, run: Run, thread_id: str, run_id: str, place: Place | None = None) -> None:
        self._run = run
        self._ids = {"threadId": thread_id, "runId": run_id}
        self._have = place.cursor if place is not None else ORIGIN
        self._cursor = self._have
        self._blocks = TextBlocks(place.sent if place is not None else None, MAX_PIECE)
        self._provider: AgUiEvent = {}
        self._finished = False

    def begin(self, snapshot: Sequence[AgUiEvent] | None = None) -> list[Frame]:
        """The run's start; then a ``snapshot`` of the conversation, if given; then what is open, opened again."""
        events: list[AgUiEvent] = [{"type": "RUN_STARTED", **self._ids, "protocolVersion": PROTOCOL_VERSION}]
        if snapshot is not None:
            events.append({"type": "MESSAGES_SNAPSHOT", "messages": list(snapshot)})
        # A call is opened again by its event, which is the next that comes.
        open_texts = [block for block in self._blocks.open if not block.startswith("tool ")]
        steps = [step for block in open_texts for step in self._blocks.reopen(block)]
        return [*map(self._frame, events), *self._to_frames(steps, {})]

    def see(self, event: Event) -> list[Frame]:
        """The frames that an event adds. After the run's ending: none."""
        if self._finished:
            return []
        if event.cursor is None:
            return self._see_piece(event) if self._run.begun else []
        shown = self._run.see(event)
        cursor = Cursor.parse(event.cursor)
        if isinstance(event, Message) and isinstance(event.content, Init):
            self._provider = {"model": event.content.model} if isinstance(event.content.model, str) else {}
        frames: list[Frame] = []
        if cursor > self._have:
            frames = self._see_message(event, cursor) if shown and isinstance(event, Message) else []
            self._cursor = cursor
            # Whoever has the last of its events has the event; what closes together counts as the last.
            for place in range(len(frames) - 1, -1, -1):
                frames[place] = Frame(frames[place].event, self._here())
                if not frames[place].event["type"].endswith("_END"):
                    break
        return frames + self._finish()

    def settle(self, status: str) -> list[Frame]:
        """The frames of a run of which, with this status of the session, nothing more comes by itself."""
        self._run.settle(status)
        return self._finish()

    def _finish(self) -> list[Frame]:
        """The run's end, once it has one."""
        ending = self._run.ending
        if ending is None or self._finished:
            return []
        self._finished = True
        frames = self._to_frames(self._blocks.close_all(), {})
        usage: AgUiEvent = {}
        if ending.cost is not None:
            counts = {"inputTokens": ending.cost.input_tokens, "outputTokens": ending.cost.output_tokens}
            metadata = {"agentrqCostUsd": ending.cost.total_cost_usd, "agentrqDurationMs": ending.cost.duration_ms}
            usage = {"usage": [self._provider | counts], "metadata": metadata}
        if ending.kind == "failed":
            return [*frames, self._frame({"type": "RUN_ERROR", "message": ending.message or "failed", **usage})]
        outcome: AgUiEvent = {"type": "success"}
        if ending.kind == "waiting":
            outcome = {"type": "interrupt", "interrupts": [_interrupt(request) for request in ending.requests]}
        elif ending.kind == "interrupted":
            outcome = {"type": "cancelled"}
        return [*frames, self._frame({"type": "RUN_FINISHED", **self._ids, "outcome": outcome, **usage})]

    def gone(self, message: str) -> list[Frame]:
        """The frames of a run whose events are not there any more."""
        self._run.gone(message)
        return self._finish()

    def _here(self) -> str:
        return str(Place(self._cursor, self._blocks.open))

    def _frame(self, event: AgUiEvent) -> Frame:
        return Frame(event, self._here())

    # -- texts, and the arguments of calls: what is opened, continued and closed

    def _see_piece(self, message: Message) -> list[Frame]:
        content = message.content
        if not isinstance(content, TextDelta | ThinkingDelta):
            return []
        name = _block_name("text" if isinstance(content, TextDelta) else "reasoning", content.block_id, self._cursor)
        steps = self._blocks.piece(name, content.offset, content.text, content.abandoned)
        return self._to_frames(steps, _about(message))

    def _to_frames(self, steps: list[BlockStep], about: AgUiEvent) -> list[Frame]:
        frames: list[Frame] = []
        for step in steps:
            place = str(Place(self._cursor, dict(step.sent)))
            frames += [Frame(event, place) for event in _block_events(step, about)]
        return frames

    # -- messages

    def _see_message(self, message: Message, cursor: Cursor) -> list[Frame]:
        content, about = message.content, _about(message)
        if isinstance(content, Text | Thinking):
            kind = "text" if isinstance(content, Text) else "reasoning"
            return self._to_frames(self._blocks.whole(_block_name(kind, content.block_id, cursor), content.text), about)
        if isinstance(content, ToolCall):
            block = f"tool {content.tool_use_id}"
            about |= {"toolCallName": content.name}
            return self._to_frames(self._blocks.whole(block, _as_text(content.input)), about)
        if isinstance(content, ToolResult):
            return [self._frame({"type": "TOOL_CALL_RESULT", **_result(content, cursor, about)})]
        if isinstance(content, Prompt):
            steps = self._blocks.whole(f"user {content.command_id}", content.text)
            return self._to_frames(steps, about)
        if isinstance(content, Error | RateLimit | Compaction | StatusReport):
            custom = {"type": "CUSTOM", "name": f"agentrq.{message.type}", "value": to_builtins(content)}
            return [self._frame(custom | about)]
        return []


def _block_name(kind: str, block: Any, cursor: Cursor) -> str:
    # Another process of the agent may use its ids again, in another epoch.
    return f"{kind} {cursor.epoch}.{block}" if isinstance(block, str) else f"{kind} {cursor}"


def _block_events(step: BlockStep, about: AgUiEvent) -> list[AgUiEvent]:
    kind, _, block = step.block.partition(" ")
    if kind == "tool":
        return _call_events(step, block, about)
    given_up = {"metadata": {"agentrqAbandoned": True}} if step.abandoned else {}
    head, role = ("TEXT_MESSAGE", "user" if kind == "user" else "assistant")
    if kind == "reasoning":
        head, role = "REASONING_MESSAGE", "reasoning"
    about = {"messageId": block, **about}
    if step.kind == "open":
        start = {"type": f"{head}_START", "role": role, **about}
        return [{"type": "REASONING_START", **about}, start] if kind == "reasoning" else [start]
    if step.kind == "text":
        return [{"type": f"{head}_CONTENT", "delta": step.text, **about}]
    end = {"type": f"{head}_END", **about, **given_up}
    return [end, {"type": "REASONING_END", **about}] if kind == "reasoning" else [end]


def _call_events(step: BlockStep, call: str, about: AgUiEvent) -> list[AgUiEvent]:
    name = {"toolCallName": about.get("toolCallName", "")}
    about = {"toolCallId": call, **{member: value for member, value in about.items() if member != "toolCallName"}}
    if step.kind == "open":
        return [{"type": "TOOL_CALL_START", **about, **name}]
    if step.kind == "text":
        return [{"type": "TOOL_CALL_ARGS", "delta": step.text, **about}]
    return [{"type": "TOOL_CALL_END", **about}]


def _result(content: ToolResult, cursor: Cursor, about: AgUiEvent) -> AgUiEvent:
    text = _as_text(content.output)
    result = {"messageId": str(cursor), "toolCallId": content.tool_use_id, "content": text[:MAX_RESULT], "role": "tool"}
    metadata: AgUiEvent = dict(about.get("metadata", {}))
    if content.is_error:
        metadata["agentrqIsError"] = True
    if len(text) > MAX_RESULT:
        metadata["agentrqTruncated"] = True
    return {**result, "metadata": metadata} if metadata else result


def _interrupt(request: Message) -> AgUiEvent:
    content = request.content
    metadata: AgUiEvent = dict(_about(request).get("metadata", {}))
    if isinstance(content, Question):
        asked = "\n".join(str(each.get("question", "")) for each in content.questions if isinstance(each, dict))
        metadata["agentrqQuestions"] = to_builtins(content.questions)
        return {"id": content.request_id, "reason": "input_required", "message": asked, "metadata": metadata}
    assert isinstance(content, ApprovalRequest)
    metadata |= {"agentrqTool": content.name, "agentrqInput": to_builtins(content.input)}
    interrupt: AgUiEvent = {
        "id": content.request_id,
        "reason": "tool_call",
        "message": f"The agent asks to use {content.name}",
        "responseSchema": APPROVAL_SCHEMA,
        "metadata": metadata,
    }
    if isinstance(content.tool_use_id, str):
        interrupt["toolCallId"] = content.tool_use_id
    return interrupt


APPROVAL_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean"},
        "reason": {"type": "string"},
        "editedArgs": {"type": "object"},
    },
    "required": ["approved"],
}
"""What an answer to an approval request looks like."""


def _about(message: Message) -> AgUiEvent:
    """The call of the sub-agent that spoke, where one did. Metadata is merged by name, so each fact has its own."""
    return {} if message.parent_id is None else {"metadata": {"agentrqParentId": message.parent_id}}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else encode(to_builtins(value)).decode()


def to_messages(events: Sequence[Event]) -> list[AgUiEvent]:
    """The messages of a conversation as a snapshot has them, by the ids that the stream gives them."""
    messages: list[AgUiEvent] = []
    for event in events:
        if event.cursor is None or not isinstance(event, Message):
            continue
        content, cursor, about = event.content, Cursor.parse(event.cursor), _about(event)
        if isinstance(content, Prompt):
            messages.append({"id": content.command_id, "role": "user", "content": content.text, **about})
        elif isinstance(content, Text | Thinking):
            kind, role = ("text", "assistant") if isinstance(content, Text) else ("reasoning", "reasoning")
            name = _block_name(kind, content.block_id, cursor).partition(" ")[2]
            messages.append({"id": name, "role": role, "content": content.text, **about})
        elif isinstance(content, ToolCall):
            function = {"name": content.name, "arguments": _as_text(content.input)}
            call = {"id": content.tool_use_id, "type": "function", "function": function}
            messages.append({"id": content.tool_use_id, "role": "assistant", "toolCalls": [call], **about})
        elif isinstance(content, ToolResult):
            result = _result(content, cursor, about)
            messages.append({"id": result.pop("messageId"), **result})
    return messages
