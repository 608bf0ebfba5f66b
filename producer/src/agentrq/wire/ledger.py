"""The ledger of costs and the imported prices: their fields, and the sums that a caller asks for. Pure.

docs/reference/costs.md says what they mean; feed.lua writes the ledger.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import msgspec

from agentrq.errors import InvalidOption

KEPT_DAYS: Final = 400
EPOCH: Final = date(1970, 1, 1)
DIMENSIONS: Final = ("day", "tenant", "user", "project", "provider", "model", "basis")
"""What costs can be grouped by."""
_IN_FIELD: Final = ("tenant", "user", "project", "provider", "model", "basis")
_LAST: Final = re.compile(r"(\d{1,3})d")


class CostRow(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True, kw_only=True):
    """What the turns of one group cost. Of the members before ``turns`` it has those that it is grouped by."""

    day: str | None = None
    """The day in UTC, as YYYY-MM-DD."""
    tenant: str | None = None
    """The customer; '' for sessions without one, as the members that follow."""
    user: str | None = None
    """The person."""
    project: str | None = None
    """The project."""
    provider: str | None = None
    """The provider."""
    model: str | None = None
    """The model that the agent reported."""
    basis: str | None = None
    """How the cost is known."""
    turns: int = 0
    """Turns that are over."""
    cut_turns: int = 0
    """Those that were cut."""
    unknown_turns: int = 0
    """Those of unknown cost, which is in no figure."""
    input_tokens: int = 0
    """Input tokens."""
    output_tokens: int = 0
    """Output tokens."""
    cost_nano_usd: int = 0
    """The known costs, in billionths of a USD."""
    priced_nano_usd: int = 0
    """The part of it that was made from tokens by a price, and not reported."""

    @property
    def cost_usd(self) -> float:
        """The known costs, in USD."""
        return self.cost_nano_usd / 1e9


_KINDS: Final = {
    "turns": "turns",
    "cutTurns": "cut_turns",
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "costNanoUsd": "cost_nano_usd",
}
_decode_field: Final = msgspec.json.Decoder(tuple[str, str, str, str, str, str, str]).decode


def day_number(day: date) -> int:
    """Days since 1970-01-01, by which a day's ledger is named."""
    return (day - EPOCH).days


def today() -> date:
    """The day that it is, in UTC."""
    return datetime.now(UTC).date()


def read_day(name: str, value: date | str | None, default: date) -> date:
    """A day: a date, ``YYYY-MM-DD``, or ``30d`` for the first of the last 30 days. Raises `InvalidOption`."""
    if value is None:
        return default
    if isinstance(value, str):
        last = _LAST.fullmatch(value)
        if last is not None and int(last[1]) > 0:
            return today() - timedelta(days=int(last[1]) - 1)
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise InvalidOption(name, f"Expected YYYY-MM-DD or a number of days as 30d, got {value!r}"[:200]) from None
    return value.date() if isinstance(value, datetime) else value


def read_groups(by: str | Iterable[str]) -> tuple[str, ...]:
    """What rows are grouped by, in the order of `DIMENSIONS`. Raises `InvalidOption`."""
    names = by.split(",") if isinstance(by, str) else list(by)
    names = [name for name in names if name != ""]
    for name in names:
        if name not in DIMENSIONS:
            raise InvalidOption("by", f"Expected some of {', '.join(DIMENSIONS)}, got {name!r}"[:200])
    return tuple(name for name in DIMENSIONS if name in names)


class Sums:
    """Adds up ledgers of days: those that ``wanted`` admits, by the values of ``by``."""

    def __init__(self, by: tuple[str, ...], wanted: Mapping[str, str]) -> None:
        self._by = by
        self._wanted = wanted
        self._rows: dict[tuple[str, ...], dict[str, int]] = {}

    def add(self, day: date, ledger: Mapping[bytes, bytes]) -> None:
        """One day's hash; a field or value that cannot be read is left out."""
        for field, value in ledger.items():
            try:
                *values, kind = _decode_field(field)
                count = int(value)
            except (msgspec.MsgspecError, ValueError):
                continue
            known = dict(zip(_IN_FIELD, values, strict=True)) | {"day": day.isoformat()}
            if kind not in _KINDS or any(known[name] != value for name, value in self._wanted.items()):
                continue
            row = self._rows.setdefault(tuple(known[name] for name in self._by), {})
            _add(row, _KINDS[kind], count)
            if kind == "turns" and known["basis"] == "unknown":
                _add(row, "unknown_turns", count)
            if kind == "costNanoUsd" and known["basis"] == "priced":
                _add(row, "priced_nano_usd", count)

    def rows(self) -> list[CostRow]:
        """The rows in the order of their groups."""
        return [
            CostRow(**dict(zip(self._by, group, strict=True)), **counts)  # type: ignore[arg-type]  # texts and counts
            for group, counts in sorted(self._rows.items())
        ]


def _add(row: dict[str, int], name: str, count: int) -> None:
    row[name] = row.get(name, 0) + count


def read_prices(found: Any) -> dict[str, str]:
    """The prices of LiteLLM's JSON, as the hash has them; entries without both prices are left out.

    A name with a provider before it (``openai/gpt-5``) also counts without, where that has no price of its own.
    Raises `InvalidOption`.
    """
    if not isinstance(found, dict):
        raise InvalidOption("prices", "Expected an object: model → its prices")
    prices: dict[str, str] = {}
    for model, entry in found.items():
        costs = [entry.get(f"{way}_cost_per_token") if isinstance(entry, dict) else None for way in ("input", "output")]
        if model == "sample_spec" or not all(_is_price(cost) for cost in costs):
            continue
        price = " ".join(str(round(cost * 1e15)) for cost in costs if cost is not None)
        prices[model] = price
    for model in list(prices):
        prices.setdefault(model.rpartition("/")[2], prices[model])
    if not prices:
        raise InvalidOption("prices", "No model has input_cost_per_token and output_cost_per_token")
    return prices


def _is_price(cost: Any) -> bool:
    return isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < 1
