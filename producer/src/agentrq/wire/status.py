"""A session's statuses, the moves between them and the reasons of an end: the only place that knows them.

A move that is not in the table is a bug and raises `IllegalMove`. Entering the current status again is not a move and
writes no event, except ``recovering`` in a new epoch.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Where a session stands in its life."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    IDLE = "idle"
    WAITING = "waiting"
    RECOVERING = "recovering"
    DONE = "done"
    ERROR = "error"

    @property
    def ended(self) -> bool:
        """True for ``done`` and ``error``: nothing follows."""
        return self in ENDED


class Reason(StrEnum):
    """Why a session ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    IDLE_TIMEOUT = "idle_timeout"
    MAX_TURNS = "max_turns"
    FAILED = "failed"
    TIMEOUT = "timeout"
    LOST = "lost"
    REFUSED = "refused"


ENDED = frozenset({Status.DONE, Status.ERROR})

MOVES: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.STARTING}) | ENDED,
    Status.STARTING: frozenset({Status.RUNNING, Status.IDLE, Status.RECOVERING}) | ENDED,
    Status.RUNNING: frozenset({Status.IDLE, Status.WAITING, Status.RECOVERING}) | ENDED,
    Status.IDLE: frozenset({Status.RUNNING, Status.RECOVERING}) | ENDED,
    Status.WAITING: frozenset({Status.RUNNING, Status.IDLE, Status.RECOVERING}) | ENDED,
    Status.RECOVERING: frozenset({Status.STARTING, Status.RECOVERING}) | ENDED,
    Status.DONE: frozenset(),
    Status.ERROR: frozenset(),
}

REASONS: dict[Status, frozenset[Reason]] = {
    Status.DONE: frozenset({Reason.COMPLETED, Reason.STOPPED, Reason.IDLE_TIMEOUT, Reason.MAX_TURNS}),
    Status.ERROR: frozenset({Reason.FAILED, Reason.TIMEOUT, Reason.LOST, Reason.REFUSED}),
}


class IllegalMove(AssertionError):
    """A status change that the table does not allow: a bug in whoever writes it."""


def check_move(current: Status, following: Status, reason: Reason | None = None) -> None:
    """Raise `IllegalMove` unless ``current`` may become ``following`` for ``reason`` (required by an end)."""
    if following not in MOVES[current]:
        raise IllegalMove(f"{current} → {following} is not a valid move")
    if reason not in REASONS.get(following, {None}):
        raise IllegalMove(f"{following} does not end with reason {reason}")
