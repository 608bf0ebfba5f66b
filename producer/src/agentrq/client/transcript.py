"""From events to a transcript: what a person reads. Pure: the same events give the same transcript, whatever was cut.

Texts that are whole stand in `Transcript.entries`, those being written in `Transcript.open`. The JavaScript client has
the same (clients/js/src/transcript.js), and a test holds the two to each other.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import msgspec

from agentrq.wire.events import Event, Message, Receipt, StatusEvent
from agentrq.wire.ids import Cursor
from agentrq.wire.messages import (
    ApprovalRequest,
    ApprovalResolved,
    Question,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
    ToolResult,
)
from agentrq.wire.status import ENDED

DEEPEST: Final = 8
"""Sub-agents nest so deep; what lies deeper stands at this depth."""
_CLOSED: Final = 64
"""So many closed blocks are remembered: their pieces may still come."""


class Result(msgspec.Struct, rename="camel"):
    """What a tool answered, and when (ms)."""

    output: Any
    is_error: bool
    timestamp: int


class Resolution(msgspec.Struct):
    """How a request ended, by whom, and when (ms)."""

    decision: str
    by: str
    timestamp: int


class Entry(msgspec.Struct, rename="camel", omit_defaults=True):
    """One thing of a transcript.

    ``kind`` is the message's type, except: ``tool`` is a ``tool_call`` with its ``tool_result``, ``request`` an
    ``approval_request`` or ``question`` with its ``approval_resolved``, ``session`` a status of the session,
    ``receipt`` a receipt. ``children`` of a tool is what its sub-agent said.
    """

    kind: str
    cursor: str
    timestamp: int
    content: Any
    parent_id: str | None = None
    result: Result | None = None
    resolved: Resolution | None = None
    children: list[Entry] | None = None


class OpenBlock(msgspec.Struct, rename="camel", omit_defaults=True):
    """A text that is being written; ``kind`` is ``text`` or ``thinking``."""

    kind: str
    block_id: str
    text: str
    parent_id: str | None = None


class Transcript:
    """Grows by `apply`; it needs every event of a session, in order, deltas or not."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.open: dict[str, OpenBlock] = {}
        self.waiting: dict[str, Entry] = {}
        """Requests that nobody has answered, by their id."""
        self.cursor: Cursor | None = None
        """The last event's."""
        self.status: str | None = None
        self._tools: dict[str, tuple[Entry, int, Entry | None]] = {}
        """Tool call → its entry, how deep it lies, and what it lies in."""
        self._closed: deque[Any] = deque(maxlen=_CLOSED)

    def apply(self, event: Event) -> None:
        """Take one event; one that it has already changes nothing."""
        if event.cursor is None:
            self._add_piece(event)
            return
        cursor = Cursor.parse(event.cursor)
        if self.cursor is not None:
            if cursor <= self.cursor:
                return
            if cursor.epoch != self.cursor.epoch:
                self.open.clear()
        self.cursor = cursor
        if isinstance(event, StatusEvent):
            self.status = event.status
            if event.status in ENDED:
                self.open.clear()
            content = {"status": event.status} | _present(reason=event.reason, error=event.error)
            self.entries.append(Entry("session", event.cursor, event.timestamp, content))
        elif isinstance(event, Receipt):
            content = {"commandId": event.command_id, "command": event.command, "outcome": event.outcome}
            self.entries.append(
                Entry("receipt", event.cursor, event.timestamp, content | _present(reason=event.reason))
            )
        else:
            self._add_message(event, event.cursor)

    def _add_message(self, message: Message, cursor: str) -> None:
        content: Any = message.content
        kind: str = message.type
        if isinstance(content, ToolResult) and content.tool_use_id in self._tools:
            self._tools[content.tool_use_id][0].result = Result(content.output, content.is_error, message.timestamp)
            return
        if isinstance(content, ApprovalResolved) and content.request_id in self.waiting:
            request = self.waiting.pop(content.request_id)
            request.resolved = Resolution(content.decision, content.by, message.timestamp)
            return
        if isinstance(content, Text | Thinking) and isinstance(content.block_id, str):
            self._close(content.block_id)
        elif isinstance(content, ToolCall):
            kind = "tool"
        elif isinstance(content, ApprovalRequest | Question):
            kind = "request"
        entry = Entry(kind, cursor, message.timestamp, content, message.parent_id)
        depth, parent = 1, None
        if message.parent_id in self._tools:
            parent, above, beyond = self._tools[message.parent_id]
            if above >= DEEPEST and beyond is not None:
                parent, above = beyond, above - 1
            depth = above + 1
            if parent.children is None:
                parent.children = []
            parent.children.append(entry)
        else:
            self.entries.append(entry)
        if isinstance(content, ToolCall):
            self._tools[content.tool_use_id] = (entry, depth, parent)
        elif isinstance(content, ApprovalRequest | Question):
            self.waiting[content.request_id] = entry

    def _add_piece(self, message: Any) -> None:
        piece = message.content
        if not isinstance(piece, TextDelta | ThinkingDelta) or piece.block_id in self._closed:
            return
        if piece.abandoned:
            self._close(piece.block_id)
            return
        block = self.open.get(piece.block_id)
        have = len(block.text) if block else 0
        if piece.offset > have or piece.offset + len(piece.text) <= have:
            return  # pieces before it are missing (the whole text follows), or it brings nothing new
        if block is None:
            kind = "text" if isinstance(piece, TextDelta) else "thinking"
            block = self.open[piece.block_id] = OpenBlock(kind, piece.block_id, "", message.parent_id)
        block.text += piece.text[have - piece.offset :]

    def _close(self, block_id: str) -> None:
        self.open.pop(block_id, None)
        self._closed.append(block_id)


def _present(**members: str | None) -> dict[str, str]:
    return {name: value for name, value in members.items() if value is not None}
