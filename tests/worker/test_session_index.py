"""The indexes of sessions: lists by them find what lists without find; they are kept true, and leak nothing."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrq import AgentClient, State
from agentrq.client.session_filter import SessionFilter, make_filter
from agentrq.connection import connect_async
from agentrq.script_runner import ScriptRunner
from agentrq.wire import script_calls
from agentrq.wire.index_names import LONGEST_PAIR, index_name
from agentrq.wire.keys import Keys
from agentrq_worker.ownership import session_index
from agentrq_worker.ownership.ownership import Ownership, SessionSnapshot
from agentrq_worker.ownership.recovery_scanner import RecoveryScanner
from agentrq_worker.settings import Settings

KEYS = Keys()
SETTINGS = Settings(name="w")
MANY = 40


class ClosedJobs:
    """RQ's side, where every job is closed."""

    async def enqueue(self, job_id: str, look: SessionSnapshot) -> bool:
        raise AssertionError("nobody is lost")

    async def conclude(self, job_id: str, look: SessionSnapshot) -> None:
        pass


@pytest.fixture
def client(redis_url: str) -> Iterator[AgentClient]:
    with AgentClient.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def scanner(redis_url: str) -> AsyncIterator[RecoveryScanner]:
    async with connect_async(redis_url) as connection:
        yield RecoveryScanner(connection, Ownership(connection, connection, SETTINGS), SETTINGS, ClosedJobs())


def index_keys(raw: Any) -> set[str]:
    """All keys of indexes that there are."""
    return {key.decode() for key in raw.scan_iter("agentrq:index*", count=1000)}


def put(raw: Any, session_id: str, **fields: Any) -> None:
    """Write fields of a state, as its owner does."""
    raw.hset(KEYS.state(session_id), mapping=fields)


def end(raw: Any, session_id: str, status: str = "done", worker: str = "w1") -> None:
    """End a session as a worker of an older version does: no index knows it."""
    put(raw, session_id, status=status, worker=worker, endedAt=5)


def unindex(raw: Any, session_id: str) -> None:
    """Leave a session as a client of an older version starts it."""
    named: Any = raw.hget(KEYS.indexed, session_id)
    for name in named.decode().split(" ")[1:]:
        raw.zrem(KEYS.index(name), session_id)
    raw.hdel(KEYS.indexed, session_id)
    raw.zrem(KEYS.live, session_id)


def listed(client: AgentClient, limit: int = 7, **wanted: Any) -> list[str]:
    """The ids of all pages of a list."""
    found: list[str] = []
    before = None
    while True:
        page = client.sessions(limit=limit, before=before, **wanted)
        found += [state.id for state in page]
        before = page.next
        if before is None:
            return found


def admitted(states: list[State], wanted: dict[str, Any]) -> list[str]:
    """What a list of these states is to have."""
    given: dict[str, Any] = dict.fromkeys(("status", "provider", "worker", "metadata", "tenant", "text")) | wanted
    chosen: SessionFilter = make_filter(**given)
    return [state.id for state in reversed(states) if chosen.admits(state)]


ODD = ["", "a", "b=c", "=", "é" * 60, "x" * 300, "{}", "a b\n", '"\\', "漢\x7f", "zoo", "metadata", "' .. '", "\u2028"]
FILTERS: list[dict[str, Any]] = [
    *({"provider": provider} for provider in ("demo", "fake", "nobody", "odd name {}")),
    *({"status": status} for status in ("queued", "done", "error", ("done", "running"), ("error", "done"))),
    *({"worker": worker} for worker in ("w1", "w2", "nobody")),
    {"status": "done", "provider": "demo"},
    {"worker": "w1", "status": "error"},
    {"tenant": "zoo"},
    {"tenant": "zoo", "status": "done"},
    {"text": "zoo", "provider": "demo"},
    *({"metadata": {key: value}} for key, value in itertools.product(ODD[:6], ODD)),
    {"metadata": {"a": "b=c", "x" * 300: "a"}},
]


async def test_lists_by_index_have_what_lists_without_have(
    client: AgentClient, scanner: RecoveryScanner, raw: Any
) -> None:
    """Sessions of both versions, living, just ended and long ended, with metadata of every kind."""
    for number in range(60):
        sid = f"s{number:02}"
        metadata = {ODD[number % 6]: ODD[number % len(ODD)], "tenant": ODD[number % 3], **dict.fromkeys(ODD[:2], "zoo")}
        if number % 7 == 0:
            metadata |= {f"k{more}": ODD[more % len(ODD)] for more in range(30)}
        client.start(("demo", "fake", "odd name {}")[number % 3], "Do it", sid, metadata=metadata)
        if number % 2:
            unindex(raw, sid)  # an older client started it
        if number % 3:
            end(raw, sid, ("done", "error")[number % 2], ("w1", "w2")[number % 5 % 2])
        if number in (20, 45):
            await scanner.scan_once()
    states = client.states()
    for wanted in FILTERS:
        assert listed(client, **wanted) == admitted(states, wanted), wanted
    await scanner.scan_once()
    for wanted in FILTERS:
        assert listed(client, **wanted) == admitted(states, wanted), wanted
    assert raw.zcard(KEYS.live) == 1 + sum(not state.ended for state in states)


