"""What is kept of one live session for all clients that follow it: its last frames, each encoded once.

A client is a place in it. The log never waits for a client: it drops its oldest frames at its bound, and whoever has
not taken them reads them from Redis. Pure, but for the timer that wakes clients together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from agentrq.wire.ids import Cursor
from agentrq_gateway.streams.frames import Frame

CHUNK: Final = 64 * 1024
"""Bytes that a client is sent at once, about: what a connection holds for a client that takes nothing."""
WAKE_EACH_S: Final = 250e-6
LONGEST_WAKE_S: Final = 0.05
"""Many clients are woken together for the events of some milliseconds, so long for each: what a client costs is being
sent to, not what it is sent."""


class Chunk(NamedTuple):
    """Some frames in a row."""

    frames: list[Frame]
    data: bytes
    """All of them, with their ids."""
    next: int
    """The place after them."""
    cursor: Cursor | None
    """The cursor of the last event in it; None where it has only deltas, or nothing."""


class SessionLog:
    """The last frames of one session, and the clients that wait for more."""

    def __init__(self, session_id: str, start: Cursor, limit: Callable[[], int]) -> None:
        """``start``: the log has whatever comes after it. ``limit``: bytes that may be kept, asked each time."""
        self.session_id = session_id
        self.start = start
        self.newest = start
        self.ended = False
        """The session has ended, and all of it is here."""
        self.gone = False
        """The session is not there any more."""
        self.resets = 0
        """How often the session did not go on where it was: whoever waits reads the stream then."""
        self.waiting: set[Callable[[], None]] = set()
        """Called once when more is there, by whoever put itself here."""
        self.users = 0
        self.unused_since: float | None = None
        self.texts_due = 0.0
        """When its open texts may be asked for again (monotonic)."""
        self._limit = limit
        self._frames: deque[Frame] = deque()
        self._first = 0
        self._bytes = 0
        self._chunks: dict[tuple[int, bool], Chunk] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._bytes

    def append(self, frame: Frame) -> None:
        """Add an event."""
        self._frames.append(frame)
        self._bytes += len(frame.data)
        if frame.cursor is not None:
            self.newest = Cursor.parse(frame.cursor)
        most = self._limit()
        while self._bytes > most:
            dropped = self._frames.popleft()
            self._first += 1
            self._bytes -= len(dropped.data)
            if dropped.cursor is not None:
                self.start = Cursor.parse(dropped.cursor)
        self._tell()

    def restart(self, start: Cursor) -> None:
        """The session does not go on where it was: forget all frames, and go on after ``start``."""
        self._first += len(self._frames)
        self._frames.clear()
        self._bytes = 0
        self.start = self.newest = start
        self.resets += 1
        self._tell()

    def finish(self, *, gone: bool) -> None:
        """No more will come."""
        self.ended, self.gone = not gone, gone
        self._tell()

    def place_after(self, cursor: Cursor) -> int | None:
        """The place of what follows a cursor; None where that is not here (any more, or yet)."""
        if cursor < self.start or cursor > self.newest:
            return None
        place = self._first + len(self._frames)
        for frame in reversed(self._frames):
            if frame.cursor is not None and Cursor.parse(frame.cursor) <= cursor:
                break
            place -= 1
        return place

    def read(self, place: int, *, deltas: bool) -> Chunk | None:
        """About `CHUNK` bytes from a place on, without deltas if so wished; None where the place is dropped already."""
        if place < self._first:
            return None
        known = self._chunks.get((place, deltas))
        if known is not None:
            return known
        frames: list[Frame] = []
        size, at, cursor = 0, place, None
        for index in range(place - self._first, len(self._frames)):
            frame = self._frames[index]
            at += 1
            if frame.cursor is None and not deltas:
                continue
            frames.append(frame)
            size += len(frame.data)
            cursor = frame.cursor or cursor
            if size >= CHUNK:
                break
        data = b"".join([frame.data for frame in frames])
        chunk = Chunk(frames, data, at, None if cursor is None else Cursor.parse(cursor))
        self._chunks[place, deltas] = chunk
        return chunk

    def close(self) -> None:
        """Nobody uses it any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        self._chunks.clear()
        if self._timer is None and self.waiting:
            delay = min(LONGEST_WAKE_S, len(self.waiting) * WAKE_EACH_S)
            self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _wake(self) -> None:
        self._timer = None
        waiting, self.waiting = self.waiting, set()
        for wake in waiting:
            wake()
