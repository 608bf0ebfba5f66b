"""A bound for one wait after another, at next to no cost for those that end in time.

To set and cancel a timer for each wait costs a lone event more than all else that its hint does; here one timer is
left running from wait to wait, and looked at when it is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class ReusableTimeout:
    """Calls ``ring`` when a wait takes too long. Of one event loop."""

    __slots__ = ("_due", "_ring", "_timer", "_until")

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        """When the timer is looked at. (uvloop's has no `when` if that is less than half a millisecond away.)"""
        self._until: float | None = None
        """When the wait under way has taken too long; None while there is none."""

    def set(self, timeout: float) -> None:
        """A wait begins, of ``timeout`` seconds at most."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        if self._due > until:
            self.close()
        self._until = until
        if self._timer is None:
            self._start(until, loop)

    def unset(self) -> None:
        """The wait is over."""
        self._until = None

    def close(self) -> None:
        """Nobody waits any more: the timer ends too."""
        self._until = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, due: float, loop: asyncio.AbstractEventLoop) -> None:
        self._due = due
        self._timer = loop.call_at(due, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._until is None:
            return  # the next wait sets it anew
        if self._until > loop.time():
            self._start(self._until, loop)
        else:
            self._until = None
            self._ring()