async def test_a_settled_sessions_state_keeps_no_second_copy_of_its_start(
    client: AgentClient, scanner: RecoveryScanner, raw: Any
) -> None:
    """RQ's job has prompt and options as well; a session that may be resumed needs them."""
    for sid in ("living", "ended"):
        client.start("demo", "p" * 100_000, sid, model="fable")
    end(raw, "ended")
    await scanner.scan_once()
    assert raw.hmget(KEYS.state("ended"), "prompt", "options", "model") == [None, None, b"fable"]
    assert raw.hstrlen(KEYS.state("living"), "prompt") == 100_000
    assert client.session("ended").state().ended


def test_names_are_the_same_in_lua_and_in_python(client: AgentClient, raw: Any) -> None:
    for number, value in enumerate(
        [*ODD, "y" * LONGEST_PAIR, "k" * 90, "k" * 91, "k" * 92, "a.b_c@d+e/f=g-h", "a:b", "%"]
    ):
        client.start(value or "demo", "Do it", f"s{number}", metadata={"k": value})
        names = script_calls.text(raw.hget(KEYS.indexed, f"s{number}")).split(" ")[1:]
        assert index_name("provider", value or "demo") in names
        expected = "metadata" if len(value.encode()) >= LONGEST_PAIR else index_name("metadata", f"k={value}")
        assert expected in names
        assert all(raw.zscore(KEYS.index(name), f"s{number}") is not None for name in names)
        assert len(names) == 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: json.dumps({"k": text}).encode()))
def test_metadata_of_any_bytes_breaks_no_index(raw: Any, metadata: bytes) -> None:
    raw.hset(KEYS.state("s"), mapping={"status": "queued", "provider": b"\xff", "createdAt": 5, "metadata": metadata})
    ScriptRunner(raw).run(script_calls.index_sessions(KEYS, ["s"]))
    assert raw.zscore(KEYS.live, "s") == 5
    for name in raw.hget(KEYS.indexed, "s").split(b" ")[1:]:
        assert raw.zscore(b"agentrq:index:" + name, "s") == 5
    raw.delete(KEYS.state("s"))
    ScriptRunner(raw).run(script_calls.index_sessions(KEYS, ["s"]))
    assert index_keys(raw) == set()
    assert raw.zscore(KEYS.live, "s") is None


async def test_an_id_that_is_used_again_is_found_by_its_new_metadata_alone(
    client: AgentClient, scanner: RecoveryScanner, raw: Any
) -> None:
    client.start("demo", "Do it", "s", metadata={"a": "1", "b": "2"})
    end(raw, "s", "error")
    await scanner.scan_once()
    client.start("demo", "Do it", "newer")
    raw.delete(KEYS.state("s"))  # as time does
    client.start("fake", "Do it", "s", metadata={"a": "1"})
    assert raw.zrange(KEYS.index("metadata:a=1"), 0, -1) == [b"s"]
    assert raw.zscore(KEYS.index("metadata:a=1"), "s") == raw.zscore(KEYS.sessions, "s")
    assert index_keys(raw) == {
        "agentrq:index", *map(KEYS.index, ("provider:demo", "provider:fake", "metadata:a=1"))
    }  # fmt: skip
    assert listed(client, metadata={"a": "1"}) == ["s"]
    assert listed(client, provider="demo") == ["newer"]
    assert listed(client, status="error") == []


async def test_a_removed_session_leaves_every_index(client: AgentClient, scanner: RecoveryScanner, raw: Any) -> None:
    for number in range(3):
        client.start("demo", "Do it", f"s{number}", metadata={"n": str(number)})
        end(raw, f"s{number}")
    client.session("s0").remove()
    await scanner.scan_once()
    client.session("s1").remove()
    raw.delete(KEYS.state("s2"))
    raw.zrem(KEYS.sessions, "s2")  # as an older client removes it
    raw.hset(KEYS.indexed, "s2", "1 " + " ".join(raw.hget(KEYS.indexed, "s2").decode().split(" ")[1:]))
    await scanner._index.check_some()
    assert index_keys(raw) == set()
    assert raw.zrange(KEYS.live, 0, -1) == [b""]


