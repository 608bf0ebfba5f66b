"""What is kept of a session and for how long: caps to the event and the byte, expiry, removal, and no key left over."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rq.registry import FinishedJobRegistry

from agentrq import AsyncAgentClient, RedisRefused, SessionExists, SessionNotFound
from agentrq.client import operations
from agentrq.client.redis_requests import Operation
from agentrq.rq_commands import RESULT_TTL_S
from agentrq.wire.ids import Cursor
from agentrq.wire.keys import Keys
from agentrq.wire.messages import Text
from agentrq.wire.status import Reason, Status
from agentrq_worker.settings import Settings
from tests.faults import waiting
from tests.faults.waiting import a_lane
from tests.faults.writing import claimed, publishing
from tests.workers import Worker

KEYS = Keys()
OF_A_SESSION = [KEYS.state("s"), KEYS.events("s"), KEYS.inbox("s"), KEYS.commands("s")]


def kept(raw: redis.Redis) -> tuple[int, int, str | None, str]:
    """Events, their bytes, what is said to be trimmed, and the oldest kept, of the session ``s``."""
    entries: Any = raw.xrange(KEYS.events("s"))
    size = sum(len(value) for _, fields in entries for value in fields.values())
    state: Any = raw.hgetall(KEYS.state("s"))
    assert int(state[b"streamBytes"]) == size
    trimmed = state.get(b"trimmedThrough")
    return len(entries), size, trimmed.decode() if trimmed else None, entries[0][0].decode()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    most=st.integers(1, 40),
    most_bytes=st.integers(1, 8000),
    sizes=st.lists(st.lists(st.integers(0, 3000), max_size=12), max_size=8),
)
def test_the_limits_of_kept_events_are_exact(
    raw: redis.Redis, redis_url: str, most: int, most_bytes: int, sizes: list[list[int]]
) -> None:
    """As many of the newest events as fit into both caps, and always the last; told to the cursor."""

    async def run() -> None:
        raw.flushall()
        caps = Settings(name="w", max_events=most, max_event_bytes=most_bytes)
        async with a_lane(redis_url, settings=caps) as (lane, _):
            for burst in sizes:
                for size in burst:
                    lane.add_message("text", Text("x" * size))
                await lane.flush()
                if burst:
                    check(last=f"1-{lane.written}")
            for number in range(3):
                raw.xadd(KEYS.inbox("s"), {"command": f'{{"commandId":"c{number}","command":"prompt","timestamp":1}}'})
            lane.add_end(Status.DONE, Reason.COMPLETED, None)
            await lane.flush()
            check(last=f"1-{lane.written + 3}")  # the end, behind receipts for what waited

    def check(last: str) -> None:
        count, size, trimmed, oldest = kept(raw)
        assert count <= most
        assert size <= most_bytes or count == 1
        entries: Any = raw.xrevrange(KEYS.events("s"), count=1)
        assert entries[0][0].decode() == last
        if trimmed is None:
            assert oldest == "0-1"
        else:
            at, first = Cursor.parse(trimmed), Cursor.parse(oldest)
            assert first in {(at.epoch, at.seq + 1), (at.epoch + 1, 1)}

    asyncio.run(run())


async def test_a_claim_and_a_stop_keep_within_the_caps_too(redis_url: str, raw: redis.Redis) -> None:
    caps = Settings(name="w", max_events=5)
    async with AsyncAgentClient.from_url(redis_url) as client:
        async with a_lane(redis_url, settings=caps) as (lane, _):
            for number in range(10):
                lane.add_message("text", Text(str(number)))
            await lane.flush()
        async with publishing(redis_url, Settings(name="x", max_events=5)) as (publisher, ownership):
            await claimed(publisher, ownership, "s")
            assert kept(raw)[:1] + kept(raw)[2:] == (5, "1-8", "1-9")
        for _ in range(4):
            await client.session("s").prompt("more")
        await client.session("s").stop()
        assert kept(raw)[:1] + kept(raw)[2:] == (5, "3-1", "3-2")
        assert (await client.session("s").state()).cursor == "3-6"


@pytest.mark.parametrize("how", ["its owner", "a stop"])
async def test_an_ended_session_expires_whole(redis_url: str, raw: redis.Redis, how: str) -> None:
    caps = Settings(name="w", retention_s=3600)
    async with a_lane(redis_url, settings=caps) as (lane, _), AsyncAgentClient.from_url(redis_url) as client:
        session = client.session("s")
        for _ in range(3):
            await session.prompt("more")
        assert [raw.ttl(key) for key in OF_A_SESSION] == [-1, -1, -1, -1]
        if how == "a stop":
            client.context = client.context._replace(retention_s=3600)
            await session.stop()
        else:
            lane.add_end(Status.DONE, Reason.COMPLETED, None)
            await lane.flush()
    left = [raw.ttl(key) for key in OF_A_SESSION]
    assert all(3590 <= ttl <= 3600 for ttl in (left[0], left[1], left[3]))
    assert left[2] == -2


async def test_remove_leaves_nothing(redis_url: str, raw: redis.Redis) -> None:
    async with AsyncAgentClient.from_url(redis_url) as client:
        before = set(raw.keys())
        session = await client.start("demo", "hello", "s")
        await session.prompt("more")
        await session.remove()
        assert set(raw.keys()) - before == {
            b"rq:queues",
            b"agentrq:removed",
            b"agentrq:epochs",
            b"agentrq:feed",
        }
        assert not [name for name in raw.zrange("agentrq:removed", 0, -1) if name == b"s"]  # a nonce, no more
        with pytest.raises(SessionNotFound):
            await session.state()
        with pytest.raises(SessionNotFound):
            await session.remove()
        await client.start("demo", "hello", "s")  # the id is free again
        with pytest.raises(SessionExists):
            await client.start("demo", "hello", "s")


async def _one_beside_another(client: AsyncAgentClient, first: Operation[Any], at: int, second: Operation[Any]) -> bool:
    """Run an operation, and a second one whole after so many of its steps; False where it had no more than those."""
    answer, taken = None, 0
    with contextlib.suppress(SessionExists):
        while True:
            if taken == at:
                with contextlib.suppress(SessionExists):
                    await client.run(second)
            try:
                request = first.send(answer)
            except StopIteration:
                return taken > at
            answer, taken = await client._perform(request), taken + 1
    return taken > at


@pytest.mark.parametrize("first", ["remove", "start"])
async def test_an_id_is_used_again_while_it_is_removed(redis_url: str, raw: redis.Redis, first: str) -> None:
    """Whatever the order of their steps: a session that exists is in the index and has its job."""
    async with AsyncAgentClient.from_url(redis_url) as client:
        moment, more = 0, True
        while more:
            raw.flushall()
            await (await client.start("demo", "hello", "s")).stop()
            remove = operations.remove(client.context, "s", 1.0)
            start = operations.start(client.context, "demo", "hello", "s", {})
            pair = (remove, start) if first == "remove" else (start, remove)
            more = await _one_beside_another(client, pair[0], moment, pair[1])
            if raw.hget(KEYS.state("s"), "status") == b"queued":
                assert raw.zscore(KEYS.sessions, "s"), f"not in the index, after {moment} steps"
                assert raw.hget("rq:job:s", "status") == b"queued", f"no job, after {moment} steps"
                assert raw.lrange("rq:queue:agentrq", 0, -1) == [b"s"]
            moment += 1
        assert moment == (3 if first == "remove" else 2)  # a removal reads which session it is, then both are one step


async def test_what_redis_refuses_can_be_tried_again(redis_url: str, raw: redis.Redis) -> None:
    """A script does not take back what it did before it failed."""
    async with AsyncAgentClient.from_url(redis_url) as client:
        raw.set(KEYS.sessions, "of another kind")
        with pytest.raises(RedisRefused, match="WRONGTYPE"):
            await client.start("demo", "hello", "s")
        assert not raw.exists(*OF_A_SESSION)
        raw.delete(KEYS.sessions)
        session = await client.start("demo", "hello", "s")
        await session.stop()
        raw.set("rq:failed:agentrq", "of another kind")
        with pytest.raises(RedisRefused, match="WRONGTYPE"):
            await session.remove()
        assert (await session.state()).ended
        raw.delete("rq:failed:agentrq")
        await session.remove()
        assert not raw.exists(*OF_A_SESSION, KEYS.sessions, "rq:job:s")


async def test_a_claim_is_of_the_session_that_was_seen(redis_url: str, raw: redis.Redis) -> None:
    """Not of another by the same id, which looks the same to the epoch and the token."""
    async with AsyncAgentClient.from_url(redis_url) as client, publishing(redis_url, waiting.SETTINGS) as (_, owner):
        session = await client.start("demo", "hello", "s")
        seen = await owner.fetch_session("s")
        await session.stop()
        await session.remove()
        await client.start("demo", "another", "s")
        again = await owner.fetch_session("s")
        assert seen is not None
        assert again is not None
        assert await owner.claim_session(seen) is None
        claim = await owner.claim_session(again)
        assert claim is not None
        assert claim.claimed.prompt == "another"


async def test_a_forgotten_session_leaves_the_index(redis_url: str, raw: redis.Redis) -> None:
    async with AsyncAgentClient.from_url(redis_url) as client:
        await client.start("demo", "hello", "s")
        raw.zadd(KEYS.sessions, {"s": 1})
        raw.delete(*OF_A_SESSION)
        assert (await client.sessions()).sessions == []
        assert raw.zcard(KEYS.sessions) == 0


def forever(raw: redis.Redis) -> Counter[str]:
    """The keys that never expire, by their kind: a session's id taken out."""
    found: Counter[str] = Counter()
    for key in raw.scan_iter(count=1000):
        if raw.ttl(key) == -1:
            found[
                ":".join(part for part in key.decode().split(":") if "{" not in part and not part.startswith("s-"))
            ] += 1
    return found


