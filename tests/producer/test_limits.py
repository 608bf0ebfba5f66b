"""Limits of tenants against a plain model: ends, removals, ids used again, RQ's starts, several backends at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrq import AgentClient, InvalidOption, SessionExists, SessionNotFound, TenantFull
from agentrq.client import operations
from agentrq.client.limits import Limits
from agentrq.client.redis_requests import Batch, Context, Operation
from agentrq.script_runner import ScriptRunner
from agentrq.wire import script_calls, scripts
from agentrq.wire.commands import Options
from tests.producer.command_line import only_line, run_cli
from tests.producer.session_writer import KEYS, Writer

IDS = [f"s{number}" for number in range(8)]


@pytest.fixture
def sync_client(redis_url: str) -> Iterator[AgentClient]:
    with AgentClient.from_url(redis_url) as client:
        yield client


class Tenants:
    """Does one thing after another, and knows by the model what each start must meet."""

    def __init__(self, url: str, raw: redis.Redis, client: AgentClient) -> None:
        raw.flushall()
        self.url, self.raw, self.client = url, raw, client
        self.live: dict[str, tuple[str, str]] = {}
        """Session id → tenant and status."""
        self.ended: set[str] = set()
        client.set_limits("acme", sessions=3, queued=2)
        client.set_limits("*", sessions=2)

    def start(self, sid: str, tenant: str) -> None:
        mine = [status for owner, status in self.live.values() if owner == tenant]
        expected: type[Exception] | str | None = None
        if sid in self.live or sid in self.ended:
            expected = SessionExists
        elif len(mine) >= (3 if tenant == "acme" else 2):
            expected = "sessions"
        elif tenant == "acme" and mine.count("queued") >= 2:
            expected = "queued"
        met: type[Exception] | str | None = None
        try:
            self.client.start("fake", "Do it", sid, tenant=tenant)
        except TenantFull as full:
            met = full.limit
        except SessionExists:
            met = SessionExists
        assert met == expected
        if met is None:
            self.live[sid] = (tenant, "queued")
        elif met is not SessionExists:
            assert not self.raw.exists(KEYS.state(sid))

    def start_by_rq(self, sid: str, tenant: str) -> None:
        """A start that RQ brought, as a worker opens it: counted, never refused."""
        job = f"rq:job:{sid}"
        self.raw.delete(job)
        self.raw.hset(job, "data", "x")
        call = script_calls.open_session(
            KEYS, sid, "fake", "Do it", Options(tenant=tenant), f"{sid}{datetime.now(UTC)}", "agentrq", job_key=job
        )
        if ScriptRunner(self.raw).run(call) == "created":
            self.live[sid] = (tenant, "queued")
        else:
            assert sid in self.live or sid in self.ended

    def claim(self, sid: str, tenant: str) -> None:
        if self.live.get(sid, ("", ""))[1] == "queued":
            writer = Writer(self.url, sid)
            writer.epoch = int(self.raw.hget(KEYS.state(sid), "epoch") or 0)
            writer.claim()
            self.live[sid] = (self.live[sid][0], "starting")

    def end(self, sid: str, tenant: str) -> None:
        try:
            self.client.session(sid).stop()
        except SessionNotFound:
            return
        self.live.pop(sid, None)
        self.ended.add(sid)

    def end_by_an_older_worker(self, sid: str, tenant: str) -> None:
        """A worker that knows no tenants writes an end: the count is not told."""
        if sid in self.live:
            self.raw.hset(KEYS.state(sid), mapping={"status": "done"})
            del self.live[sid]
            self.ended.add(sid)

    def remove(self, sid: str, tenant: str) -> None:
        if sid in self.ended:
            self.client.session(sid).remove()
            self.ended.discard(sid)

    def expire(self, sid: str, tenant: str) -> None:
        if sid in self.ended:
            self.raw.delete(KEYS.state(sid))
            self.ended.discard(sid)


STEPS = ("start", "start", "start", "start_by_rq", "claim", "end", "end_by_an_older_worker", "remove", "expire")
SEQUENCES = st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from(IDS), st.sampled_from(["acme", "zoo"])))


@given(SEQUENCES)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_start_is_refused_exactly_where_its_tenant_is_full(
    redis_url: str, raw: Any, sync_client: AgentClient, steps: list[tuple[str, str, str]]
) -> None:
    tenants = Tenants(redis_url, raw, sync_client)
    for name, sid, tenant in steps:
        getattr(tenants, name)(sid, tenant)


Steps = list[tuple[str, str, str]]
FULL: Steps = [("start", "s0", "zoo"), ("start", "s1", "zoo")]
AGAIN: Steps = [("end_by_an_older_worker", "s0", "zoo"), ("expire", "s0", "zoo"), ("start", "s0", "acme")]
MUTANTS: dict[str, tuple[str, str, Steps]] = {
    "ended sessions count": (
        "or status == 'done' or status == 'error'", "",
        [*FULL, ("end_by_an_older_worker", "s0", "zoo"), ("start", "s2", "zoo")],
    ),
    "another tenant's session counts": ("or seen[2] ~= tenant then", "then", [*FULL, *AGAIN, ("start", "s2", "zoo")]),
    "one more is let in": ("if live >= sessions", "if live > sessions", [*FULL, ("start", "s2", "zoo")]),
    "queued ones are not counted": (
        "waiting >= queued", "false", [("start", sid, "acme") for sid in ("s0", "s1", "s2")],
    ),
    "starts of RQ are not counted": (
        "if tenant then count_start", "if tenant and not KEYS[6] then count_start",
        [("start_by_rq", "s0", "zoo"), ("start_by_rq", "s1", "zoo"), ("start", "s2", "zoo")],
    ),
    "the others' limits are not asked": ("named or others", "named", [*FULL, ("start", "s2", "zoo")]),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_model_finds_each_mutant(
    redis_url: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, mutant: str
) -> None:
    before, after, steps = MUTANTS[mutant]

    def play() -> None:
        with AgentClient.from_url(redis_url) as client:
            tenants = Tenants(redis_url, raw, client)
            for name, sid, tenant in steps:
                getattr(tenants, name)(sid, tenant)

    play()
    assert scripts.SOURCES["open_session"].count(before) == 1
    monkeypatch.setitem(scripts.SOURCES, "open_session", scripts.SOURCES["open_session"].replace(before, after))
    with pytest.raises(AssertionError):
        play()


def start_from_many_backends(url: str, count: int) -> int:
    """How many of ``count`` starts, each of a backend of its own and all at once, were accepted."""
    gate, accepted = threading.Barrier(count), list[str]()

    def start() -> None:
        with AgentClient.from_url(url) as client:
            client.limits()  # connected
            gate.wait(30)
            try:
                accepted.append(client.start("fake", "Do it", tenant="acme").id)
            except TenantFull:
                pass

    threads = [threading.Thread(target=start) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return len(accepted)


def test_backends_that_start_at_once_never_pass_a_limit(redis_url: str, sync_client: AgentClient) -> None:
    sync_client.set_limits("acme", sessions=3)
    assert start_from_many_backends(redis_url, 12) == 3


def test_a_limit_that_is_read_before_the_start_is_written_is_passed(
    redis_url: str, sync_client: AgentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant: read here, written there. The test above finds it."""
    sync_client.set_limits("acme", sessions=3)
    source = scripts.SOURCES["open_session"].replace("if passed then", "if false then")
    monkeypatch.setitem(scripts.SOURCES, "open_session", source)
    all_have_read, whole = threading.Barrier(12), operations.start

    def start(context: Context, *given: Any) -> Operation[str]:
        (count,) = yield Batch([("ZCARD", context.keys.tenant("acme"))])
        all_have_read.wait(30)
        if count >= 3:
            raise TenantFull("acme", "sessions")
        return (yield from whole(context, *given))

    monkeypatch.setattr(operations, "start", start)
    assert start_from_many_backends(redis_url, 12) > 3


