"""Calls to Redis that have to succeed: bounded, and made again until it answers. Knows nothing of what they do."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, Final

import redis

from agentrq.connection import is_outage

CALL_TIMEOUT_S: Final = 10.0
RETRY_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0)
AT_ONCE: Final = 8
"""How many of the calls that sessions make, each for itself, are under way in a worker."""


async def until_answered(call: Callable[[], Any]) -> Any:
    """What ``call()`` answers; it has to bear being repeated. Raises what is no outage."""
    failures = 0
    while True:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await call()
        except (redis.RedisError, OSError) as error:
            if not is_outage(error):
                raise
            await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
            failures += 1


class LimitedRetry:
    """`until_answered`, AT_ONCE calls at once: a burst of starts is not to open a connection for each."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, call: Callable[[], Any]) -> Any:
        """As the function."""
        return await until_answered(functools.partial(self._in_turn, call))

    async def _in_turn(self, call: Callable[[], Any]) -> Any:
        async with self._room:
            return await call()
