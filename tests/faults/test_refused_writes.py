"""What clients meet when Redis is away, full, or takes no writes; each error is one of agentrq's."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from agentrq import (
    AgentClient,
    AgentRQError,
    AsyncAgentClient,
    CommandRejected,
    RedisOutOfMemory,
    RedisRefused,
    RedisUnavailable,
    SessionNotFound,
)
from agentrq.client import asyncio_client, sync_client
from agentrq.client.owner_watch import OwnerWatch, check_absent
from agentrq.client.redis_requests import Batch, Context, Operation, run_script
from agentrq.client.subscription import Reader
from agentrq.wire import script_calls
from agentrq.wire.keys import Keys
from agentrq.wire.script_calls import ScriptCall
from tests.faults.restarts import Restartable
from tests.faults.waiting import a_lane
from tests.rq_checks import eventually

KEYS = Keys()
NOWHERE = "redis://:secret@127.0.0.1:1/0"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Restartable]:
    with Restartable(tmp_path) as server:
        yield server


@pytest.mark.parametrize("call", ["start", "state", "states", "stop", "remove", "prompt", "events", "wait"])
async def test_a_client_raises_its_own_error_while_redis_is_away(call: str) -> None:
    calls: dict[str, Any] = {
        "start": lambda client: client.start("demo", "hello"),
        "states": lambda client: client.states(),
        "state": lambda client: client.session("s").state(),
        "stop": lambda client: client.session("s").stop(),
        "remove": lambda client: client.session("s").remove(),
        "prompt": lambda client: client.session("s").prompt("more", wait=True),
        "events": lambda client: client.session("s").events(),
        "wait": lambda client: client.session("s").wait(),
    }

    def blocking() -> None:
        with AgentClient.from_url(NOWHERE) as client, pytest.raises(RedisUnavailable) as caught:
            list(calls[call](client))
        check(caught.value)

    def check(error: AgentRQError) -> None:
        assert "redis://:***@127.0.0.1:1/0 is not reachable" in str(error)
        assert "secret" not in str(error)
        assert isinstance(error, redis.ConnectionError)
        assert isinstance(error.__cause__, redis.ConnectionError)

    await asyncio.to_thread(blocking)
    async with AsyncAgentClient.from_url(NOWHERE) as client:
        with pytest.raises(RedisUnavailable) as caught:
            await (anext(calls[call](client)) if call == "events" else calls[call](client))
        check(caught.value)


async def test_a_full_redis_refuses_starts_and_lets_sessions_be_stopped_and_removed(server: Restartable) -> None:
    async with AsyncAgentClient.from_url(server.url) as client:
        stopped, removed = await client.start("demo", "hello"), await client.start("demo", "hello")
        with redis.Redis.from_url(server.url) as raw:
            raw.config_set("maxmemory", 1)
            for refused in (client.start("demo", "another"), stopped.prompt("more")):
                with pytest.raises(RedisOutOfMemory, match="has no memory left") as caught:
                    await refused
                assert isinstance(caught.value, redis.exceptions.OutOfMemoryError)
            await stopped.stop()
            assert (await stopped.state()).reason == "stopped"
            await removed.remove()
            await stopped.remove()
            assert await client.states() == []


async def test_a_redis_that_takes_no_writes_says_so(server: Restartable) -> None:
    async with AsyncAgentClient.from_url(server.url) as client:
        session = await client.start("demo", "hello")
        with redis.Redis.from_url(server.url) as raw:
            raw.config_set("min-replicas-to-write", 1)
        with pytest.raises(RedisRefused, match="takes no writes at present"):
            await session.prompt("more")
        assert (await session.state()).status == "queued"


def answered(operation: Operation[Any], answers: dict[str, Any]) -> list[str]:
    """Run an operation by these answers, named by command or script; answers the names of what it asked."""
    asked: list[str] = []
    answer: Any = None
    while True:
        try:
            request = operation.send(answer)
        except StopIteration:
            return asked
        name = request.script if isinstance(request, ScriptCall) else ""
        if isinstance(request, Batch):
            ((name, *_),) = request.commands
        asked.append(name)
        answer = answers[name]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(request, Batch):
            answer = [answer]


def test_a_reader_counts_only_the_time_in_which_redis_takes_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners renew their leases once writes are taken again; until then no reader calls them lost."""
    clock = itertools.count(0, 5)  # a check every 5 s, each reads the clock once or twice
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    unowned: dict[str, Any] = {
        "HMGET": [b"running", b"1", b"token", b"nonce", None, b"w1"],
        "GET": None,
        "EXISTS": 0,
        "check_writes": True,
        "end_session": "ok",
    }
    watch = OwnerWatch(Context(KEYS, "agentrq", recovery_timeout_s=12), "s")
    checks: list[str] = []
    for outcome in ["ok", "ok", "refused", "away", "ok", "ok", "ok", "ok"]:
        now = float(next(clock))
        answers = dict(unowned)
        if outcome == "refused":
            answers["check_writes"] = redis.ResponseError("NOREPLICAS Not enough good replicas to write.")
        if outcome == "away":
            answers["HMGET"] = redis.ConnectionError("gone")
        try:
            checks.append("end" if "end_session" in answered(watch.check(), answers) else outcome)
        except redis.RedisError:
            checks.append(outcome)
    assert checks == ["ok", "ok", "refused", "away", "ok", "ok", "ok", "end"]


