"""Where events wait: in memory up to the worker's share, then on disk up to its share, in the order they came.

Owns the shape of an entry, both shares, and one file a session. The file is written at the end, read from the start
and unlinked at once, so that a killed worker leaves none. Past both shares entries still are taken, and who brings
them is told to pause. Does not own what an entry says (event_log.py) nor when it is written (publisher.py).

Messages that follow one another share an entry, a run: what waits, is written and is confirmed then costs by the run.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from agentrq.wire.script_calls import Run

log = logging.getLogger(__name__)

ENTRY_BYTES: Final = 300
"""What an entry takes in memory beside its JSON, about, in bytes."""
EVENT_BYTES: Final = 64
"""What each further event of a run takes beside its JSON, about, in bytes."""
RUN_EVENTS: Final = 64
RUN_BYTES: Final = 64 * 1024
_HEAD: Final = 4


class Entry(Run, array_like=True, gc=False):
    """Events on their way that are written together: one, or a run of messages (or of deltas) one after the other.

    ``size``: the bytes of their JSON in all; ``fields`` go into the state with them. ``joined``: written in one step
    with the next entry, or neither is.
    """

    size: int = 0
    fields: dict[str, Any] | None = None
    joined: bool = False

    @property
    def last(self) -> int:
        """The last one's place."""
        return self.seq if self.kind == "d" else self.seq + len(self.jsons) - 1

    @property
    def cost(self) -> int:
        """Its share of memory, in bytes."""
        return self.size + ENTRY_BYTES + EVENT_BYTES * (len(self.jsons) - 1)


class SpoolFull(Exception):
    """The worker's share of the disk, or the disk, is used up; nothing was written."""


class BufferBudget:
    """What the sessions of one worker may hold together, in bytes, and who has to pause because it is used up."""

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
        """Bytes that may still go to the disk."""
        return self._most_disk - self._disk

    def use(self, change: int) -> None:
        """Memory is taken or given back."""
        self.memory += change
        self._resume()

    def use_disk(self, change: int) -> None:
        """A file grew or was emptied."""
        self._disk += change
        self._resume()

    def pause(self, on_full: Callable[[bool], None]) -> None:
        """Call ``on_full(True)`` now and ``on_full(False)`` when there is room again."""
        if on_full not in self._paused:
            self._paused.add(on_full)
            on_full(True)

    def has_paused(self, on_full: Callable[[bool], None]) -> bool:
        """Whether it waits for room."""
        return on_full in self._paused

    def forget(self, on_full: Callable[[bool], None]) -> None:
        """Call it no more."""
        self._paused.discard(on_full)

    def _resume(self) -> None:
        # Half of both, so that who goes on does not stop again at its next line.
        if self._paused and self.memory <= self.most_memory // 2 and self._disk <= self._most_disk // 2:
            paused, self._paused = self._paused, set()
            for on_full in paused:
                on_full(False)


