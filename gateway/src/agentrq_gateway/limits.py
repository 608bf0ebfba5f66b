"""How much one caller, and all of them together, may do in this process. Owns the counts; forgets who is quiet."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from agentrq_gateway.errors import too_many
from agentrq_gateway.settings import Settings

MINUTE_S: Final = 60.0
STREAM_RETRY_S: Final = 5.0
MOST_CALLERS: Final = 10_000
"""Past so many callers those whose minute is over are forgotten."""


class Limits:
    """Streams open now, and commands of the last minute. One event loop uses it."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._streams: Counter[str] = Counter()
        self._allowances: dict[str, tuple[float, float]] = {}
        """Caller → commands that it may still send, as of when."""

    @property
    def open_streams(self) -> int:
        """Streams of all callers."""
        return self._streams.total()

    @contextmanager
    def stream(self, caller: str) -> Iterator[None]:
        """Count a stream for as long as the context lasts. Raises `ApiError` 429."""
        if self._streams.total() >= self._settings.max_streams:
            raise too_many("too_many_streams", "This gateway has as many streams open as it may", STREAM_RETRY_S)
        if self._streams[caller] >= self._settings.max_streams_per_caller:
            most = self._settings.max_streams_per_caller
            raise too_many("too_many_streams", f"You have {most} streams open, close one first", STREAM_RETRY_S)
        self._streams[caller] += 1
        try:
            yield
        finally:
            self._streams[caller] -= 1
            if not self._streams[caller]:
                del self._streams[caller]

    def count_command(self, caller: str) -> None:
        """Count a command. Raises `ApiError` 429 with the time after which the next is taken."""
        most, now = self._settings.commands_per_minute, self._clock()
        left, then = self._allowances.get(caller, (float(most), now))
        left = min(float(most), left + (now - then) * most / MINUTE_S)
        if left < 1:
            self._allowances[caller] = (left, now)
            said = f"You may send {most} commands a minute"
            raise too_many("too_many_commands", said, (1 - left) * MINUTE_S / most)
        self._allowances[caller] = (left - 1, now)
        if len(self._allowances) > MOST_CALLERS:
            self._forget_quiet(now)

    def _forget_quiet(self, now: float) -> None:
        for caller in [name for name, (_, then) in self._allowances.items() if now - then >= MINUTE_S]:
            del self._allowances[caller]
