"""Watches the stdout of all runners of one worker, and reads many of them in one turn when much comes.

Owns when pipes are looked at. Does not own reading them (pipes.py), nor lines. A line costs a worker and Redis several
times as much if it comes alone as among others: the loop's turn, the call of a script and its answer are the same.

The controller: up to `FREE_RATE` reads a second, every pipe is read as soon as it is ready. Beyond, the loop looks at
all pipes together, at an interval that grows by `INTERVAL_STEP_S` for each further read a second, to
`LONGEST_INTERVAL_S`, and is no longer than `ENOUGH_READS` take to come. After full pipes it looks again at once.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final, Protocol

FREE_RATE: Final = 2000.0
INTERVAL_STEP_S: Final = 1e-5
LONGEST_INTERVAL_S: Final = 0.01
ENOUGH_READS: Final = 32
"""In one turn; with more together a read costs hardly less, and waits longer."""
SHORTEST_INTERVAL_S: Final = 0.001
"""Shorter intervals are none: the loop's timers are no finer."""
RATE_OVER_S: Final = 0.1
"""The rate is an average over about this time."""
MOST_AT_ONCE: Final = 256
"""Pipes read in one turn of the loop; others are not kept waiting for more."""


class Watcher(Protocol):
    """What tells that a file descriptor can be read: an event loop, or an `OutputPoller`."""

    def add_reader(self, fd: int, callback: Callable[[], object], /) -> object:
        """Call ``callback`` whenever there is something to read."""

    def remove_reader(self, fd: int, /) -> object:
        """Do not any more."""


class OutputPoller:
    """The pipes of one event loop. A callback returns True if it left something behind."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._epoll = select.epoll()
        self._timer: asyncio.TimerHandle | None = None
        """The next look; None while the loop watches for all pipes."""
        self._rate = 0.0
        """Reads a second."""
        self._looked = loop.time()
        loop.add_reader(self._epoll.fileno(), self._look)

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        """Call ``callback`` when there is something to read, soon."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def remove_reader(self, fd: int) -> bool:
        """Do not any more; False if that was so. To be called before ``fd`` is closed."""
        if self._callbacks.pop(fd, None) is None:
            return False
        self._epoll.unregister(fd)
        return True

    def close(self) -> None:
        """Watch nothing any more."""
        if self._timer is None:
            self._loop.remove_reader(self._epoll.fileno())
        else:
            self._timer.cancel()
        self._epoll.close()

    def _look(self) -> None:
        """Read all pipes that are ready, and decide when to look again."""
        ready = self._epoll.poll(0, MOST_AT_ONCE)
        began = self._loop.time()
        more = len(ready) == MOST_AT_ONCE
        for fd, _ in ready:
            callback = self._callbacks.get(fd)
            if callback is None:  # a callback before it has ended this one
                continue
            try:
                more = callback() is True or more
            except Exception as error:  # noqa: BLE001  # as the loop does it: the other pipes are read all the same
                self._loop.call_exception_handler({"message": "reading a runner failed", "exception": error})
        interval = 0.0 if more else self._interval(began, len(ready))
        self._watch_after(began + interval if interval >= SHORTEST_INTERVAL_S else None)

    def _interval(self, now: float, reads: int) -> float:
        """How long after ``now`` the next look is, after this one brought so many reads."""
        passed, self._looked = max(now - self._looked, 1e-6), now
        self._rate += (reads / passed - self._rate) * min(1.0, passed / RATE_OVER_S)
        if self._rate <= FREE_RATE:
            return 0.0
        return min(LONGEST_INTERVAL_S, INTERVAL_STEP_S * (self._rate - FREE_RATE), ENOUGH_READS / self._rate)

    def _watch_after(self, moment: float | None) -> None:
        """Look at this moment; None: as soon as a pipe is ready."""
        if moment is None:
            if self._timer is not None:
                self._timer = None
                self._loop.add_reader(self._epoll.fileno(), self._look)
            return
        if self._timer is None:
            self._loop.remove_reader(self._epoll.fileno())
        self._timer = self._loop.call_at(moment, self._look)
