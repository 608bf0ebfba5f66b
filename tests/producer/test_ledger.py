"""The ledger against a plain model of it: repeated calls, superseded writers, lost owners and ids that are used again.

The ledger, the sum of the feed and the model are the same, or a turn is paid twice or never.
"""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrq import AgentClient, FeedEntry, SessionExists, SessionNotFound
from agentrq.wire import owner_calls, script_calls, scripts
from agentrq.wire.feed import feed_members
from agentrq.wire.owner_calls import Run
from tests.producer.session_writer import KEYS, Writer

PAYERS: tuple[dict[str, str], ...] = ({}, {"tenant": "acme"}, {"tenant": "acme", "user": "ann", "project": "a/b"})
TURNS: tuple[dict[str, Any], ...] = (
    {"turn": "whole", "model": "m/1", "inputTokens": 10, "outputTokens": 3, "basis": "reported",
     "costNanoUsd": 7_000_001},
    {"turn": "cut", "model": "m/1", "inputTokens": 5, "outputTokens": 0, "basis": "priced", "costNanoUsd": 11},
    {"turn": "failed", "inputTokens": 0, "outputTokens": 0, "basis": "unknown"},
    {"turn": "whole", "model": "Zoë \"2\"", "inputTokens": 2**40, "outputTokens": 1, "basis": "reported",
     "costNanoUsd": 10**15},
    {"turn": "whole", "model": "dear", "inputTokens": 3_000_000, "outputTokens": 500_001, "basis": "unknown"},
)  # fmt: skip
PRICES: dict[Any, Any] = {"dear": "1250000000 10000000000"}
Counts = Counter[tuple[str, str, str, str, str, str, str]]


def settled(payer: dict[str, str], turn: dict[str, Any]) -> Counts:
    """What one turn adds, by the rules of docs/reference/costs.md."""
    basis, cost = turn["basis"], turn.get("costNanoUsd", 0)
    if turn.get("model") == "dear":
        basis, cost = "priced", (3_000_000 * 1250 + 500_001 * 10_000)
    who = [payer.get(name, "") for name in ("tenant", "user", "project")]
    key = (*who, "fake", turn.get("model", ""), basis)
    kinds = {"turns": 1, "cutTurns": turn["turn"] == "cut", "inputTokens": turn["inputTokens"],
             "outputTokens": turn["outputTokens"], "costNanoUsd": cost}  # fmt: skip
    return Counter({(*key, kind): int(count) for kind, count in kinds.items() if count})


