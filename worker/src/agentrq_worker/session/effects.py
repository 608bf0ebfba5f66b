"""What the session machine wants done: one class an effect, and the collector of one input's effects.

Owns the shapes, and which state fields go along with which event. Performs nothing (session/shell.py does).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from agentrq.wire.status import Reason, Status
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.session_types import InboxCommand


class _Effect(msgspec.Struct, gc=False):
    """What all effects share. (Structs: a NamedTuple takes four times as long to make.)"""


class PublishMessages(_Effect):
    """Messages that change nothing in the state: nearly all that an agent says."""

    drafts: list[DraftMessage]


class PublishMessage(_Effect):
    """One message with the state fields that change with it, and what the feed is told with it.

    ``atomic_with_next``: never without the next.
    """

    draft: DraftMessage
    fields: dict[str, Any]
    feed: list[bytes]
    atomic_with_next: bool = False


class PublishStatus(_Effect):
    """A status that is not an end."""

    status: Status
    fields: dict[str, Any]
    feed: list[bytes]


class PublishReceipt(_Effect):
    """What became of a command; it leaves the inbox with this."""

    command_id: str
    command: str
    outcome: str
    reason: str | None
    entry: bytes
    fields: dict[str, Any]


class PublishEnd(_Effect):
    """The session's last event."""

    status: Status
    reason: Reason
    error: str | None
    fields: dict[str, Any]
    feed: list[bytes]


class WriteStdin(_Effect):
    """Bytes for the runner, now."""

    data: bytes


class WriteStdinAfterCommit(_Effect):
    """Bytes for the runner once all that was published before is in Redis: a worker that dies doubles nothing."""

    data: bytes


class EndRunner(_Effect):
    """End the runner and its tree. ``farewell``: what asks it to end; its stdin is closed after it."""

    farewell: bytes


class SaveCheckpoint(_Effect):
    """A turn is over: make a checkpoint of the workspace."""

    turn: int


class SetTimer(_Effect):
    """Tell `TimerFired` at this time, and at no other; None: at none. In seconds of the clock that ``now`` has."""

    at: float | None


class WriteLog(_Effect):
    """A line for the worker's log."""

    text: str


Effect: TypeAlias = (
    PublishMessages
    | PublishMessage
    | PublishStatus
    | PublishReceipt
    | PublishEnd
    | WriteStdin
    | WriteStdinAfterCommit
    | EndRunner
    | SaveCheckpoint
    | SetTimer
    | WriteLog
)


class Output:
    """The effects of one input, in order. A state field that was set goes along with the next event."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []
        self._state: dict[str, Any] = {}
        """The fields as they have been published."""
        self._changed: dict[str, Any] = {}
        self._told: list[bytes] = []

    def set_field(self, name: str, value: Any) -> None:
        """The state is to hold this from the next event on."""
        if name in self._state and self._state[name] == value:
            self._changed.pop(name, None)
        else:
            self._changed[name] = value

    def _fields(self) -> dict[str, Any]:
        changed, self._changed = self._changed, {}
        self._state |= changed
        return changed

    def tell_feed(self, members: bytes) -> None:
        """The feed is to be told this with the next message or status (see `agentrq.wire.feed.feed_members`)."""
        self._told.append(members)

    def _feed(self) -> list[bytes]:
        told, self._told = self._told, []
        return told

    def messages(self, drafts: list[DraftMessage]) -> None:
        """Publish messages that come with no field."""
        self._effects.append(PublishMessages(drafts))

    def message(self, draft: DraftMessage, *, atomic_with_next: bool = False) -> None:
        """Publish a message."""
        self._effects.append(PublishMessage(draft, self._fields(), self._feed(), atomic_with_next))

    def status(self, status: Status) -> None:
        """Publish a status."""
        self._effects.append(PublishStatus(status, self._fields(), self._feed()))

    def receipt(self, waiting: InboxCommand, outcome: str, reason: str | None = None) -> None:
        """Publish what became of a command."""
        self.entry_receipt(waiting.entry, waiting.command.command_id, waiting.command.command, outcome, reason)

    def entry_receipt(self, entry: bytes, command_id: str, command: str, outcome: str, reason: str | None) -> None:
        """Publish what became of an inbox entry."""
        self._effects.append(PublishReceipt(command_id, command, outcome, reason, entry, self._fields()))

    def end(self, status: Status, reason: Reason, error: str | None) -> None:
        """Publish the session's end."""
        self._effects.append(PublishEnd(status, reason, error, self._fields(), self._feed()))

    def write(self, data: bytes) -> None:
        """Write to the runner now."""
        if data:
            self._effects.append(WriteStdin(data))

    def write_after_commit(self, data: bytes) -> None:
        """Write to the runner once Redis holds what was published."""
        if data:
            self._effects.append(WriteStdinAfterCommit(data))

    def add(self, effect: EndRunner | SaveCheckpoint | SetTimer | WriteLog) -> None:
        """Add an effect that has no method of its own."""
        self._effects.append(effect)

    def take(self) -> list[Effect]:
        """The effects since the last call."""
        effects, self._effects = self._effects, []
        return effects
