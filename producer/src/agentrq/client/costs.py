"""Reads the ledger of costs and sets prices: the operations, and the methods of both clients.

Owns which days are read. What a ledger holds is agentrq.wire.ledger's matter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Any, Final, Generic, TypeVar

from agentrq.client.redis_requests import Batch, Context, Operation
from agentrq.wire import ledger
from agentrq.wire.ledger import CostRow, Sums

Rows = TypeVar("Rows")
"""Rows of costs: a list of `CostRow`, at once or to be awaited."""

DAYS_AT_ONCE: Final = 20


class CostMethods(ABC, Generic[Rows]):
    """What a client can ask of the ledger. `AgentClient` calls it directly, `AsyncAgentClient` awaits it."""

    context: Context

    @abstractmethod
    def run(self, operation: Operation[Any]) -> Any:
        """Run one operation: what it answers, at once or to be awaited."""

    def costs(
        self,
        by: str | Iterable[str] = ("tenant", "model"),
        *,
        since: date | str | None = None,
        until: date | str | None = None,
        tenant: str | None = None,
        user: str | None = None,
        project: str | None = None,
        provider: str | None = None,
        model: str | None = None,
    ) -> Rows:
        """What turns cost, as a list of `CostRow`, one for each group, in the order of their values.

        ``by``: some of ``day``, ``tenant``, ``user``, ``project``, ``provider``, ``model``, ``basis``; none: one row.
        ``since`` and ``until``: the first and the last day, in UTC, as dates or ``YYYY-MM-DD``; ``"30d"``: the first of
        the last 30 days (default: the last 30 days). The others: only turns of that; ``""``: of none.
        Raises `InvalidOption`, `RedisUnavailable`, `RedisRefused`.
        """
        last = ledger.read_day("until", until, ledger.today())
        first = ledger.read_day("since", since, last - timedelta(days=29))
        given = {"tenant": tenant, "user": user, "project": project, "provider": provider, "model": model}
        wanted = {name: value for name, value in given.items() if value is not None}
        rows: Rows = self.run(read_costs(self.context, ledger.read_groups(by), wanted, first, last))
        return rows


def read_costs(
    context: Context, by: tuple[str, ...], wanted: Mapping[str, str], first: date, last: date
) -> Operation[list[CostRow]]:
    """The sums of the days from ``first`` to ``last``, as far as they are kept."""
    first = max(first, ledger.today() - timedelta(days=ledger.KEPT_DAYS + 1))
    last = min(last, ledger.today() + timedelta(days=1))  # Redis's clock may be ahead
    sums = Sums(by, wanted)
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    for at in range(0, len(days), DAYS_AT_ONCE):
        page = days[at : at + DAYS_AT_ONCE]
        answers = yield Batch([("HGETALL", context.keys.ledger(ledger.day_number(day))) for day in page])
        for day, found in zip(page, answers, strict=True):
            sums.add(day, found)
    return sums.rows()


def set_prices(context: Context, prices: Mapping[str, str]) -> Operation[int]:
    """Replace the imported prices; answers how many there are now."""
    pairs = [part for pair in prices.items() for part in pair]
    yield Batch([("DEL", context.keys.prices), ("HSET", context.keys.prices, *pairs)], atomic=True)
    return len(prices)


def get_prices(context: Context) -> Operation[dict[str, str]]:
    """The imported prices: billionths of a USD for a million tokens in and out, by model."""
    (found,) = yield Batch([("HGETALL", context.keys.prices)])
    return {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in found.items()}
