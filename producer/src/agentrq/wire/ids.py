"""Session ids, command ids and cursors. Owns their syntax; knows nothing of Redis."""

from __future__ import annotations

import os
import re
import time
from typing import NamedTuple

from agentrq.errors import InvalidSessionId

_SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def new_id() -> str:
    """A UUIDv7 (RFC 9562, section 5.7): sorts by creation time in milliseconds."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (
        (milliseconds & (1 << 48) - 1) << 80 | 0x7 << 76 | (random >> 68) << 64 | 0b10 << 62 | random & (1 << 62) - 1
    )
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def check_session_id(session_id: object) -> str:
    """The id itself if it is one; raises `InvalidSessionId` otherwise."""
    if isinstance(session_id, str) and _SESSION_ID.fullmatch(session_id):
        return session_id
    raise InvalidSessionId(session_id)


def is_session_id(raw: bytes) -> bool:
    """Whether bytes from Redis are a session id."""
    return len(raw) <= 64 and _SESSION_ID.fullmatch(raw.decode("ascii", "replace")) is not None


class Cursor(NamedTuple):
    """An event's place in its session, ``<epoch>-<seq>`` on the wire: also its Redis stream id."""

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"

    @classmethod
    def parse(cls, text: str | bytes) -> Cursor:
        """Read ``<epoch>-<seq>``; raises ValueError for anything else."""
        if isinstance(text, bytes):
            text = text.decode("ascii", "replace")
        epoch, dash, seq = text.partition("-")
        if not (dash and epoch.isascii() and epoch.isdigit() and seq.isascii() and seq.isdigit()):
            raise ValueError(f"Invalid cursor {text[:80]!r}: use EPOCH-SEQ, for example 1-7")
        cursor = cls(int(epoch), int(seq))
        if max(cursor) >= 1 << 64:  # the range of a Redis stream id
            raise ValueError(f"Invalid cursor {text[:80]!r}: a part is over 64 bits")
        return cursor


NEWEST_POSSIBLE = Cursor((1 << 64) - 1, (1 << 64) - 1)
ORIGIN = Cursor(0, 0)
"""Before the first event of any session."""
