"""What a reading process counts of a round: messages, the time from the first to the last, delays. Says it as JSON.

A round ends when every session has ended its turn. Payloads of paced runs begin with the time they were written at.
"""

from __future__ import annotations

import json
import time

COUNTED = frozenset({"text", "text_delta", "tool_call", "tool_result"})


class Tally:
    """One round after the other."""

    def __init__(self, sessions: int, timed: bool) -> None:
        self.timed = timed
        self._sessions = sessions
        self._begin()

    def _begin(self) -> None:
        self._count = self._over = 0
        self._first = self._last = 0.0
        self._delays: list[int] = []

    def count(self, text: str) -> None:
        """A message of the runner came; its text only matters in timed rounds."""
        self._last = time.monotonic()
        if not self._count:
            self._first = self._last
        self._count += 1
        if self.timed:
            self._delays.append(time.monotonic_ns() - int(text.partition(" ")[0]))

    def turn_over(self) -> None:
        """A session's turn ended; after the last one the round is said on stdout."""
        self._over += 1
        if self._over < self._sessions:
            return
        delays = sorted(self._delays)
        round_ = {
            "count": self._count,
            "seconds": time.monotonic() - self._first,
            "p50": delays[len(delays) // 2] / 1e9 if delays else 0,
            "p99": delays[len(delays) * 99 // 100] / 1e9 if delays else 0,
        }
        print(json.dumps(round_), flush=True)
        self._begin()
