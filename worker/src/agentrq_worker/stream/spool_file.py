"""A queue of entries in one temporary file, for a session whose events find no room in memory.

The file is written at the end, read from the start and unlinked at once, so that a killed worker leaves none. Does not
own when entries go there (buffer.py).
"""

from __future__ import annotations

import logging
import os
import tempfile
from typing import Final

import msgspec

from agentrq_worker.stream.buffer_budget import BufferBudget
from agentrq_worker.stream.entry import Entry

log = logging.getLogger(__name__)

_HEAD: Final = 4


class SpoolFull(Exception):
    """The worker's disk budget, or the disk, is full; nothing was written."""


_to_file = msgspec.msgpack.Encoder().encode
_from_file = msgspec.msgpack.Decoder(Entry).decode


class SpoolFile:
    """A queue of entries in one unlinked temporary file. True while it holds any."""

    def __init__(self, shares: BufferBudget, first: Entry) -> None:
        """Create the file with its first entry; raises `SpoolFull`."""
        self._shares = shares
        self._used = self._read_at = self._write_at = 0
        if shares.room() <= 0:
            raise SpoolFull
        try:
            self._file = tempfile.TemporaryFile(dir=shares.directory, prefix="agentrq-spool-", buffering=0)  # noqa: SIM115
        except OSError as error:
            log.error("cannot create a spool file in %s: %s", shares.directory, error)
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
            log.error("cannot write to the spool file: %s", error)
            raise SpoolFull from None
        self._write_at += len(record)
        self._used += len(record)
        self._shares.use_disk(len(record))

    def read(self, most: int, most_bytes: int) -> list[Entry]:
        """Take the oldest entries, at least one if there is any."""
        taken: list[Entry] = []
        size = 0
        try:
            while self and (not taken or taken[-1].atomic_with_next or (len(taken) < most and size < most_bytes)):
                length = int.from_bytes(os.pread(self._file.fileno(), _HEAD, self._read_at), "big")
                body = os.pread(self._file.fileno(), length, self._read_at + _HEAD)
                taken.append(_from_file(body))
                self._read_at += _HEAD + length
                size += length
        except (OSError, msgspec.MsgspecError, TypeError) as error:
            # The next event shows the hole, which the session's history then declares (EventLog.repair).
            log.error("cannot read the spool file, %d bytes of it are lost: %s", self._write_at - self._read_at, error)
            self._read_at = self._write_at
        return taken

    def close(self) -> None:
        """Close the file, which frees its disk space."""
        self._file.close()
        self._shares.use_disk(-self._used)
