"""Commands that were written to the agent and wait for its word. Pure.

Owns which reply belongs to which command, and how long it may take. What follows is session/machine.py's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agentrq_worker.session_types import InboxCommand

CONFIRM_S: Final = 10.0
"""How long an agent may take to confirm a command."""
UNCONFIRMED: Final = f"the agent did not confirm within {CONFIRM_S:g} s"


class Confirmations:
    """Commands by the id of the reply that they wait for. Times are monotonic, in seconds."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[InboxCommand, float]] = {}

    def wait_for(self, confirmation: str, command: InboxCommand, now: float) -> None:
        """A command is written."""
        self._waiting[confirmation] = (command, now + CONFIRM_S)

    def take(self, confirmation: str) -> InboxCommand | None:
        """The command that a reply is about; None for one that nobody waits for (any more)."""
        found = self._waiting.pop(confirmation, None)
        return None if found is None else found[0]

    def take_interrupts(self) -> Iterator[InboxCommand]:
        """The commands that were to end the turn: it has ended."""
        for confirmation, (command, _) in list(self._waiting.items()):
            if command.command.command in ("interrupt", "prompt"):
                del self._waiting[confirmation]
                yield command

    def take_overdue(self, now: float) -> Iterator[InboxCommand]:
        """The commands that the agent did not confirm in time."""
        for confirmation, (command, deadline) in list(self._waiting.items()):
            if deadline <= now:
                del self._waiting[confirmation]
                yield command

    @property
    def deadline(self) -> float | None:
        """When the next of them is overdue."""
        return min((deadline for _, deadline in self._waiting.values()), default=None)
