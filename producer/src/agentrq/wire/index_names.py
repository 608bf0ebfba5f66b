"""The names of the indexes of sessions, as scripts/index.lua makes them. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Final

LONGEST_NAME: Final = 100
LONGEST_PAIR: Final = 256
"""A pair of a session's metadata with more bytes has no index."""
UNINDEXED_METADATA: Final = "metadata"
"""The index of sessions with pairs that have none: too long, or more than `index.lua` makes for a session."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.@+/=-]*")


def index_name(kind: str, value: str) -> str:
    """The index of the sessions that share a value, which stands there as its hash if it is long or has odd characters.

    Two values may share an index: a list compares the states.
    """
    name = f"{kind}:{value}"
    if _PLAIN.fullmatch(value) and len(name) <= LONGEST_NAME:
        return name
    return f"{kind}:{hashlib.sha1(value.encode(), usedforsecurity=False).hexdigest()}"


def metadata_names(key: str, value: str) -> list[str]:
    """The indexes that together have each session with this pair in its metadata."""
    if len(key.encode()) + len(value.encode()) > LONGEST_PAIR:
        return [UNINDEXED_METADATA]
    return [index_name("metadata", f"{key}={value}"), UNINDEXED_METADATA]
