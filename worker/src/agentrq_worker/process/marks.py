"""Marks the processes of a runner, so that they are known whatever they do.

A mark names the worker by pid and start time, and the runner by a random token. Every process that a runner starts
bears it twice: in the variable AGENTRQ_RUNNER_MARK, and as a number, its *tag*, in the soft limit RLIMIT_RTTIME, which
limits only real-time threads and which every child inherits, ``env -i`` included. Owns both forms. Standard library
only.
"""

import functools
import os
import resource
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from agentrq_worker.process import procfs

MARK_VARIABLE = "AGENTRQ_RUNNER_MARK"
_TAGGED = 1 << 60  # microseconds: far above any real limit


class Mark(NamedTuple):
    """What a mark says: the worker's pid and start time, a random token (one a runner), the session id."""

    worker: tuple[int, int]
    token: str
    session_id: str


@functools.cache
def _identity(pid: int) -> str:
    return f"{pid}.{procfs.starttime(pid)}"


def make_mark(session_id: str) -> str:
    """A new mark: ``<worker pid>.<worker starttime>.<token>:<session id>``, the worker being this process."""
    return f"{_identity(os.getpid())}.{secrets.token_hex(6)}:{session_id}"


def parse_mark(mark: str) -> Mark | None:
    """What ``mark`` says; None where it is not a mark."""
    identity, colon, session_id = mark.partition(":")
    parts = identity.split(".")
    if not colon or len(parts) != 3 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return None
    return Mark((int(parts[0]), int(parts[1])), parts[2], session_id)


def worker_tag(worker: tuple[int, int]) -> int:
    """The part of a tag, shifted down by 32, that all runners of the worker (pid, starttime) share."""
    return (_TAGGED >> 32) | (zlib.crc32(f"{worker[0]}.{worker[1]}".encode()) >> 4)


def tag_of(mark: str) -> int:
    """``mark`` as a number for RLIMIT_RTTIME; 0 where it is not a mark."""
    parsed = parse_mark(mark)
    return worker_tag(parsed.worker) << 32 | zlib.crc32(parsed.token.encode()) if parsed else 0


@contextmanager
def tagged(mark: str) -> Iterator[None]:
    """Children started meanwhile bear the tag of ``mark``: set here and not on the child, which might fork first."""
    limit = getattr(resource, "RLIMIT_RTTIME", None)
    before = resource.getrlimit(limit) if limit is not None else (0, 0)
    try:
        if limit is not None:
            resource.setrlimit(limit, (tag_of(mark) or before[0], before[1]))
    except (ValueError, OSError):
        limit = None  # a lower hard limit was set for us: the other signs must do
    try:
        yield
    finally:
        if limit is not None:
            resource.setrlimit(limit, before)


def read_mark(pid: int) -> str:
    """The mark in the environment of ``pid``; empty where it has none, or belongs to another user."""
    for variable in procfs.read_file(f"/proc/{pid}/environ").split(b"\0") if procfs.is_ours(pid) else ():
        if variable.startswith(MARK_VARIABLE.encode() + b"="):
            return variable.partition(b"=")[2].decode(errors="replace")
    return ""


def read_tag(pid: int) -> int:
    """The tag of ``pid``; 0 where it has none, or belongs to another user."""
    _, _, rest = procfs.read_file(f"/proc/{pid}/limits").partition(b"Max realtime timeout")
    value = rest.split(maxsplit=1)[:1]
    return int(value[0]) if value and value[0].isdigit() and int(value[0]) & _TAGGED and procfs.is_ours(pid) else 0
