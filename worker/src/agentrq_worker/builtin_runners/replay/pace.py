"""When each line of a recording is due, by the timestamps some of its objects carry. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

GAP_S = 0.05
"""Seconds before a line that has no timestamp."""


def due_times(objects: Iterable[dict[str, Any] | None]) -> list[float]:
    """Seconds from the start at which each line is due, never falling.

    A line with a ``timestamp`` (ms since the epoch, or ISO 8601) is due as long after the latest such line as
    it was recorded; lines without come `GAP_S` after their neighbour.
    """
    dues: list[float] = []
    due = 0.0
    latest: tuple[float, float] | None = None
    for at, found in enumerate(objects):
        stamp = _seconds(found.get("timestamp")) if found else None
        if stamp is None or latest is None:
            due += GAP_S if at else 0.0
        else:
            due = max(due, latest[1] + stamp - latest[0])
        if stamp is not None:
            latest = (stamp, due)
        dues.append(due)
    return dues


def _seconds(stamp: Any) -> float | None:
    if isinstance(stamp, str):
        try:
            return datetime.fromisoformat(stamp).timestamp()
        except (ValueError, OverflowError):
            return None
    # Beyond the year 5000 it is not a time in ms.
    return stamp / 1000 if isinstance(stamp, int | float) and 0 < stamp < 1e14 else None
