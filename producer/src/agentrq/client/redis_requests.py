"""What an operation may ask of the client that runs it, and what all operations of one client share. Pure."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Generator, Iterator
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from agentrq.errors import InvalidOption
from agentrq.wire import script_calls
from agentrq.wire.keys import Keys, queue_name
from agentrq.wire.script_calls import ScriptCall

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 5.0


class Batch(NamedTuple):
    """Raw Redis commands, sent in one go; ``atomic`` puts them in a MULTI, ``apart`` gives an error as its answer."""

    commands: list[tuple[Any, ...]]
    atomic: bool = False
    apart: bool = False


class Pause(NamedTuple):
    """A wait of so many seconds."""

    seconds: float


class Wait(NamedTuple):
    """One command that blocks in Redis for up to so many seconds; on a connection of its own."""

    command: tuple[Any, ...]
    seconds: float


T = TypeVar("T")
Request: TypeAlias = ScriptCall[Any] | Batch | Pause | Wait
Operation: TypeAlias = Generator[Request, Any, T]
"""What it yields is answered by the client: a `ScriptCall` by what its ``read`` gives, a `Batch` by a list,
a `Wait` by its command's."""


def run_script(call: ScriptCall[T]) -> Operation[T]:
    """One script call, with its answer's type."""
    answer: T = yield call
    return answer


def pauses(timeout: float | None) -> Iterator[Pause]:
    """Pauses between tries, each twice as long as the one before, for ``timeout`` seconds in all (None: no end)."""
    pause, deadline = FIRST_PAUSE_S, math.inf if timeout is None else time.monotonic() + timeout
    while time.monotonic() + pause <= deadline:
        yield Pause(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


class Context(NamedTuple):
    """What all operations of one client share: names, RQ's queue, and times in seconds.

    ``retention_s``: how long an ended session is kept; ``recovery_timeout_s``: how long a session may be without an
    owner before whoever follows it ends it.
    """

    keys: Keys
    queue: str
    retention_s: float = script_calls.DEFAULT_RETENTION_S
    recovery_timeout_s: float = script_calls.DEFAULT_RECOVERY_TIMEOUT_S

    @classmethod
    def from_environment(cls) -> Context:
        """From ``AGENTRQ_PREFIX``, ``AGENTRQ_QUEUE``, ``AGENTRQ_RETENTION_S``, ``AGENTRQ_RECOVERY_TIMEOUT_S``."""
        return cls(
            Keys.from_environment(),
            queue_name(),
            _seconds("AGENTRQ_RETENTION_S", script_calls.DEFAULT_RETENTION_S),
            _seconds("AGENTRQ_RECOVERY_TIMEOUT_S", script_calls.DEFAULT_RECOVERY_TIMEOUT_S),
        )


def _seconds(variable: str, default: float) -> float:
    given = os.environ.get(variable)
    try:
        seconds = float(given) if given else default
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e9:
        raise InvalidOption(variable, f"Expected seconds above 0, got {given!r}")
    return seconds