async def _leak(url: str, sessions: int) -> tuple[Counter[str], int, int]:
    """Start, claim, write and end so many sessions; answers keys without an end, all keys, and server memory."""
    retention = Settings(name="w", retention_s=3600)
    async with AsyncAgentClient.from_url(url) as client, publishing(url, retention) as (publisher, owner):
        gate = asyncio.Semaphore(50)

        async def one(number: int) -> None:
            async with gate:
                session = await client.start("demo", "hello", f"s-{number}")
                if number % 10 == 0:  # stopped while queued
                    await session.stop()
                    return
                lane = await claimed(publisher, owner, session.id)
                await session.prompt("more")
                lane.add_message("text", Text("x" * 100))
                lane.add_end(Status.DONE, Reason.COMPLETED, None)
                await lane.flush()
                lane.close()

        async with asyncio.TaskGroup() as group:
            for number in range(sessions):
                group.create_task(one(number))
        assert len(owner.inboxes._inboxes) == 0
        await waiting.true(lambda: not publisher._dirty)
        assert publisher.shares.memory == publisher.shares.disk == 0
    with redis.Redis.from_url(url) as raw:
        return forever(raw), raw.dbsize(), int(raw.info("memory")["used_memory"])


async def _no_leak(url: str, sessions: int) -> None:
    """Whatever the number of sessions: all that has no end is the same few keys, and RQ's jobs, which a worker ends."""
    with redis.Redis.from_url(url) as raw:
        await _leak(url, 20)  # what the server needs once: scripts, tables
        raw.flushall()
        empty = int(raw.info("memory")["used_memory"])
        lasting, keys, memory = await _leak(url, sessions)
        jobs = lasting.pop("rq:job", 0)
        assert jobs == sessions - sessions // 10  # queued here for ever, as no worker dequeues them in this test
        ours = {"agentrq:sessions", "agentrq:live", "agentrq:index", "agentrq:index:provider:demo", "agentrq:feed"}
        assert set(lasting) <= {*ours, "rq:queues", "rq:queue:agentrq", "rq:canceled:agentrq"}
        assert set(lasting.values()) == {1}
        print(f"{sessions} sessions: {keys} keys, {(memory - empty) / sessions:.0f} bytes of server memory each")
        # Time passes: what expires is made to.
        for key in raw.scan_iter("agentrq:{*", count=1000):
            assert raw.ttl(key) > 0, key
            raw.delete(key)
        for key in raw.scan_iter("rq:*:s-*", count=1000):
            raw.delete(key)
        assert raw.ttl(KEYS.epochs) > 0
        raw.delete("rq:queue:agentrq", "rq:canceled:agentrq", KEYS.epochs, KEYS.feed)
        raw.zadd(KEYS.sessions, {member: 1 for member, _ in raw.zscan_iter(KEYS.sessions)})
        async with AsyncAgentClient.from_url(url) as client:
            assert (await client.sessions()).sessions == []
        assert {key.decode() for key in raw.scan_iter()} <= {"rq:queues", "agentrq:epochs"}
        raw.memory_purge()
        # The server's own tables shrink in its own time.
        await waiting.true(lambda: int(raw.info("memory")["used_memory"]) - empty < 200_000)