async def test_values_that_no_session_has_any_more_leave_no_key(
    client: AgentClient, scanner: RecoveryScanner, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 2000
    with raw.pipeline(transaction=False) as pipeline:
        for number in range(count):
            state = {
                "status": "done",
                "provider": "demo",
                "createdAt": number,
                "metadata": json.dumps({"n": str(number)}),
            }
            pipeline.hset(KEYS.state(f"s{number}"), mapping=state)
            pipeline.zadd(KEYS.sessions, {f"s{number}": number})
        pipeline.execute()
    await scanner.scan_once()
    assert len(index_keys(raw)) == count + 3
    assert raw.zrange(KEYS.live, 0, -1) == [b""]
    raw.delete(*(KEYS.state(f"s{number}") for number in range(count)))  # as time does
    monkeypatch.setattr(session_index, "CHECKED", 500)
    rounds = itertools.count()
    while raw.zcard(KEYS.sessions):
        assert next(rounds) < 10
        await scanner.scan_once()
    assert index_keys(raw) == set()


@pytest.mark.parametrize("lost", ["live", "index", "names", "all"])
async def test_an_index_that_redis_lost_is_made_again(
    client: AgentClient, scanner: RecoveryScanner, raw: Any, lost: str
) -> None:
    for number in range(MANY):
        client.start("demo", "Do it", f"s{number}", metadata={"n": str(number % 3)})
        if number % 2:
            end(raw, f"s{number}")
    await scanner.scan_once()
    keys = {"live": {KEYS.live}, "index": {KEYS.indexed}, "names": index_keys(raw) - {KEYS.indexed}}
    keys["all"] = set().union(*keys.values())
    raw.delete(*keys[lost])
    if lost in ("live", "all"):
        assert len(listed(client, status="queued")) == MANY // 2  # by whoever misses it first
    await scanner.scan_once()
    await scanner.scan_once()
    states = client.states()
    wanted: dict[str, Any]
    for wanted in ({"provider": "demo"}, {"status": "done"}, {"metadata": {"n": "1"}}, {"worker": "w1"}):
        assert listed(client, **wanted) == admitted(states, wanted)
    assert raw.hlen(KEYS.indexed) == MANY


async def test_sessions_of_one_millisecond_are_all_indexed(
    client: AgentClient, scanner: RecoveryScanner, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_index, "PAGE", 5)
    for number in range(23):
        state = {"status": "running", "provider": "demo", "createdAt": 7 if number < 20 else 8, "epoch": 1}
        raw.hset(KEYS.state(f"s{number}"), mapping=state)
        raw.zadd(KEYS.sessions, {f"s{number}": 7 if number < 20 else 8})
    await scanner._index.index_new_sessions()
    assert raw.zcard(KEYS.live) == 24
    monkeypatch.undo()
    raw.hset(KEYS.state("late"), mapping={"status": "running", "provider": "demo", "createdAt": 8, "epoch": 1})
    raw.zadd(KEYS.sessions, {"late": 8})
    await scanner._index.index_new_sessions()
    assert raw.zscore(KEYS.live, "late") == 8


async def test_a_start_in_the_future_hides_no_session(client: AgentClient, scanner: RecoveryScanner, raw: Any) -> None:
    raw.zadd(KEYS.sessions, {"later": 9e15, "last": float("inf")})
    await scanner.scan_once()
    client.start("demo", "Do it", "s")
    raw.delete(KEYS.live, *index_keys(raw))
    await scanner.scan_once()
    assert listed(client, provider="demo") == ["s"]


def commands(raw: Any) -> dict[str, int]:
    """How often Redis ran which command since it was asked to count anew."""
    stats: Any = raw.info("commandstats")
    return {name: stat["calls"] for name, stat in stats.items() if "config" not in name and "info" not in name}


async def test_ended_sessions_cost_neither_a_page_nor_a_round(
    client: AgentClient, scanner: RecoveryScanner, raw: Any
) -> None:
    """Redis runs as many commands with 3 000 ended sessions kept as with 1 000."""
    pages: list[list[dict[str, int]]] = []
    filters: list[dict[str, Any]] = [
        {}, {"status": "error"}, {"provider": "demo"}, {"tenant": "acme"}, {"worker": "w1"}
    ]  # fmt: skip
    for most in (1000, 3000):
        with raw.pipeline(transaction=False) as pipeline:
            for number in range(most):
                state = {
                    "status": "done" if number % 50 else "error", "provider": "demo", "createdAt": 1000 + number,
                    "metadata": '{"tenant":"acme"}', "worker": "w1", "epoch": 1, "cursor": "1-1",
                }  # fmt: skip
                pipeline.hset(KEYS.state(f"s{number}"), mapping=state)
                pipeline.zadd(KEYS.sessions, {f"s{number}": 1000 + number})
            pipeline.execute()
        for _ in range(3):
            await scanner.scan_once()
            client.states()
        seen = []
        wanted: dict[str, Any]
        for wanted in filters:
            raw.config_resetstat()
            assert len(client.sessions(limit=5, **wanted)) == 5
            seen.append(commands(raw))
        pages.append(seen)
        raw.config_resetstat()
        await scanner.scan_once()
        assert sum(commands(raw).values()) < 40 * session_index.CHECKED
    assert pages[0] == pages[1]
    assert all(seen["cmdstat_hmget"] <= 8 for seen in pages[0])
