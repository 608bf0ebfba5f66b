"""A time limit for one wait after another, which costs next to nothing for waits that end in time.

Setting and cancelling a timer for each wait would cost more than all other work on a single event. So one timer keeps
running from wait to wait, and checks the current wait when it is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class ReusableTimeout:
    """Calls ``on_timeout`` when a wait takes too long. Belongs to one event loop."""

    __slots__ = ("_due", "_on_timeout", "_timer", "_until")

    def __init__(self, on_timeout: Callable[[], None]) -> None:
        self._on_timeout = on_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        """When the timer is due. (uvloop's has no `when` if that is less than half a millisecond away.)"""
        self._until: float | None = None
        """When the current wait times out; None while nothing waits."""

    def start(self, timeout: float) -> None:
        """Begin a wait of at most ``timeout`` seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        if self._due > until:
            self.close()
        self._until = until
        if self._timer is None:
            self._schedule(until, loop)

    def stop(self) -> None:
        """The wait is over."""
        self._until = None

    def close(self) -> None:
        """Cancel the timer: there are no more waits."""
        self._until = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, due: float, loop: asyncio.AbstractEventLoop) -> None:
        self._due = due
        self._timer = loop.call_at(due, self._check, loop)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._until is None:
            return  # the next wait sets it anew
        if self._until > loop.time():
            self._schedule(self._until, loop)
        else:
            self._until = None
            self._on_timeout()