async def test_nothing_leaks_over_300_sessions(redis_url: str) -> None:
    await _no_leak(redis_url, 300)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_nothing_leaks_over_10_000_sessions(redis_url: str) -> None:
    await _no_leak(redis_url, 10_000)


async def test_what_a_worker_ends_rq_forgets_too(
    redis_url: str, client: AsyncAgentClient, start_worker: Any, raw: redis.Redis
) -> None:
    """Every key of ended sessions has a time to live, RQ's too; registries name only jobs that expire from them."""
    worker: Worker = start_worker("--retention-s", "3600")
    sessions = [await client.start("demo", prompt) for prompt in ("/echo done", "/crash 3", "/sleep 60")]
    for session in sessions:
        state = await session.state()
        async for event in session.events():
            if getattr(event, "status", "") in ("idle", "running"):
                break
    for session in sessions:
        await session.stop()
        state = await session.wait(30)
        assert state.ended
    assert worker.terminate() == 0
    ids = {session.id for session in sessions}
    for key in raw.scan_iter():
        name = key.decode()
        if any(sid in name for sid in ids):
            assert 0 < raw.ttl(key) <= max(3600, RESULT_TTL_S), name
    for registry in ("rq:wip:agentrq", "rq:deferred:agentrq", "rq:scheduled:agentrq"):
        assert raw.zcard(registry) == 0
    for registry in ("rq:finished:agentrq", "rq:failed:agentrq"):
        scores: Any = raw.zrange(registry, 0, -1, withscores=True)
        assert all(expires > 0 for _, expires in scores)
    assert FinishedJobRegistry("agentrq", connection=raw).count >= 1
