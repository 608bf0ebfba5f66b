"""Where one session's events wait for Redis: in memory up to the worker's share, then on disk, in the order they came.

Owns the order, and when a runner has to pause: past both shares entries are still taken, and whoever brings them is
told to pause. Does not own what an entry says (event_log.py) nor when it is written (publisher.py).

Consecutive messages share an entry, a run: what waits, is written and is confirmed then costs by the run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from agentrq_worker.stream.buffer_budget import BufferBudget
from agentrq_worker.stream.entry import EVENT_BYTES, Entry
from agentrq_worker.stream.spool_file import SpoolFile, SpoolFull

RUN_EVENTS: Final = 64
RUN_BYTES: Final = 64 * 1024
SHORT: Final = 64


class EventBuffer:
    """The queue of one session's entries. True while it holds any."""

    def __init__(self, shares: BufferBudget) -> None:
        self.on_full: Callable[[bool], None] = lambda _: None
        """Called with True when nothing more should be read for this session, with False when it may be again."""
        self._shares = shares
        self._memory: deque[Entry] = deque()
        self._run: Entry | None = None
        """The newest entry, while it is a run that may still grow."""
        self._spool: SpoolFile | None = None
        self._behind: deque[Entry] = deque()
        """Entries that came after the file was full."""

    def __bool__(self) -> bool:
        return bool(self._memory) or self._spool is not None

    def __len__(self) -> int:
        """How many entries are in memory."""
        return len(self._memory)

    def is_short(self) -> bool:
        """Whether all entries are in memory, at most `SHORT` of them."""
        return self._spool is None and len(self._memory) <= SHORT

    @property
    def full(self) -> bool:
        """Whether `on_full` was last called with True."""
        return self._shares.has_paused(self._tell)

    def add_messages(self, kind: str, seq: int, jsons: list[bytes]) -> None:
        """Append messages (or deltas) without state fields: to the run that they follow, if there is one."""
        run, shares = self._run, self._shares
        if run is not None and run.kind == kind and run.size < RUN_BYTES and not shares.is_full():
            room = RUN_EVENTS - len(run.jsons)
            more = jsons if len(jsons) <= room else jsons[:room]
            size = sum(map(len, more))
            run.jsons += more
            run.size += size
            shares.use(size + EVENT_BYTES * len(more))
            if more is jsons:
                return
            jsons = jsons[room:]
            seq += room if kind != "d" else 0
        while jsons:
            part = jsons
            jsons = []
            if len(part) > RUN_EVENTS:
                part, jsons = part[:RUN_EVENTS], part[RUN_EVENTS:]
            run = Entry(kind, seq, part, size=sum(map(len, part)))
            seq += len(part) if kind != "d" else 0
            self.add(run)
        if self._memory and self._memory[-1] is run:
            self._run = run

    def add(self, entry: Entry) -> None:
        """Append an entry; always succeeds."""
        self._run = None
        shares = self._shares
        if self._spool is None and shares.memory < shares.most_memory:  # nearly always
            self._memory.append(entry)
            shares.use(entry.cost)
            return
        try:
            if self._behind:
                raise SpoolFull
            if self._spool is None:
                self._spool = SpoolFile(self._shares, entry)
            else:
                self._spool.write(entry)
        except SpoolFull:
            self._hold(self._memory if self._spool is None else self._behind, entry)
            self._shares.pause(self._tell)

    def peek(self, most: int, most_bytes: int) -> list[Entry]:
        """The oldest entries, of about ``most`` events, at least one if there is any; they stay and grow no further."""
        self._run = None
        if self._spool is not None and (not self._memory or self._memory[-1].atomic_with_next):
            self._from_disk(self._spool, most, most_bytes)
        taken: list[Entry] = []
        count = size = 0
        for entry in self._memory:
            size += entry.size
            if taken and not taken[-1].atomic_with_next and (count >= most or size > most_bytes):
                break
            taken.append(entry)
            count += len(entry.jsons)
        return taken

    def first_seq(self) -> int | None:
        """The sequence number of the oldest entry that has one of its own (deltas have none)."""
        while True:
            for entry in self._memory:
                if entry.kind != "d":
                    return entry.seq
            if self._spool is None:
                return None
            self._from_disk(self._spool, 1, 1)

    def drop(self, count: int) -> None:
        """Drop the oldest ``count`` entries, which `peek` gave."""
        freed = 0
        for _ in range(count):
            freed += self._memory.popleft().cost
        self._shares.use(-freed)

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Put these entries, in their order, in front of all others."""
        for entry in reversed(list(entries)):
            self._memory.appendleft(entry)
            self._shares.use(entry.cost)

    def clear(self) -> None:
        """Drop all entries; a paused session may be read again."""
        paused = self.full
        self._shares.forget(self._tell)
        self._shares.use(-sum(entry.cost for entry in (*self._memory, *self._behind)))
        self._run = None
        self._memory.clear()
        self._behind.clear()
        if self._spool is not None:
            self._spool.close()
            self._spool = None
        if paused:
            self._tell(False)

    def _from_disk(self, spool: SpoolFile, most: int, most_bytes: int) -> None:
        for entry in spool.read(most, most_bytes):
            self._hold(self._memory, entry)
        if not spool:
            spool.close()
            self._spool = None
            self._memory += self._behind
            self._behind.clear()

    def _tell(self, full: bool) -> None:
        self.on_full(full)

    def _hold(self, where: deque[Entry], entry: Entry) -> None:
        where.append(entry)
        self._shares.use(entry.cost)
