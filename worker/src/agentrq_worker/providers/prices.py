"""The built-in prices of the models that the supported agents use by default, as they were on `PRICES_OF`.

Owns the table. `agentrq prices import` puts others into Redis, which count before these. Prices are list prices in
USD for a million tokens; where an agent counts cached tokens as input, the price is an upper bound.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Price(NamedTuple):
    """USD for a million tokens."""

    input_usd: float
    output_usd: float


PRICES_OF: Final = "2025-11-30"
_PRICES: Final = {
    "claude-haiku-4-5": Price(1.0, 5.0),
    "claude-sonnet-4": Price(3.0, 15.0),
    "claude-sonnet-4-5": Price(3.0, 15.0),
    "claude-opus-4": Price(15.0, 75.0),
    "claude-opus-4-1": Price(15.0, 75.0),
    "claude-opus-4-5": Price(5.0, 25.0),
    "gpt-5": Price(1.25, 10.0),
    "gpt-5-codex": Price(1.25, 10.0),
    "gpt-5-mini": Price(0.25, 2.0),
    "gpt-5-nano": Price(0.05, 0.4),
    "gpt-5.1": Price(1.25, 10.0),
    "gpt-5.1-codex": Price(1.25, 10.0),
    "gpt-5.1-codex-max": Price(1.25, 10.0),
    "gpt-5.1-codex-mini": Price(0.25, 2.0),
    "codex-mini-latest": Price(1.5, 6.0),
    "gemini-2.5-pro": Price(1.25, 10.0),
    "gemini-2.5-flash": Price(0.3, 2.5),
    "gemini-2.5-flash-lite": Price(0.1, 0.4),
}


def find_price(model: str | None) -> Price | None:
    """The price of a model by its name, with or without the date of its version; None where it is not in the table."""
    if model is None:
        return None
    name, _, date = model.rpartition("-20")
    return _PRICES.get(model) or (_PRICES.get(name) if date else None)
