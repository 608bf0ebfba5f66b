"""The worker's one policy for calls to Redis that must succeed: bounded in time, repeated until Redis answers.

Owns the delays and which errors are waited out (`agentrq.connection.is_outage`). Does not own what a call does.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import redis

from agentrq.connection import is_outage

T = TypeVar("T")

CALL_TIMEOUT_S: Final = 10.0
DELAYS_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Pauses before the first, second, … repetition; the last one from then on."""
CONCURRENT_CALLS: Final = 8
"""How many calls of single sessions one worker has under way."""


def retry_delay(failures: int) -> float:
    """Seconds to wait after so many failures in a row, the first being 1."""
    return DELAYS_S[min(max(failures, 1), len(DELAYS_S)) - 1]


async def retry_outages(
    call: Callable[[], Awaitable[T]],
    *,
    timeout_s: float | None = CALL_TIMEOUT_S,
    on_outage: Callable[[Exception], None] = lambda _: None,
) -> T:
    """The answer of ``call()``, which must bear repetition; ``on_outage`` is told each outage before the pause.

    ``timeout_s`` bounds one attempt (None: the call bounds itself). Raises every error that is not an outage.
    """
    failures = 0
    while True:
        try:
            async with asyncio.timeout(timeout_s):
                return await call()
        except (redis.RedisError, OSError) as error:
            if not is_outage(error):
                raise
            on_outage(error)
            failures += 1
            await asyncio.sleep(retry_delay(failures))


class LimitedRetry:
    """`retry_outages` for calls of single sessions: a burst of starts must not open a connection for each."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(CONCURRENT_CALLS)

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        """As the function."""
        return await retry_outages(functools.partial(self._call_in_slot, call))

    async def _call_in_slot(self, call: Callable[[], Awaitable[T]]) -> T:
        async with self._slots:
            return await call()
