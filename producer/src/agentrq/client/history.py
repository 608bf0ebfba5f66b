"""Reads a session's stream backwards, a page at a time: what stands before a cursor. Owns no connection."""

from __future__ import annotations

from typing import Final

from agentrq.client.redis_requests import Batch, Context, Operation
from agentrq.client.subscription import DECODED, PAGE_STATE, Reader
from agentrq.errors import InvalidOption
from agentrq.wire.events import Event
from agentrq.wire.ids import Cursor, check_session_id

MAX_LIMIT: Final = 1000
"""Events of one page."""


def history(context: Context, session_id: str, before: str | Cursor | None, limit: int) -> Operation[list[Event]]:
    """The last ``limit`` events before a cursor (None: of all), in order.

    Raises `SessionNotFound`, `InvalidOption`, ValueError for a bad cursor.
    """
    check_session_id(session_id)
    if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
        raise InvalidOption("limit", f"Expected 1 to {MAX_LIMIT}, got {limit!r}"[:200])
    end = "+" if before is None else f"({before if isinstance(before, Cursor) else Cursor.parse(before)}"
    entries, state = yield Batch(
        [
            ("XREVRANGE", context.keys.events(session_id), end, "-", "COUNT", limit),
            ("HMGET", context.keys.state(session_id), *PAGE_STATE),
        ],
        atomic=True,
    )
    return Reader(context.keys, session_id, None, DECODED).from_stream((entries[::-1], state))
