"""Redis's time on this machine: workers whose clocks differ must agree on what has expired in RQ's registries."""

from __future__ import annotations

import time

import redis


class RedisClock:
    """Redis's time, carried on by the monotonic clock between two readings."""

    def __init__(self) -> None:
        self._offset: float | None = None

    def read(self, connection: redis.Redis) -> None:
        """Ask Redis for its time."""
        before = time.monotonic()
        self.set(connection.time(), before)

    def set(self, answer: tuple[int, int], asked_at: float) -> None:
        """Take the answer to TIME (seconds, microseconds), asked for at ``asked_at`` (monotonic)."""
        self._offset = answer[0] + answer[1] / 1e6 - asked_at

    def now(self) -> float:
        """Seconds since the epoch, by Redis's clock. Needs one reading."""
        assert self._offset is not None, "Redis was never asked for its time"
        return self._offset + time.monotonic()
