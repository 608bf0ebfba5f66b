"""Where a session stands with its runner: status, the turn under way, bytes that go out after what was said of them.

Owns the status and its moves. Does not own what is said (session/machine.py), asked (session/approvals.py) or ordered
(prompt_queue.py).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from agentrq.wire.status import Status, check_move
from agentrq_worker.providers.protocol import AgentProtocol, CommandRefused, as_sent
from agentrq_worker.session_types import Outcome
from agentrq_worker.stream.event_log import EventLog


class TurnState:
    """The status, the turn and the runner's ear of one writer of a session."""

    def __init__(self, lane: EventLog, write: Callable[[bytes], None], over: Callable[[Outcome], None]) -> None:
        self.status = Status.STARTING
        self.busy = False
        """A turn is under way, or a prompt for it has been handed over."""
        self.turn_began: float | None = None
        self.idle_since = time.monotonic()
        self.leaving = False
        self.ending = False
        """No further prompt is handed over: the session is over, or its runner has gone."""
        self._lane = lane
        self._write = write
        self._over = over
        self._dialect: AgentProtocol | None = None

    def interrupt(self) -> bool:
        """End the turn under way by the worker's own will; False where the provider cannot."""
        try:
            self._send(as_sent(self._speaker().interrupt()).data)
        except CommandRefused:
            return False
        return True

    def _speaker(self) -> AgentProtocol:
        assert self._dialect is not None
        return self._dialect

    def _send(self, data: bytes) -> None:
        """Write once what was said of it is in Redis: a worker that dies here doubles nothing."""
        self._lane.after_commit(functools.partial(self._write, data))

    def _alive(self) -> None:
        """The runner works: whatever it was before, the turn is under way now."""
        if not self.busy:
            self.busy = True
            self.turn_began = time.monotonic()
        if self.status in (Status.STARTING, Status.IDLE):
            self._move(Status.RUNNING, {"turn": 1})

    def _move(self, status: Status, fields: dict[str, Any] | None = None) -> None:
        if status is not self.status:
            check_move(self.status, status)
            self.status = status
            self._lane.add_status(status, fields)

    def _finish(self, outcome: Outcome) -> None:
        self.ending = True
        self._over(outcome)