class EventBuffer:
    """The queue of one session's entries. True while it holds any."""

    def __init__(self, shares: BufferBudget) -> None:
        self.on_full: Callable[[bool], None] = lambda _: None
        """Told True when nothing more should be read for this session, False when it may again."""
        self._shares = shares
        self._memory: deque[Entry] = deque()
        self._run: Entry | None = None
        """The newest entry, while it is a run that may still grow."""
        self._spool: _Spool | None = None
        self._behind: deque[Entry] = deque()
        """What came after the file was full."""

    def __bool__(self) -> bool:
        return bool(self._memory) or self._spool is not None

    def __len__(self) -> int:
        """How many entries are in memory."""
        return len(self._memory)

    @property
    def full(self) -> bool:
        """Whether `on_full` was told True last: nothing more should be read."""
        return self._shares.has_paused(self._tell)

    def messages(self, kind: str, seq: int, jsons: list[bytes]) -> None:
        """Append messages (or deltas) that come with nothing else: to the run that they follow, if there is one."""
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
            part, jsons = jsons[:RUN_EVENTS], jsons[RUN_EVENTS:]
            run = Entry(kind, seq, part, size=sum(map(len, part)))
            seq += len(part) if kind != "d" else 0
            self.add(run)
        if self._memory and self._memory[-1] is run:
            self._run = run

    def add(self, entry: Entry) -> None:
        """Append; nothing is refused."""
        self._run = None
        if self._spool is None and not self._shares.is_full():
            self._hold(self._memory, entry)
            return
        try:
            if self._behind:
                raise SpoolFull
            if self._spool is None:
                self._spool = _Spool(self._shares, entry)
            else:
                self._spool.write(entry)
        except SpoolFull:
            self._hold(self._memory if self._spool is None else self._behind, entry)
            self._shares.pause(self._tell)

    def front(self, most: int, most_bytes: int) -> list[Entry]:
        """The oldest entries, of about ``most`` events, at least one if there is any; they stay, and grow no more."""
        self._run = None
        if self._spool is not None and (not self._memory or self._memory[-1].joined):
            self._from_disk(self._spool, most, most_bytes)
        taken: list[Entry] = []
        count = size = 0
        for entry in self._memory:
            size += entry.size
            if taken and not taken[-1].joined and (count >= most or size > most_bytes):
                break
            taken.append(entry)
            count += len(entry.jsons)
        return taken

    def first_seq(self) -> int | None:
        """The place of the oldest entry that has one of its own."""
        while True:
            for entry in self._memory:
                if entry.kind != "d":
                    return entry.seq
            if self._spool is None:
                return None
            self._from_disk(self._spool, 1, 1)

    def drop(self, count: int) -> None:
        """Forget the oldest ``count`` entries, which `front` gave."""
        freed = sum(self._memory.popleft().cost for _ in range(count))
        self._shares.use(-freed)

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Put these, in their order, in front of all others."""
        for entry in reversed(list(entries)):
            self._memory.appendleft(entry)
            self._shares.use(entry.cost)

    def clear(self) -> None:
        """Forget everything; who was told to pause is told to go on."""
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

    def _from_disk(self, spool: _Spool, most: int, most_bytes: int) -> None:
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


_to_file = msgspec.msgpack.Encoder().encode
_from_file = msgspec.msgpack.Decoder(Entry).decode


class _Spool:
    """A queue of entries in one unlinked temporary file. True while it holds any."""

    def __init__(self, shares: BufferBudget, first: Entry) -> None:
        """A file with its first entry; raises `SpoolFull`."""
        self._shares = shares
        self._used = self._read_at = self._write_at = 0
        if shares.room() <= 0:
            raise SpoolFull
        try:
            self._file = tempfile.TemporaryFile(dir=shares.directory, prefix="agentrq-spool-", buffering=0)  # noqa: SIM115
        except OSError as error:
            log.error("no spool in %s: %s", shares.directory, error)
            raise SpoolFull from None
        try:
            self.write(first)
        except SpoolFull:
            self._file.close()
            raise

    def __bool__(self) -> bool:
        return self._read_at < self._write_at

    def write(self, entry: Entry) -> None:
        """Append; raises `SpoolFull` (also for a disk that is full)."""
        body = _to_file(entry)
        record = len(body).to_bytes(_HEAD, "big") + body
        if self._shares.room() < len(record):
            raise SpoolFull
        try:
            written = 0
            while written < len(record):
                written += os.pwrite(self._file.fileno(), record[written:], self._write_at + written)
        except OSError as error:
            log.error("the spool takes no more: %s", error)
            raise SpoolFull from None
        self._write_at += len(record)
        self._used += len(record)
        self._shares.use_disk(len(record))

    def read(self, most: int, most_bytes: int) -> list[Entry]:
        """Take the oldest entries, at least one if there is any."""
        taken: list[Entry] = []
        size = 0
        try:
            while self and (not taken or taken[-1].joined or (len(taken) < most and size < most_bytes)):
                length = int.from_bytes(os.pread(self._file.fileno(), _HEAD, self._read_at), "big")
                body = os.pread(self._file.fileno(), length, self._read_at + _HEAD)
                taken.append(_from_file(body))
                self._read_at += _HEAD + length
                size += length
        except (OSError, msgspec.MsgspecError, TypeError) as error:
            # What comes next shows the hole, and it is declared in the session's history (see Lane.repair).
            log.error("the spool cannot be read, %d bytes of it are lost: %s", self._write_at - self._read_at, error)
            self._read_at = self._write_at
        return taken

    def close(self) -> None:
        """Give back the disk."""
        self._file.close()
        self._shares.use_disk(-self._used)
