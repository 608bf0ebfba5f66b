"""How long a reader bears with an outage of Redis, and how bounded waits end. Pure, no IO. Shared by both clients."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final

import redis

from agentrq.client.pubsub_hub import BACKOFF_S
from agentrq.client.subscription import Reader
from agentrq.connection import is_outage
from agentrq.errors import AgentRQError

OUTAGE_S: Final = 600.0
"""How long a reader that has begun tries to reach Redis again before it raises, in seconds."""


class OutagePatience:
    """One reader's outages. Before Redis first answered it has no patience: the address may be wrong."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._began = False
        self._failures = 0
        self._since: float | None = None

    def over(self, *, subscribed: bool = True) -> None:
        """Redis answered. If it gives no ``subscribed`` connection yet, it is asked for one less and less often."""
        self._began, self._since = True, None
        if subscribed:
            self._failures = 0

    def delay(self, error: Exception, deadline: float | None = None) -> float | None:
        """The seconds to wait before the next try; None where there is no other."""
        if isinstance(error, redis.TimeoutError) and self._reader.shrink():
            return 0.0
        now = time.monotonic()
        self._since = self._since or now
        if not self._began or not is_outage(error) or now - self._since > OUTAGE_S or (deadline and now >= deadline):
            return None
        self._failures += 1
        return BACKOFF_S[min(self._failures, len(BACKOFF_S)) - 1]


@contextlib.contextmanager
def bounded(what: str, timeout: float | None) -> Iterator[float | None]:
    """Gives the moment (monotonic) at which ``timeout`` seconds are over, None for never.

    What fails after it for want of time, or because Redis is away, raises TimeoutError.
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
    """The error of a caller whose time is over."""
    return TimeoutError(f"{what} took longer than {timeout} s")
