"""The atomic steps on RQ's records, in Lua."""

from __future__ import annotations

from agentrq.wire import scripts


def load(name: str) -> str:
    """The source of one script; Redis runs it even when its memory is full, or no job could end then.

    What all scripts on RQ's jobs share (rq_job.lua of `agentrq.wire.scripts`) stands in front.
    """
    return scripts.load("agentrq.wire.scripts", "rq_job", allow_oom=True) + scripts.load(__name__, name)
