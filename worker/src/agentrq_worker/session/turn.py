"""The turn under way: since when, whether somebody interrupts it, and how the last one ended. Pure.

Owns a turn's beginning, end and times. Does not own statuses or events (session/machine.py).
"""

from __future__ import annotations

from typing import Final

WHOLE: Final = "whole"
INTERRUPTED: Final = "interrupted"
FAILED: Final = "failed"
CUT: Final = "cut"
"""The process, the worker or the time ended before the turn did: the work is not done."""


class Turn:
    """The turns of one owner of a session, one after the other. Times are monotonic, in seconds."""

    def __init__(self, *, is_open: bool, last: str | None, timeout_s: float | None) -> None:
        """``is_open``: an earlier owner's turn was under way; ``last``: how the one before that ended."""
        self.is_open = is_open
        """A turn is under way, or a prompt for it has been handed over."""
        self.last = last
        self.began: float | None = None
        self.obey_by: float | None = None
        """When an interrupted turn must have ended."""
        self._interrupted_as: str | None = None
        self._timeout_s = timeout_s
        self._ran_over = False

    @property
    def is_interrupted(self) -> bool:
        """Somebody interrupts the turn under way, or has ended the last one so and none has begun since."""
        return self._interrupted_as is not None or (not self.is_open and self.last == INTERRUPTED)

    @property
    def ran_over(self) -> bool:
        """The turn's time is over, and it was interrupted for that."""
        return self._ran_over

    @property
    def deadline(self) -> float | None:
        """When the turn's time is over; None where there is no limit, or it has been acted on."""
        if self._timeout_s is None or self.began is None or self._ran_over:
            return None
        return self.began + self._timeout_s

    def begin(self, now: float) -> None:
        """A turn begins."""
        self.is_open = True
        self.began = now
        self._calm()

    def interrupt(self, obey_by: float) -> None:
        """A user ends the turn; it has until ``obey_by``."""
        self._interrupted_as = self._interrupted_as or INTERRUPTED
        self.obey_by = min(obey_by, self.obey_by or obey_by)

    def run_over(self, obey_by: float) -> None:
        """The turn's time is over: it is interrupted, and has until ``obey_by``."""
        self._ran_over = True
        self._interrupted_as = CUT
        self.obey_by = obey_by

    def interrupt_refused(self) -> None:
        """The agent does not end its turn for a user."""
        if not self._ran_over:
            self._calm()

    def end(self, *, is_error: bool) -> None:
        """End the turn as the agent reported it; a turn that finished in spite of an interrupt counts as `whole`."""
        self.last = (self._interrupted_as or FAILED) if is_error else WHOLE
        self._close()

    def end_as(self, last: str) -> None:
        """The turn ends, but not by the agent's word."""
        self.last = last
        self._close()

    def _close(self) -> None:
        self.is_open = False
        self.began = None
        self._calm()

    def _calm(self) -> None:
        self.obey_by = self._interrupted_as = None
        self._ran_over = False
