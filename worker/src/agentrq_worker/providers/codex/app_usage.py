"""Counts the tokens of a turn of `codex app-server` from the running sums of its threads. Pure.

Owns the differences: nothing is counted twice, also not over a resume, and nothing that an earlier process counted.
"""

from __future__ import annotations

from typing import Any

from agentrq_worker.providers.json_line import mapping, text, whole


class Usage:
    """Tokens of the turn so far, sub-agents' included."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[int, int]] = {}
        self._spent = (0, 0)

    def add(self, thread: Any, usage: dict[str, Any], fresh: bool, in_turn: bool) -> None:
        """A thread's `ThreadTokenUsage`; ``fresh``: the thread began in this process, with sums of 0."""
        now, last = _tokens(usage.get("total")), _tokens(usage.get("last"))
        key = text(thread)
        before = self._sums.get(key, (0, 0) if fresh else None)
        self._sums[key] = now
        if before is None:
            # The first sum of a thread that has a past: only what this turn asked of the model is new.
            spent = last if in_turn else (0, 0)
        elif now[0] >= before[0] and now[1] >= before[1]:
            spent = (now[0] - before[0], now[1] - before[1])
        else:
            spent = last  # the sum began anew
        self._spent = (self._spent[0] + spent[0], self._spent[1] + spent[1])

    @property
    def spent(self) -> tuple[int, int]:
        """Tokens in and out since the last `take`."""
        return self._spent

    def take(self) -> tuple[int, int]:
        """Tokens in (cached ones included) and out since the last call."""
        spent, self._spent = self._spent, (0, 0)
        return spent


def _tokens(found: Any) -> tuple[int, int]:
    usage = mapping(found)
    return whole(usage.get("inputTokens")), whole(usage.get("outputTokens"))
