"""Events that wait on disk while Redis is away and memory's share is used up. Owns their shape and one file a session.

Written at the end, read from the start; unlinked at once, so that a killed worker leaves no file. What a full
disk does not take stays in memory (`hold`), behind what the file has.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

_HEAD = 4


class Entry(NamedTuple):
    """One event on its way: kind as in write.lua; ``fields`` go into the state with it."""

    kind: str
    seq: int
    json: bytes
    inbox_entry: bytes = b""
    command_id: str = ""
    fields: dict[str, Any] | None = None


class SpoolFull(Exception):
    """The worker's share of the disk, or the disk, is used up; nothing was written."""


class Spool:
    """A queue of entries in one unlinked temporary file. True while it holds any."""

    def __init__(self, directory: Path, room: Callable[[], int], use: Callable[[int], None]) -> None:
        """``room()`` says how many bytes may still be written, ``use(n)`` is told of each change."""
        self._room = room
        self._use = use
        self._used = 0
        self._read_at = 0
        self._write_at = 0
        self._held: deque[Entry] = deque()
        try:
            self._file = tempfile.TemporaryFile(dir=directory, prefix="agentrq-spool-", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise SpoolFull(str(error)) from None

    def __bool__(self) -> bool:
        return self._read_at < self._write_at or bool(self._held)

    def write(self, entry: Entry) -> None:
        """Append; raises `SpoolFull` (also for a disk that is full)."""
        body = msgspec.msgpack.encode(tuple(entry))
        record = len(body).to_bytes(_HEAD, "big") + body
        if self._held or self._room() < len(record):
            raise SpoolFull
        try:
            written = 0
            while written < len(record):
                written += os.pwrite(self._file.fileno(), record[written:], self._write_at + written)
        except OSError as error:
            raise SpoolFull(str(error)) from None
        self._write_at += len(record)
        self._used += len(record)
        self._use(len(record))

    def hold(self, entry: Entry) -> None:
        """Keep an entry behind all that was written."""
        self._held.append(entry)

    def read(self, most: int, most_bytes: int) -> list[Entry]:
        """Take the oldest entries, at least one if there is any."""
        taken: list[Entry] = []
        size = 0
        while self._read_at < self._write_at and len(taken) < most and size < most_bytes:
            length = int.from_bytes(os.pread(self._file.fileno(), _HEAD, self._read_at), "big")
            body = os.pread(self._file.fileno(), length, self._read_at + _HEAD)
            taken.append(Entry(*msgspec.msgpack.decode(body)))
            self._read_at += _HEAD + length
            size += length
        if self._read_at >= self._write_at:
            self._free()
            while self._held and len(taken) < most:
                taken.append(self._held.popleft())
        return taken

    def _free(self) -> None:
        os.ftruncate(self._file.fileno(), 0)
        self._read_at = self._write_at = 0
        self._use(-self._used)
        self._used = 0

    def close(self) -> None:
        """Forget everything."""
        if not self._file.closed:
            self._held.clear()
            self._free()
            self._file.close()
