"""What a turn cost, where an agent tells only a running sum. Pure.

Owns the difference between sums: an agent's process may go on from what earlier processes of the session spent, or
begin anew at 0. Does not own the session's total (parser.py).
"""

from __future__ import annotations


class RunningCost:
    """The amounts that have been told since the last turn's end, in the agent's currency."""

    def __init__(self) -> None:
        self._last = 0.0
        self._spent = 0.0
        self._counted_before = 0.0

    def resume(self, counted: float) -> None:
        """The session had turns before this process, which were counted with this sum: the first amount may hold it."""
        self._counted_before = counted

    def update(self, amount: float, counted: bool = False) -> None:
        """The running sum is now ``amount``; ``counted``: it tells again what was counted before."""
        before, self._counted_before = self._counted_before, 0.0
        if amount < self._last:  # the sum began anew
            self._last = 0.0
        elif 0 < before <= amount:
            self._last = before
        if not counted:
            self._spent += amount - self._last
        self._last = amount

    @property
    def spent(self) -> float:
        """What was spent since the last `take`."""
        return self._spent

    def take(self) -> float:
        """What was spent since the last call."""
        spent, self._spent = self._spent, 0.0
        return spent
