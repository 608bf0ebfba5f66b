"""How long a reader retries during an outage of Redis, and how bounded waits end. No IO; shared by both clients."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

import redis

from agentrq.client.pubsub_hub import BACKOFF_S
from agentrq.connection import is_outage
from agentrq.errors import AgentRQError

OUTAGE_S: Final = 600.0
"""Seconds that a reader retries an unreachable Redis before it raises, once Redis has answered it."""


class OutagePatience:
    """Retry delays of one reader. No retry before Redis has answered once: the address may be wrong."""

    def __init__(self, shrink: Callable[[], bool]) -> None:
        """``shrink``: asks for less at once, as an answer did not come in time; False where that is not possible."""
        self._shrink = shrink
        self._began = False
        self._failures = 0
        self._since: float | None = None

    def over(self, *, subscribed: bool = True) -> None:
        """Record that Redis answered. Without a ``subscribed`` connection the next delays go on growing."""
        self._began, self._since = True, None
        if subscribed:
            self._failures = 0

    def delay(self, error: Exception, deadline: float | None = None) -> float | None:
        """Seconds to wait before the next try; None if the reader must give up."""
        if isinstance(error, redis.TimeoutError) and self._shrink():
            return 0.0
        now = time.monotonic()
        self._since = self._since or now
        if not self._began or not is_outage(error) or now - self._since > OUTAGE_S or (deadline and now >= deadline):
            return None
        self._failures += 1
        return BACKOFF_S[min(self._failures, len(BACKOFF_S)) - 1]


@contextlib.contextmanager
def bounded(what: str, timeout: float | None) -> Iterator[float | None]:
    """Yields the deadline (monotonic) of ``timeout`` seconds from now; None means no limit.

    A time-out, or an outage of Redis, after the deadline raises TimeoutError.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        yield deadline
    except (TimeoutError, AgentRQError) as error:
        if deadline is None or time.monotonic() < deadline or not is_outage(error.__cause__ or error):
            raise
        raise timed_out(what, timeout) from error


def closed() -> AgentRQError:
    """The error of a reader whose client was closed."""
    return AgentRQError("The client was closed")


def timed_out(what: str, timeout: float | None) -> TimeoutError:
    """The error of a call that took longer than its ``timeout``."""
    return TimeoutError(f"{what} took longer than {timeout} s")
