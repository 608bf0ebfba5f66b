"""Costs as callers read them: groups, days, filters, prices; by Python and by the command line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from agentrq import AgentClient, CostRow, InvalidOption
from agentrq.wire.ledger import day_number, today
from tests.producer.command_line import only_line, run_cli
from tests.producer.session_writer import KEYS


@pytest.fixture
def sync_client(redis_url: str) -> Iterator[AgentClient]:
    with AgentClient.from_url(redis_url) as client:
        yield client


def put(raw: redis.Redis, ago: int, who: tuple[str, str, str], model: str, basis: str, **counts: int) -> None:
    """A ledger's fields of a day before today."""
    for kind, count in counts.items():
        field = json.dumps([*who, "fake", model, basis, kind])
        raw.hincrby(KEYS.ledger(day_number(today() - timedelta(days=ago))), field, count)


@pytest.fixture
def ledger(raw: redis.Redis) -> None:
    put(raw, 0, ("acme", "ann", ""), "m", "reported", turns=2, inputTokens=7, costNanoUsd=1_500_000_000)
    put(raw, 0, ("acme", "bob", ""), "m", "unknown", turns=3, cutTurns=1, outputTokens=5)
    put(raw, 1, ("acme", "ann", "x"), "n", "priced", turns=1, costNanoUsd=1)
    put(raw, 29, ("", "", ""), "m", "reported", turns=1, costNanoUsd=2)
    put(raw, 30, ("zoo", "", ""), "m", "reported", turns=1, costNanoUsd=4)
    raw.hset(KEYS.ledger(day_number(today())), "what is this", "7")


@pytest.mark.usefixtures("ledger")
def test_costs_are_summed_by_group_over_days(sync_client: AgentClient) -> None:
    assert sync_client.costs() == [
        CostRow(tenant="", model="m", turns=1, cost_nano_usd=2),
        CostRow(tenant="acme", model="m", turns=5, cut_turns=1, unknown_turns=3, input_tokens=7, output_tokens=5,
                cost_nano_usd=1_500_000_000),
        CostRow(tenant="acme", model="n", turns=1, cost_nano_usd=1, priced_nano_usd=1),
    ]  # fmt: skip
    assert [row.cost_nano_usd for row in sync_client.costs([], since="31d")] == [1_500_000_007]
    days = [(today() - timedelta(days=ago)).isoformat() for ago in (29, 1, 0)]
    assert [row.day for row in sync_client.costs("day")] == days
    assert [row.day for row in sync_client.costs("day", until=days[1])] == [
        (today() - timedelta(days=30)).isoformat(), *days[:2],
    ]  # fmt: skip
    assert sum(row.turns for row in sync_client.costs("user", tenant="acme", model="m")) == 5
    assert [row.turns for row in sync_client.costs("tenant", tenant="")] == [1]
    assert sync_client.costs("tenant", tenant="nobody") == []
    assert sync_client.costs(since=today() + timedelta(days=5)) == []
    assert len(sync_client.costs("day", since=date(1999, 1, 1))) == 4


@pytest.mark.parametrize(("option", "given"), [
    ("by", {"by": "tenant,age"}), ("since", {"since": "last week"}), ("until", {"until": "0d"}),
])  # fmt: skip
def test_what_cannot_be_asked_is_refused(sync_client: AgentClient, option: str, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption) as refused:
        sync_client.costs(**given)
    assert refused.value.option == option


@pytest.mark.usefixtures("ledger")
def test_the_command_line_shows_costs(redis_url: str) -> None:
    lines = run_cli("cost", "--by", "user", "--tenant", "acme", url=redis_url).stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["USER", "TURNS", "CUT", "IN", "OUT", "USD", "UNKNOWN"],
        ["ann", "3", "0", "7", "0", "1.5000"],
        ["bob", "3", "1", "0", "5", "?", "3", "turns"],
    ]
    table = list(csv.DictReader(io.StringIO(run_cli("cost", "--csv", "--since", "31d", url=redis_url).stdout)))
    assert sum(int(row["cost_nano_usd"]) for row in table) == 1_500_000_007
    rows = [json.loads(line) for line in run_cli("cost", "--by", "", "--json", url=redis_url).stdout.splitlines()]
    assert rows[0]["turns"] == 7
    assert "'by': Expected some of" in only_line(run_cli("cost", "--by", "age", url=redis_url).stderr)


def test_a_model_that_is_a_formula_is_a_text_in_csv(redis_url: str, raw: redis.Redis) -> None:
    put(raw, 0, ("", "", ""), "=HYPERLINK(1)", "reported", turns=1)
    assert "'=HYPERLINK(1)" in run_cli("cost", "--csv", url=redis_url).stdout


def test_prices_are_imported_from_litellms_json(redis_url: str, raw: redis.Redis, tmp_path: Path) -> None:
    raw.hset(KEYS.prices, "old", "1 1")
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({
        "sample_spec": {"input_cost_per_token": 0, "output_cost_per_token": 0},
        "gpt-5": {"input_cost_per_token": 1.25e-06, "output_cost_per_token": 1e-05, "mode": "chat"},
        "openai/gpt-5": {"input_cost_per_token": 9, "output_cost_per_token": 9},
        "gemini/flash": {"input_cost_per_token": 3.75e-08, "output_cost_per_token": 1.5e-07},
        "embed": {"input_cost_per_token": 1e-07},
    }))  # fmt: skip
    assert run_cli("prices", "import", str(file), url=redis_url).stdout == "3 prices imported\n"
    assert raw.hgetall(KEYS.prices) == {
        b"gpt-5": b"1250000000 10000000000", b"gemini/flash": b"37500000 150000000", b"flash": b"37500000 150000000",
    }  # fmt: skip
    assert "gpt-5  1.25  10\n" in run_cli("prices", "list", url=redis_url).stdout
    for wrong in ("[]", "{", "{}"):
        file.write_text(wrong)
        assert only_line(run_cli("prices", "import", str(file), url=redis_url).stderr)
    assert raw.hlen(KEYS.prices) == 3
