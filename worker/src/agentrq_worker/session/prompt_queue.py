"""The commands and prompts that wait, in the order in which they are carried out. Pure.

Owns the order only: what a command does, and its receipt, are session/machine.py's.
"""

from __future__ import annotations

from agentrq_worker.session_types import InboxCommand


class PromptQueue:
    """Prompts that wait for the turn under way to end."""

    def __init__(self) -> None:
        self._prompts: list[InboxCommand] = []
        self._late: list[str] = []
        """Prompts that came too late for the turn they were to join: their receipts are written, they go first."""

    @property
    def has_late(self) -> bool:
        """A prompt waits that counts as applied already: it may neither wait for another owner nor be lost."""
        return bool(self._late)

    def add(self, waiting: InboxCommand) -> None:
        """Behind all others; one that interrupts goes before those that only wait, behind earlier ones of its kind."""
        at = len(self._prompts)
        if waiting.command.mode == "interrupt":
            at = next((i for i, other in enumerate(self._prompts) if other.command.mode != "interrupt"), at)
        self._prompts.insert(at, waiting)

    def remove(self, waiting: InboxCommand) -> None:
        """Forget a prompt that waits."""
        self._prompts = [other for other in self._prompts if other is not waiting]

    def add_late(self, text: str) -> None:
        """A prompt that did not join its turn."""
        self._late.append(text)

    def take_late(self) -> str | None:
        """The next prompt that came too late, if any."""
        return self._late.pop(0) if self._late else None

    def take(self) -> InboxCommand | None:
        """The next prompt, if any."""
        return self._prompts.pop(0) if self._prompts else None