class Ledger:
    """Does one thing after another to two session ids, and keeps the model."""

    def __init__(self, url: str, raw: redis.Redis) -> None:
        raw.flushall()
        raw.hset(KEYS.prices, mapping=PRICES)
        self.url, self.raw = url, raw
        self.client = AgentClient.from_url(url)
        self.expected: Counts = Counter()
        self.writers: dict[str, Writer] = {}
        self.old: list[Writer] = []
        self.payers: dict[str, dict[str, str]] = {}
        self.last: Callable[[], Any] = lambda: None

    def start(self, sid: str, number: int) -> None:
        payer = PAYERS[number % len(PAYERS)]
        try:
            self.client.start("fake", "Do it", sid, **payer)
        except SessionExists:
            return
        self.payers[sid] = payer
        writer = Writer(self.url, sid)
        writer.epoch = int(self.raw.hget(KEYS.state(sid), "epoch") or 0)
        self.writers[sid] = writer.claim()

    def turn(self, sid: str, number: int) -> None:
        """The owner of a session writes a turn's end."""
        if sid in self.writers:
            members = TURNS[number % len(TURNS)]
            self.last = self._write(self.writers[sid], members)
            assert self.last() == "ok"
            self.writers[sid].seq += 1
            self.expected += settled(self.payers[sid], members)

    def repeat(self, sid: str, number: int) -> None:
        """The reply was lost: the same call again."""
        self.last()

    def recover(self, sid: str, number: int) -> None:
        """Another worker takes the session over."""
        if sid in self.writers:
            self.old.append(copy.copy(self.writers[sid]))
            self.writers[sid].claim()

    def superseded(self, sid: str, number: int) -> None:
        """An owner that was frozen meanwhile writes a turn's end."""
        for writer in self.old:
            assert self._write(writer, TURNS[number % len(TURNS)])() != "ok"

    def stop(self, sid: str, number: int) -> None:
        """A session without a live owner is stopped, in a turn or between two."""
        if sid in self.writers and (number % 2):
            self.raw.hset(KEYS.state(sid), "turn", 1)
            model = self.raw.hget(KEYS.state(sid), "model")
            assert model is None
            cut = {"turn": "cut", "inputTokens": 0, "outputTokens": 0, "basis": "unknown"}
            self.expected += settled(self.payers[sid], cut)
        self._end(sid)

    def _end(self, sid: str) -> None:
        for _ in range(2):
            try:
                self.client.session(sid).stop()
            except SessionNotFound:
                return
        if sid in self.writers:
            self.old.append(self.writers.pop(sid))

    def remove(self, sid: str, number: int) -> None:
        """The id is free again; the ledger keeps what it has."""
        self._end(sid)
        try:
            self.client.session(sid).remove()
        except SessionNotFound:
            pass

    def _write(self, writer: Writer, members: dict[str, Any]) -> Callable[[], Any]:
        run = Run("m", writer.seq + 1, [json.dumps({"cursor": f"{writer.epoch}-{writer.seq + 1}"}).encode()],
                  feed=[feed_members("turn", **members)])  # fmt: skip
        channels = (KEYS.messages_channel(writer.sid), KEYS.status_channel(writer.sid))
        keys = script_calls.session_keys(KEYS, writer.sid)
        target = owner_calls.WriteTarget(writer.sid, writer.epoch, writer.fence, keys, *channels)
        writes = owner_calls.EventWrites(owner_calls.WriteLimits(100, 1 << 20, 60_000), 1_763_793_000_123)
        writes.add(target, {"turn": 0}, [run], quick=True)

        def call() -> str:
            answer: Any = writer._write_events(keys=writes.keys, args=writes.args)
            return writes.read(answer)[0].outcome

        return call

    def check(self) -> None:
        found: Counts = Counter()
        for key in self.raw.scan_iter(KEYS.ledger("*")):
            assert 0 < self.raw.ttl(key) <= 400 * 86400
            for field, count in self.raw.hgetall(key).items():
                found[tuple(json.loads(field))] += int(count)
        assert found == self.expected
        fed: Counts = Counter()
        for entry in self.client.feed(follow=False):
            assert isinstance(entry, FeedEntry)
            if entry.kind == "turn":
                payer = {name: value for name in ("tenant", "user", "project") if (value := getattr(entry, name))}
                turn = {"turn": entry.turn, "model": entry.model or "", "inputTokens": entry.input_tokens,
                        "outputTokens": entry.output_tokens, "basis": entry.basis,
                        "costNanoUsd": entry.cost_nano_usd or 0}  # fmt: skip
                fed += settled(payer, turn)
        assert fed == self.expected
        rows = self.client.costs("", since="2025-11-01")
        turns = sum(count for key, count in self.expected.items() if key[-1] == "turns")
        assert sum(row.turns for row in rows) == turns


STEPS = ("start", "turn", "repeat", "recover", "superseded", "stop", "remove")
OFTEN = (*STEPS, "turn", "start")


def play(ledger: Ledger, steps: list[tuple[str, str, int]]) -> None:
    for name, sid, number in steps:
        getattr(ledger, name)(sid, number)
    ledger.check()


@given(st.lists(st.tuples(st.sampled_from(OFTEN), st.sampled_from("ab"), st.integers(0, 9))))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_turn_is_settled_exactly_once(redis_url: str, raw: Any, steps: list[tuple[str, str, int]]) -> None:
    ledger = Ledger(redis_url, raw)
    with ledger.client:
        play(ledger, steps)


MUTANTS = {
    "a repeated call settles again": ("write_events", "kind == 'f' and from == last + 1", "kind == 'f'"),
    "a stop settles what is settled": ("end_session", "if seen[3] == '1' then", "if true then"),
    "a stop settles nothing": ("end_session", "if seen[3] == '1' then", "if false then"),
    "the payer is left out": ("write_events", "payer[2] or ''", "''"),
    "the imported price is not asked": ("write_events", "if not input then return members end", "return members"),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_model_finds_each_mutant(
    redis_url: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, mutant: str
) -> None:
    script, before, after = MUTANTS[mutant]
    assert before in scripts.SOURCES[script]
    if after == "return members":
        after = "do return members end"
    monkeypatch.setitem(scripts.SOURCES, script, scripts.SOURCES[script].replace(before, after))
    chance = random.Random(1)
    found = False
    for _ in range(20):
        ledger = Ledger(redis_url, raw)
        steps = [(chance.choice(OFTEN), chance.choice("ab"), chance.randrange(10)) for _ in range(30)]
        with ledger.client:
            try:
                play(ledger, steps)
            except AssertionError:
                found = True
                break
    assert found, f"nothing shows that {mutant}"