def test_a_reader_asks_for_no_prompt() -> None:
    """Its checks every few seconds name the few fields that they need."""
    operation = OwnerWatch(Context(KEYS, "agentrq"), "s").check()
    request = operation.send(None)
    assert isinstance(request, Batch)
    assert request.commands == [("HMGET", KEYS.state("s"), "status", "epoch", "token", "nonce", "stop", "worker")]


async def test_a_redis_that_takes_no_writes_refuses_the_check_for_it(server: Restartable) -> None:
    """While its memory is full, owners renew their leases all the same: that refuses nothing here."""
    async with AsyncAgentClient.from_url(server.url) as client:
        check = script_calls.check_writes(KEYS, "s")
        with redis.Redis.from_url(server.url) as raw:
            raw.config_set("maxmemory", 1)
            assert await client.run(run_script(check))
            raw.config_set("maxmemory", 0)
            raw.config_set("min-replicas-to-write", 1)
            with pytest.raises(RedisRefused):
                await client.run(run_script(check))
            assert raw.keys() == []


async def test_a_quiet_reader_costs_nothing_however_large_the_prompt(
    client: AsyncAgentClient, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio_client, "CHECK_AGAIN_S", 0.01)
    session = await client.start("demo", "x" * 8_000_000, metadata={"note": "y" * 300_000})
    raw.hset(KEYS.state(session.id), mapping={"status": "running", "worker": "w", "token": "t"})
    raw.set(KEYS.worker("w"), "t")
    sent_before, checks, enough = raw.info("stats")["total_net_output_bytes"], 0, asyncio.Event()
    check = OwnerWatch.check

    def counted(watch: OwnerWatch) -> Operation[None]:
        nonlocal checks
        checks += 1
        if checks == 20:
            enough.set()
        return check(watch)

    monkeypatch.setattr(OwnerWatch, "check", counted)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(session.wait())
        await enough.wait()
        sent = raw.info("stats")["total_net_output_bytes"] - sent_before
        await client.session(session.id).stop()
        raw.delete(KEYS.worker("w"))
        await session.stop()
        await reading
    assert sent < 8_000_000 / 4


async def test_a_state_tells_that_its_worker_is_lost(client: AsyncAgentClient, raw: redis.Redis) -> None:
    for sid, token in (("owned", "a"), ("lost", "b"), ("handed-over", ""), ("ended", "b")):
        session = await client.start("demo", "hello", sid)
        if sid == "ended":
            await session.stop()
        raw.hset(KEYS.state(sid), mapping={"worker": "w1", "token": token})
    raw.set(KEYS.worker("w1"), "a")
    assert {state.session_id for state in await client.states() if state.worker_lost} == {"lost"}
    assert (await client.session("lost").state()).worker_lost
    assert not (await client.session("owned").state()).worker_lost
    raw.delete(KEYS.worker("w1"))
    assert (await client.session("owned").state()).worker_lost


