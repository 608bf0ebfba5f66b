"""Reads a session's stream forwards, a page at a time: what stands after a cursor. Owns no connection.

What would end a reader becomes part of the page, as it becomes a notice for a follower: the page then begins at the
oldest event kept.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agentrq.client.follow_items import CursorReset, SessionDelivered, SessionGone
from agentrq.client.followed_sessions import FollowedSession
from agentrq.client.redis_requests import Context, Operation
from agentrq.client.subscription import RAW
from agentrq.errors import InvalidOption, SessionNotFound
from agentrq.wire.ids import Cursor
from agentrq.wire.raw_events import RawEvent

MAX_LIMIT: Final = 1000
"""Events of one page."""


class EventPage(msgspec.Struct, frozen=True):
    """Events of one session in order, as the bytes that crossed Redis."""

    events: list[RawEvent]
    cursor: str
    """The place of the last of them; give it as ``after`` to get the page that follows."""
    ended: bool
    """The session has ended, and nothing follows these events."""
    reset: CursorReset | None = None
    """Why the page begins at the oldest event kept and not after the cursor; None where it does not."""


class _PageReader(FollowedSession[RawEvent]):
    """The reader of one page."""

    def allow(self, events: int) -> None:
        """Ask for so many events at most."""
        self._page = min(self._page, events)


def read_events(
    context: Context, session_id: str, after: str | Cursor | None, limit: int, max_bytes: int
) -> Operation[EventPage]:
    """Up to ``limit`` events after a cursor (None: from the oldest kept), and up to about ``max_bytes`` of them.

    Raises `SessionNotFound`, `InvalidOption`, ValueError for a bad cursor.
    """
    if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
        raise InvalidOption("limit", f"Expected 1 to {MAX_LIMIT}, got {limit!r}"[:200])
    reader = _PageReader(context, session_id, after, RAW, deltas=False)
    events: list[RawEvent] = []
    reset: CursorReset | None = None
    size, ended = 0, False
    while reader.behind and len(events) < limit and size < max_bytes:
        reader.allow(limit - len(events))
        answers = yield reader.page()
        for item in reader.from_page(answers):
            if isinstance(item, RawEvent):
                events.append(item)
                size += len(item.json)
            elif isinstance(item, CursorReset):
                reset = item
            elif isinstance(item, SessionGone):
                raise SessionNotFound(session_id)
            else:
                ended = ended or isinstance(item, SessionDelivered)
        if reader.absent_since is not None:
            raise SessionNotFound(session_id)
    return EventPage(events, str(reader.cursor), ended, reset)
