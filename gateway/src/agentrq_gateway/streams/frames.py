"""Frames of server-sent events (WHATWG HTML, section 9.2). Pure: events in, bytes out. Owns their names and members.

Only an event of a session carries an ``id:``, its cursor: whatever else an `EventSource` is sent, it comes back to the
place of the last event.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from agentrq.wire.codec import encode
from agentrq.wire.raw_events import RawEvent

HEARTBEAT: Final = b":\n\n"
RETRY_MS: Final = 1000
MAX_ID: Final = 4096
"""Bytes of the longest ``id:``; beyond it the client has to name its cursors itself."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One event as a frame. ``data`` has its id; from ``body_at`` on it has not. ``cursor``: None for a delta."""

    cursor: str | None
    data: bytes
    body_at: int

    @property
    def body(self) -> bytes:
        """The frame without its id."""
        return self.data[self.body_at :]


def event_frame(event: RawEvent) -> Frame:
    """The frame of an event: its JSON, named by its kind, with its cursor as the id."""
    json = event.json
    if b"\n" in json or b"\r" in json:  # blanks between members: in JSON's strings both are escaped
        json = json.replace(b"\r", b" ").replace(b"\n", b" ")
    body = b"event: %s\ndata: %s\n\n" % (event.kind.encode(), json)
    if event.cursor is None:
        return Frame(None, body, 0)
    id_line = b"id: %s\n" % event.cursor.encode()
    return Frame(event.cursor, id_line + body, len(id_line))


def named_frame(name: str, **members: Any) -> bytes:
    """A frame without an id; members that are None are left out."""
    told = {member: value for member, value in members.items() if value is not None}
    return b"event: %s\ndata: %s\n\n" % (name.encode(), encode(told))


def reset_frame(session_id: str, reason: str, oldest: str | None = None) -> bytes:
    """The session does not go on after the client's cursor: forget what you have of it."""
    return named_frame("reset", sessionId=session_id, reason=reason, oldest=oldest)


def end_frame(session_id: str) -> bytes:
    """The session has ended, and all of it was delivered."""
    return named_frame("end", sessionId=session_id)


def retry_frame(milliseconds: int) -> bytes:
    """When the client is to come back after this connection."""
    return b"retry: %d\n\n" % milliseconds


EXPIRED: Final = named_frame("expired")
"""The caller's token has expired."""


def cursors_id(cursors: dict[str, str]) -> bytes:
    """The ``id:`` line of a stream of several sessions; empty where it would be too long."""
    text = ",".join(f"{session_id}={cursor}" for session_id, cursor in cursors.items())
    return b"id: %s\n" % text.encode() if len(text) <= MAX_ID else b""
