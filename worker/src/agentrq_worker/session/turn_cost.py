"""What a turn cost, and on what basis that is known. Pure.

Owns the rule. Does not own what agents tell (providers/), the prices (providers/prices.py), nor the ledger (feed.lua,
which prefers an imported price to the built-in one).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from agentrq_worker.providers.parser import Spent
from agentrq_worker.providers.prices import find_price

NANO: Final = 1_000_000_000
MOST_USD: Final = 1_000_000.0
"""An agent that tells more for one turn is not believed: sums must stay below 2^63."""


class TurnCost(NamedTuple):
    """``basis``: ``reported`` by the agent, ``priced`` by its tokens, ``free``, or ``unknown``: then nothing is known.

    ``nano_usd``: the cost in billionths of a dollar; None where it is unknown.
    """

    basis: str
    nano_usd: int | None


def cost_of(spent: Spent, model: str | None, *, free: bool, told: bool) -> TurnCost:
    """The cost of a turn. ``free``: the agent's model costs nothing; ``told``: the agent ended the turn by its word."""
    if 0 < spent.cost_usd <= MOST_USD:
        return TurnCost("reported", round(spent.cost_usd * NANO))
    if free:
        return TurnCost("free", 0)
    price = find_price(model)
    if spent.input_tokens + spent.output_tokens > 0 and price is not None:
        dollars = spent.input_tokens * price.input_usd + spent.output_tokens * price.output_usd
        return TurnCost("priced", round(dollars * NANO / 1_000_000))
    if told and spent.input_tokens + spent.output_tokens == 0:  # as where the model's API refused the turn
        return TurnCost("reported", 0)
    return TurnCost("unknown", None)