def test_starts_of_a_minute_are_limited(sync_client: AgentClient, raw: redis.Redis) -> None:
    sync_client.set_limits("acme", starts_per_minute=2)
    for _ in range(2):
        sync_client.start("fake", "Do it", tenant="acme")
    with pytest.raises(TenantFull) as refused:
        sync_client.start("fake", "Do it", tenant="acme")
    assert refused.value.limit == "starts"
    starts = KEYS.tenant_starts("acme")
    assert raw.zcard(starts) == 2
    assert 0 < raw.pttl(starts) <= 60_000
    oldest: Any = raw.zrange(starts, 0, 0, withscores=True)
    raw.zincrby(starts, -60_001, oldest[0][0])
    sync_client.start("fake", "Do it", tenant="acme")
    sync_client.start("fake", "Do it", tenant="zoo")
    sync_client.start("fake", "Do it")


def test_a_repeated_start_counts_once(sync_client: AgentClient, raw: redis.Redis) -> None:
    sync_client.set_limits("acme", sessions=1, starts_per_minute=1)
    call = script_calls.open_session(KEYS, "a", "fake", "Do it", Options(tenant="acme"), "nonce", "agentrq")
    assert [ScriptRunner(raw).run(call) for _ in range(2)] == ["created", "created"]


@pytest.mark.parametrize("broken", ["[]", "no json", '{"sessions":"many"}', '{"queued":null}'])
def test_limits_that_cannot_be_read_limit_nothing(sync_client: AgentClient, raw: redis.Redis, broken: str) -> None:
    raw.hset(KEYS.limits, "acme", broken)
    sync_client.start("fake", "Do it", tenant="acme")


@pytest.mark.parametrize("given", [{"sessions": -1}, {"queued": True}, {"starts_per_minute": 1.5}, {"tenant": "a b"}])
def test_what_is_no_limit_is_refused(sync_client: AgentClient, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        sync_client.set_limits(**{"tenant": "acme"} | given)


def test_the_command_line_sets_and_shows_limits(redis_url: str, sync_client: AgentClient) -> None:
    assert (
        run_cli("limits", "set", "acme", "--sessions", "1", "--starts-per-minute", "9", url=redis_url).returncode == 0
    )
    assert run_cli("limits", "set", "*", "--queued", "5", url=redis_url).returncode == 0
    assert sync_client.limits() == {"*": Limits(queued=5), "acme": Limits(sessions=1, starts_per_minute=9)}
    assert run_cli("limits", "list", url=redis_url).stdout.splitlines() == [
        "*  queued 5", "acme  sessions 1  startsPerMinute 9",
    ]  # fmt: skip
    assert run_cli("start", "fake", "Do it", "--tenant", "acme", url=redis_url).returncode == 0
    refused = run_cli("start", "fake", "Do it", "--tenant", "acme", url=redis_url)
    assert (refused.returncode, only_line(refused.stderr)) == (
        5, "Tenant acme has as many sessions as it may: try again later",
    )  # fmt: skip
    assert run_cli("limits", "remove", "acme", url=redis_url).returncode == 0
    assert run_cli("start", "fake", "Do it", "--tenant", "acme", url=redis_url).returncode == 0
    assert run_cli("limits", "set", "acme", url=redis_url).returncode == 2
