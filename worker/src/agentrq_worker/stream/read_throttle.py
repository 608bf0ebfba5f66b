"""Pauses the reading of runners for moments while Redis keeps up, so that output waits in pipes and not in memory.

Owns when a session that is ahead of Redis is paused and when it is read again. A pause is bounded: some agents drop
output when they are not read for seconds. Does not own what waits when Redis does not keep up (buffer.py).
"""

from __future__ import annotations

import asyncio
from typing import Final

from agentrq_worker.stream.buffer_budget import BufferBudget
from agentrq_worker.stream.event_log import EventLog

HOLD_BYTES: Final = 4 << 20
"""Bytes that may wait, for all sessions together, before sessions that are ahead of Redis are paused."""
HOLD_S: Final = 0.2
"""The longest pause; after it no session is paused until Redis has caught up."""


class ReadThrottle:
    """Which sessions' runners are not read for the moment."""

    def __init__(self, shares: BufferBudget) -> None:
        self._shares = shares
        self._held: set[EventLog] = set()
        self._keeps_up = True
        self._bound: asyncio.TimerHandle | None = None

    def hold_if_behind(self, event_log: EventLog) -> None:
        """One read of a session was added: pause its runner if more waits than needs to."""
        if self._shares.memory > HOLD_BYTES and self._keeps_up and len(event_log.waiting) > 1:
            if self._bound is None:
                self._bound = asyncio.get_running_loop().call_later(HOLD_S, self._give_up)
            self._held.add(event_log)
            event_log.on_full(True)

    def resume_when_written(self) -> None:
        """Events were written: read the paused runners again once few enough wait."""
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
        for event_log in held:
            if not event_log.waiting.full:
                event_log.on_full(False)
