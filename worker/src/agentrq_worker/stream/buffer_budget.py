"""The memory and disk that all sessions of one worker share while their events wait for Redis.

Owns the counts and who has to pause. Does not own the entries (buffer.py) nor the files (spool_file.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


class BufferBudget:
    """What the sessions of one worker may hold together, in bytes, and which of them are paused for it."""

    def __init__(self, memory: int, disk: int, directory: Path) -> None:
        self.directory = directory
        self.memory = 0
        """Bytes that wait in memory."""
        self.most_memory = memory
        self._most_disk = disk
        self._disk = 0
        self._paused: set[Callable[[bool], None]] = set()

    @property
    def disk(self) -> int:
        """Bytes of the files."""
        return self._disk

    def is_full(self) -> bool:
        """True when memory's share is used up."""
        return self.memory >= self.most_memory

    def room(self) -> int:
        """Bytes that may still be written to disk."""
        return self._most_disk - self._disk

    def use(self, change: int) -> None:
        """Count bytes of memory that are taken, or given back (negative)."""
        self.memory += change
        if self._paused:
            self._resume()

    def use_disk(self, change: int) -> None:
        """Count bytes of a file that grew, or was dropped (negative)."""
        self._disk += change
        if self._paused:
            self._resume()

    def pause(self, on_full: Callable[[bool], None]) -> None:
        """Call ``on_full(True)`` now and ``on_full(False)`` when there is room again."""
        if on_full not in self._paused:
            self._paused.add(on_full)
            on_full(True)

    def has_paused(self, on_full: Callable[[bool], None]) -> bool:
        """Whether this session is paused."""
        return on_full in self._paused

    def forget(self, on_full: Callable[[bool], None]) -> None:
        """Do not call it any more."""
        self._paused.discard(on_full)

    def _resume(self) -> None:
        # Half of both, so that a session that goes on does not pause again at its next line.
        if self.memory <= self.most_memory // 2 and self._disk <= self._most_disk // 2:
            paused, self._paused = self._paused, set()
            for on_full in paused:
                on_full(False)
