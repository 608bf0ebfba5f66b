"""What a follower of many sessions is given, and what it tells beside their events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec

from agentrq.errors import AgentRQError
from agentrq.wire.ids import Cursor

Cursors: TypeAlias = Mapping[str, str | Cursor | None]
"""Session id → the cursor of the last event that the caller has (None: none)."""


class SessionDelivered(msgspec.Struct, frozen=True):
    """The session has ended and every event of it was delivered. It is no longer followed."""


class SessionGone(msgspec.Struct, frozen=True):
    """There is no such session: it never was, was removed, or its retention is over. It is no longer followed."""


class CursorReset(msgspec.Struct, frozen=True):
    """Events after the session's cursor cannot be told; it is followed on from the oldest event kept.

    ``reason``: ``trimmed``, events after the cursor are no longer kept; ``unknown_cursor``, the session has not come
    so far. ``oldest``: the cursor of the event that comes next; None where none is kept.
    """

    reason: Literal["trimmed", "unknown_cursor"]
    oldest: str | None


class SessionUnreadable(msgspec.Struct, frozen=True):
    """Redis refuses this session alone, as for want of permission; ``error`` says why. It is no longer followed."""

    error: AgentRQError


Notice: TypeAlias = SessionDelivered | SessionGone | CursorReset | SessionUnreadable
"""What stands in an event's place."""

LAST = (SessionDelivered, SessionGone, SessionUnreadable)
"""Notices after which a session is no longer followed."""
