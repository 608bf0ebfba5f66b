"""The atomic steps on RQ's records, as Lua source: each file's head says its keys, its arguments and its answer."""

from __future__ import annotations

from agentrq.wire import scripts


def load(name: str) -> str:
    """The source of one script, with what all scripts share in front. Redis runs it even when its memory is full."""
    return scripts.load("agentrq.wire.scripts", "shared", allow_oom=True) + scripts.load(__name__, name)
