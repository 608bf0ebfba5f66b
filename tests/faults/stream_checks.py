"""Checks of what a session's stream must hold whatever happened: its cursors and its moves of status."""

from __future__ import annotations

import itertools
from typing import Any

from agentrq import StatusEvent
from agentrq.wire.ids import Cursor
from agentrq.wire.status import MOVES, Status


def check_stream(raw: Any, session_id: str) -> list[Any]:
    """Every cursor follows the one before it; answers the entries."""
    entries: list[Any] = raw.xrange(f"agentrq:{{{session_id}}}:events")
    cursors = [Cursor.parse(place) for place, _ in entries]
    for before, after in itertools.pairwise(cursors):
        assert after in {(before.epoch, before.seq + 1), (before.epoch + 1, 1)}, (before, after)
    return entries


def check_moves(events: list[Any]) -> None:
    """Every status move is in the table."""
    statuses = [Status(event.status) for event in events if isinstance(event, StatusEvent)]
    for before, after in itertools.pairwise(statuses):
        assert after in MOVES[before], (before, after)
