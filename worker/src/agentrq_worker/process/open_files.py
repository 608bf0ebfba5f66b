"""Raises the worker's own limit of open files, and gives its runners the limit that the worker was started with.

Owns RLIMIT_NOFILE of this process. The worker needs several descriptors a session; an agent that inherited that limit
would behave otherwise than from a shell (programs close or select(2) all descriptors up to their limit).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_ROOM: Final = 32
"""Descriptors that must still be free below the first limit, for a spawn and for whatever other threads open then."""
_first: tuple[int, int] | None = None
"""The limit (soft, hard) before it was raised; None while it was not."""


def raise_limit(needed: int) -> int:
    """Raise this process's soft limit to ``needed``, as far as the hard one allows; answers what holds then."""
    global _first
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return needed
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if most > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        _first = _first or (soft, hard)
    return most


class Spawning:
    """A spawn under way, whose child gets the first limit."""

    def __init__(self, late: tuple[int, int] | None) -> None:
        self._late = late

    def spawned(self, pid: int) -> None:
        """The child runs; where it could not begin with the first limit it is given that now."""
        if self._late is not None and hasattr(resource, "prlimit"):
            try:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, self._late)
            except OSError:
                pass  # it has ended, or has become another user's


@contextmanager
def first_limit() -> Iterator[Spawning]:
    """Children started meanwhile have the limit that this process was started with."""
    if _first is None:
        yield Spawning(None)
        return
    # The lower limit binds this process too: only where its lowest free descriptor is far below.
    lowest = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.close(lowest)
    if lowest + _ROOM >= _first[0]:
        yield Spawning(_first)
        return
    raised = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, _first)
    try:
        yield Spawning(None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, raised)
