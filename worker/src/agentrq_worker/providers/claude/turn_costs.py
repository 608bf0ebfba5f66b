"""What each turn of Claude Code cost, from the running sum that its results tell. Pure.

Owns where that sum begins: within a process it only grows; a process may begin it anew, or go on with what its
conversation has cost before; and one session may see several processes, also under one owner.
"""

from __future__ import annotations

from agentrq_worker.providers.claude.wire import ResultLine
from agentrq_worker.providers.json_line import amount, mapping, whole


class TurnCosts:
    """The running sum ``total_cost_usd`` of one owner of a session."""

    def __init__(self) -> None:
        self._last: float | None = None

    def take(self, event: ResultLine, had: float) -> float:
        """One turn's part of the sum, in USD; ``had`` is what the session has cost before.

        ``result_index`` 0 (CLI 2.1.330), a lower sum or an owner's first result show another process.
        """
        total = amount(event.total_cost_usd)
        if not total:  # absent, or of a turn that was refused: the sum is where it was
            return 0.0
        before, self._last = self._last, total
        if before is not None and event.result_index != 0 and total >= before:
            return total - before
        since = event.model_usage_since_last_result
        if isinstance(since, dict):
            return min(total, sum(amount(mapping(used).get("costUSD")) for used in since.values()))
        return total if total < had or _counts_this_turn_only(event) else total - had


def _counts_this_turn_only(event: ResultLine) -> bool:
    """Whether ``total_cost_usd`` is the price of this turn's tokens only."""
    used = mapping(event.modelUsage).values()
    spent = sum(whole(mapping(one).get("outputTokens")) for one in used)
    return spent > 0 and spent == whole(mapping(event.usage).get("output_tokens"))
