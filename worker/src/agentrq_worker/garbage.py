"""When a worker looks for cyclic garbage: not in the middle of what its sessions say.

Owns the thresholds of Python's collector. A full collection looks at every object of every session, a tenth of a second
with 600 of them, and Python's own rule has one every few seconds, because written events are kept for a while. Ended
sessions are what leaves cycles behind, so they decide.
"""

from __future__ import annotations

import gc
from typing import Final

ENDED_SESSIONS: Final = 200
"""After so many ended sessions there is a full collection."""
LONGEST_S: Final = 600.0
"""So long after the last one, there is one in any case."""
_THRESHOLDS: Final = (5000, 20, 1_000_000_000)


class GarbageCollection:
    """The collector of this process. Times are monotonic, in seconds."""

    def __init__(self, now: float) -> None:
        """The program is loaded: what there is by now stays and is not looked at again."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_THRESHOLDS)
        self._ended = 0
        self._last = now

    def session_ended(self) -> None:
        """One more session has ended here."""
        self._ended += 1

    def collect_if_due(self, now: float) -> bool:
        """Collect if enough has happened; True if so."""
        if self._ended < ENDED_SESSIONS and now - self._last < LONGEST_S:
            return False
        gc.collect()
        self._ended, self._last = 0, now
        return True
