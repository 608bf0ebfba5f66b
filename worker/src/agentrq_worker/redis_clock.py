"""Redis's clock, as one worker reads it: the only wall clock that workers compare times by.

Owns the offset to this process's monotonic clock, so that a step of the machine's own clock changes nothing. Does not
own when it is synchronized (ownership/ownership.py).
"""

from __future__ import annotations

import time
from typing import Final

import redis.asyncio

SLOW_ANSWER_MS: Final = 500
"""An answer that took longer is used only where there was none before: half of that time is the error."""


class RedisClock:
    """Milliseconds since the epoch by Redis's clock; by the machine's own until it is synchronized."""

    def __init__(self) -> None:
        self._offset_ms = time.time_ns() // 1_000_000 - time.monotonic_ns() // 1_000_000
        self._synchronized = False

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.monotonic_ns() // 1_000_000 + self._offset_ms

    @property
    def machine_ahead_ms(self) -> int:
        """By how many milliseconds the machine's own clock is ahead of Redis's now."""
        return time.time_ns() // 1_000_000 - self.now_ms()

    async def synchronize(self, client: redis.asyncio.Redis) -> None:
        """Read Redis's TIME. Raises `redis.RedisError`, OSError."""
        began = time.monotonic_ns() // 1_000_000
        seconds, microseconds = await client.time()
        answered = time.monotonic_ns() // 1_000_000
        if answered - began <= SLOW_ANSWER_MS or not self._synchronized:
            self._offset_ms = seconds * 1000 + microseconds // 1000 - (began + answered) // 2
            self._synchronized = True