@pytest.mark.parametrize("how", ["async", "sync"])
async def test_a_reader_awaits_a_session_that_its_owner_gives_back(
    client: AsyncAgentClient, redis_url: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Redis lost it; nobody removed it."""
    session = await client.start("demo", "hello", "s")
    kept: dict[str, Any] = {key: raw.dump(key) for key in (KEYS.state("s"), KEYS.events("s"))}
    seen: list[str] = []
    begun, missed = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def noted(context: Context, reader: Reader[Any]) -> Operation[None]:
        loop.call_soon_threadsafe(missed.set)
        return check_absent(context, reader)

    for module in (asyncio_client, sync_client):
        monkeypatch.setattr(module, "check_absent", noted)

    def follow() -> None:
        with AgentClient.from_url(redis_url) as other:
            for event in other.session("s").events():
                seen.append(event.cursor or "")
                loop.call_soon_threadsafe(begun.set)

    async def follow_async() -> None:
        async for event in session.events():
            seen.append(event.cursor or "")
            begun.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(follow) if how == "sync" else follow_async())
        await begun.wait()
        raw.delete(*kept)
        raw.publish(KEYS.status_channel("s"), "not JSON")  # has the reader read the stream
        await missed.wait()
        for key, value in kept.items():
            raw.restore(key, 0, value)
        await session.stop()
    assert seen == ["0-1", "1-1", "1-2"]


@pytest.mark.parametrize("after", ["nothing", "another start"])
async def test_a_reader_is_told_that_its_session_was_removed(
    client: AsyncAgentClient, raw: redis.Redis, after: str
) -> None:
    """At once, and it does not go on with another session by the same id."""
    session = await client.start("demo", "hello", "s")
    events = session.events()
    assert (await anext(events)).cursor == "0-1"
    raw.hset(KEYS.state("s"), "status", "done")
    await session.remove()
    if after != "nothing":
        await client.start("demo", "hello", "s")
    with pytest.raises(SessionNotFound):
        await anext(events)


async def test_an_answer_to_no_open_request_is_told(redis_url: str, client: AsyncAgentClient, raw: redis.Redis) -> None:
    """By the receipt of the session's owner, without being asked to wait for it; an open request's is only sent."""
    async with a_lane(redis_url) as (lane, _):
        raw.hset(KEYS.state("s"), "openRequests", '["r1","r2"]')
        session = client.session("s")
        assert await session.answer("r2", "allow", command_id="to an open one") == "to an open one"

        async def reject() -> None:
            def sent() -> list[Any]:
                inbox: Any = raw.xrange(KEYS.inbox("s"))
                return [entry for entry in inbox if b"nonesuch" in entry[1][b"command"]]

            entries = await eventually(sent, "the answer in the inbox")
            lane.add_receipt("to none", "answer", "rejected", "no such request is open", entries[0][0])
            await lane.flush()

        async with asyncio.TaskGroup() as group:
            group.create_task(reject())
            with pytest.raises(CommandRejected, match="no such request is open"):
                await session.answer("nonesuch", "allow", command_id="to none")


async def test_an_answer_that_nobody_can_judge_is_sent(client: AsyncAgentClient, raw: redis.Redis) -> None:
    """There is no owner, or one that does not say which requests are open."""
    session = await client.start("demo", "hello", "s")
    raw.hset(KEYS.state("s"), "openRequests", "[]")
    assert await session.answer("nonesuch", "allow", command_id="without an owner") == "without an owner"
    raw.hset(KEYS.state("s"), mapping={"worker": "w", "openRequests": "not JSON"})
    assert await session.answer("nonesuch", "allow", command_id="unreadable") == "unreadable"
    raw.hdel(KEYS.state("s"), "openRequests")
    assert await session.answer("nonesuch", "allow", command_id="of an older worker") == "of an older worker"


@pytest.mark.parametrize("timeout", [0, 0.01, -1])
async def test_a_session_without_an_owner_is_removed_in_no_time(client: AsyncAgentClient, timeout: float) -> None:
    session = await client.start("demo", "hello")
    await session.remove(timeout)
    assert await client.states() == []
