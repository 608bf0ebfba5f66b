"""While Redis keeps up, runners wait for it in their pipes, a moment at a time, and not in the worker's memory.

Owns when a session that is ahead of Redis is read no more and when it is again. A pause is bounded: some agents drop
output when they are not read for seconds. What waits when Redis does not keep up is stream/buffer.py's.
"""

from __future__ import annotations

import asyncio
from typing import Final

from agentrq_worker.stream.buffer_budget import BufferBudget
from agentrq_worker.stream.event_log import EventLog

HOLD_BYTES: Final = 4 << 20
"""What may wait, for all sessions together, before those that are ahead are held back."""
HOLD_S: Final = 0.2
"""The longest pause; after it nobody is held back until Redis has caught up."""


class ReadThrottle:
    """Which lanes' runners are not read for the moment."""

    def __init__(self, shares: BufferBudget) -> None:
        self._shares = shares
        self._held: set[EventLog] = set()
        self._keeps_up = True
        self._bound: asyncio.TimerHandle | None = None

    def hold_if_behind(self, lane: EventLog) -> None:
        """A lane has taken in a read: hold its runner back if more waits than has to."""
        if self._shares.memory > HOLD_BYTES and self._keeps_up and len(lane.waiting) > 1:
            if self._bound is None:
                self._bound = asyncio.get_running_loop().call_later(HOLD_S, self._give_up)
            self._held.add(lane)
            lane.on_full(True)

    def resume_when_written(self) -> None:
        """Something was written: let the runners go on once enough is."""
        if self._shares.memory <= HOLD_BYTES // 2:
            self._keeps_up = True
            self._resume_all()

    def _give_up(self) -> None:
        self._keeps_up = False
        self._resume_all()

    def _resume_all(self) -> None:
        if self._bound is not None:
            self._bound.cancel()
            self._bound = None
        held, self._held = self._held, set()
        for lane in held:
            if not lane.waiting.full:
                lane.on_full(False)
