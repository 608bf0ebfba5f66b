"""What both clients share: how receipts are taken, and how long a reader bears with an outage. Pure, no IO."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final

import redis

from agentrq.client.pubsub_hub import BACKOFF_S
from agentrq.client.subscription import Reader
from agentrq.connection import is_outage
from agentrq.errors import AgentRQError, CommandRejected
from agentrq.wire.messages import Receipt

OUTAGE_S: Final = 600.0
"""How long a reader that has begun tries to reach Redis again before it raises, in seconds."""


REMOVE_AGAIN_S: Final = 0.05
"""The first pause before a session that was stopped is removed again; each further one is twice as long."""


class OutagePatience:
    """One reader's outages. Before its first answer it raises at once: then the address may be wrong."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._began = False
        self._failures = 0
        self._since: float | None = None

    def over(self, *, heard: bool = True) -> None:
        """Redis answered; ``heard``: hints can be had too, else it is asked less and less often for them."""
        self._began, self._since = True, None
        if heard:
            self._failures = 0

    def wait(self, error: Exception, deadline: float | None = None) -> float:
        """The seconds to wait before the next try; raises the error where there is none."""
        if isinstance(error, redis.TimeoutError) and self._reader.shrink():
            return 0.0
        now = time.monotonic()
        self._since = self._since or now
        if not self._began or not is_outage(error) or now - self._since > OUTAGE_S or (deadline and now >= deadline):
            raise error
        self._failures += 1
        return BACKOFF_S[min(self._failures, len(BACKOFF_S)) - 1]


@contextlib.contextmanager
def bounded(what: str, timeout: float | None) -> Iterator[float | None]:
    """Gives the moment (monotonic) at which ``timeout`` seconds are over, None for never.

    What fails after it for want of time, or because Redis is away, raises `TimeoutError`.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        yield deadline
    except Exception as error:
        if deadline is None or time.monotonic() < deadline or not is_outage(error):
            raise
        raise timed_out(what, timeout) from error


def closed() -> AgentRQError:
    """What a reader gets whose client was closed."""
    return AgentRQError("The client was closed")


def applied(receipt: Receipt) -> Receipt:
    """The receipt, if its command was applied. Raises `CommandRejected` otherwise."""
    if receipt.outcome != "applied":
        raise CommandRejected(receipt.session_id, receipt.command_id, receipt.outcome, receipt.reason)
    return receipt


def timed_out(what: str, timeout: float | None) -> TimeoutError:
    """What a caller gets whose time is over."""
    return TimeoutError(f"{what} took longer than {timeout} s")
