"""Followers of many sessions: each event once and in order, whatever befalls a session, the network or the consumer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis

from agentrq import (
    AgentClient,
    AgentRQError,
    AsyncAgentClient,
    CursorReset,
    InvalidSessionId,
    RawEvent,
    RedisUnavailable,
    SessionDelivered,
    SessionGone,
    SessionUnreadable,
)
from agentrq.client import followed_sessions, owner_watch
from agentrq.client.async_follower import AsyncFollower
from agentrq.client.follow_items import Cursors
from agentrq.errors import RedisRefused
from tests.faults import waiting
from tests.faults.proxy import Plan, Proxy
from tests.polling import wait_until
from tests.producer.session_writer import KEYS, Writer


class Heard:
    """What a consumer got of each session: cursors, and notices as they are."""

    def __init__(self) -> None:
        self.items: dict[str, list[Any]] = defaultdict(list)

    def add(self, session_id: str, item: Any) -> None:
        self.items[session_id].append(getattr(item, "cursor", item))

    def count(self, session_id: str) -> int:
        return len(self.items[session_id])


@contextlib.asynccontextmanager
async def following(url: str, sessions: Cursors, **options: Any) -> AsyncIterator[AsyncFollower[Any]]:
    client = AsyncAgentClient.from_url(url)
    async with asyncio.timeout(60), client, client.follow(sessions, **options) as follower:
        yield follower


async def listen(follower: AsyncFollower[Any], heard: Heard) -> None:
    async for session_id, item in follower:
        heard.add(session_id, item)


def first_epoch(last: int) -> list[str]:
    return ["0-1", *(f"1-{seq}" for seq in range(1, last + 1))]


@pytest.fixture(params=["async", "sync"])
def follow(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """``await follow(url, sessions, act)``: what each kind of follower hears, with ``act(follower, heard)`` beside."""

    async def asynchronous(url: str, sessions: Cursors, act: Callable[..., None], **options: Any) -> Heard:
        heard = Heard()
        async with following(url, sessions, **options) as follower, asyncio.TaskGroup() as group:
            group.create_task(listen(follower, heard))
            await asyncio.to_thread(act, follower, heard)
        return heard

    async def synchronous(url: str, sessions: Cursors, act: Callable[..., None], **options: Any) -> Heard:
        heard = Heard()

        def consume(follower: Any) -> None:
            for session_id, item in follower:
                heard.add(session_id, item)

        with AgentClient.from_url(url) as client, client.follow(sessions, **options) as follower:
            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                group.create_task(asyncio.to_thread(consume, follower))
                await asyncio.to_thread(act, follower, heard)
        return heard

    return asynchronous if request.param == "async" else synchronous


def say_something(writers: list[Writer]) -> None:
    for writer in writers:
        writer.message("text", {"text": "x" * 200})


# -- what they hear


async def test_each_session_comes_whole_from_its_cursor_to_its_end(redis_url: str, follow: Callable[..., Any]) -> None:
    writers = [Writer.start(redis_url, f"s{number}") for number in range(10)]

    def act(_: Any, heard: Heard) -> None:
        for writer in writers:
            wait_until(writer.followed)
            wait_until(lambda sid=writer.sid: heard.count(sid) == 2)  # type: ignore[misc] # bound by a default
        for _ in range(20):
            for writer in writers:
                writer.message("text", {"text": "x"})
        for writer in writers:
            writer.end("done", "completed")

    heard = await follow(redis_url, dict.fromkeys(writer.sid for writer in writers), act)
    assert heard.items == {writer.sid: [*first_epoch(22), SessionDelivered()] for writer in writers}
    after = await follow(redis_url, {"s1": "1-20", "s2": "1-22"}, lambda *_: None)
    assert after.items == {"s1": ["1-21", "1-22", SessionDelivered()], "s2": [SessionDelivered()]}


async def test_trouble_with_one_session_is_told_and_the_others_go_on(
    redis_url: str, raw: redis.Redis, follow: Callable[..., Any]
) -> None:
    good, ahead, trimmed = (Writer.start(redis_url, name) for name in ("good", "ahead", "trimmed"))
    for number in range(12):
        text = {"text": str(number)}
        trimmed.write(("m", trimmed._head() | {"id": f"m{number}", "type": "text", "content": text}), most=5)
    raw.set(KEYS.state("odd"), "not a hash")

    def act(follower: Any, heard: Heard) -> None:
        wait_until(lambda: all(heard.count(name) for name in ("never", "ahead", "trimmed", "odd", "good")))
        for writer in (good, ahead, trimmed):
            writer.end("done", "completed")

    cursors = {"never": None, "ahead": "7-7", "trimmed": "1-3", "odd": "1-1", "good": None}
    heard = await follow(redis_url, cursors, act)
    (odd,) = heard.items.pop("odd")
    assert isinstance(odd, SessionUnreadable)
    assert isinstance(odd.error, RedisRefused)
    assert heard.items == {
        "never": [SessionGone()],
        "ahead": [CursorReset("unknown_cursor", "0-1"), "0-1", "1-1", "1-2", SessionDelivered()],
        "trimmed": [CursorReset("trimmed", "1-9"), *(f"1-{seq}" for seq in range(9, 15)), SessionDelivered()],
        "good": [*first_epoch(2), SessionDelivered()],
    }


async def test_sessions_are_added_and_removed_while_it_runs(redis_url: str, follow: Callable[..., Any]) -> None:
    stays, leaves, comes = (Writer.start(redis_url, name) for name in ("stays", "leaves", "comes"))

    def act(follower: Any, heard: Heard) -> None:
        wait_until(lambda: heard.count("stays") == heard.count("leaves") == 2)
        wait_until(leaves.followed)
        follower.remove("leaves")
        follower.add("comes", "0-1")
        wait_until(lambda: heard.count("comes") == 1 and comes.followed() and not leaves.followed())
        assert follower.sessions == {"stays", "comes"}
        for writer in (leaves, comes, stays):
            writer.message("text", {"text": "x"})
        wait_until(lambda: heard.count("comes") == 2)
        follower.add("comes", None)  # once more, from its beginning
        wait_until(lambda: heard.count("comes") == 5)
        comes.end("done", "completed")
        stays.end("done", "completed")

    heard = await follow(redis_url, {"stays": None, "leaves": None}, act)
    assert heard.items == {
        "stays": [*first_epoch(3), SessionDelivered()],
        "leaves": ["0-1", "1-1"],
        "comes": ["1-1", "1-2", *first_epoch(3), SessionDelivered()],
    }


async def test_it_waits_for_sessions_until_it_is_closed(redis_url: str, follow: Callable[..., Any]) -> None:
    writer = Writer.start(redis_url, "s")
    writer.end("done", "completed")

    def act(follower: Any, heard: Heard) -> None:
        for total in (4, 8):
            follower.add("s")
            wait_until(lambda total=total: heard.count("s") == total)  # type: ignore[misc] # bound by a default
        assert not follower.sessions
        if isinstance(follower, AsyncFollower):
            loop = follower_loop[0]
            asyncio.run_coroutine_threadsafe(follower.aclose(), loop).result()
        else:
            follower.close()

    follower_loop = [asyncio.get_running_loop()]
    heard = await follow(redis_url, {}, act, until_closed=True)
    assert heard.items == {"s": [*first_epoch(2), SessionDelivered()] * 2}


async def test_raw_events_are_the_bytes_that_were_written(redis_url: str) -> None:
    writer = Writer.start(redis_url, "s")
    writer.message("text", {"text": "naïve \\ud83d"})
    writer.receipt("c", "prompt", "applied")
    writer.end("error", "failed", error='Exit "code": 3')
    async with following(redis_url, {"s": None}) as follower:
        decoded = [item async for _, item in follower]
    async with following(redis_url, {"s": None}, raw=True) as follower:
        items = [item async for _, item in follower]
    stream: Any = writer.redis.xrange(KEYS.events("s"))
    events = [item for item in items if isinstance(item, RawEvent)]
    assert [event.json for event in events] == [next(iter(fields.values())) for _, fields in stream]
    assert [event.cursor for event in events] == [place.decode() for place, _ in stream]
    assert [*(event.decode() for event in events), SessionDelivered()] == decoded
    assert {(event.kind, event.type) for event in events} == {("status", ""), ("receipt", ""), ("message", "text")}


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.both_loops
async def test_deltas_come_live(redis_url: str, raw: bool) -> None:
    writer = Writer.start(redis_url, "s")
    async with following(redis_url, {"s": "1-1"}, deltas=True, raw=raw) as follower:
        await settled(follower, writer)
        writer.delta("text_delta", "Hel", "b", 0)
        item: Any = (await anext(follower))[1]
        assert item.cursor is None
        assert not raw or item.kind == "delta"
        event = item.decode() if raw else item
        assert (event.type, event.content.text) == ("text_delta", "Hel")


async def settled(follower: AsyncFollower[Any], *writers: Writer) -> None:
    """Wait until it has read what there is and lives by hints; nothing must be left for it to tell."""
    while not all(writer.followed() for writer in writers) or follower._sessions.wait_s(time.monotonic()) == 0:
        waits = asyncio.get_running_loop().create_task(anext(follower))
        await asyncio.wait([waits], timeout=0.01)
        waits.cancel()
        assert isinstance((await asyncio.gather(waits, return_exceptions=True))[0], asyncio.CancelledError)


# -- bad input


@pytest.mark.parametrize(
    ("sessions", "error", "words"),
    [
        ({"a b": None}, InvalidSessionId, "Invalid session id"),
        ({"a": "seven"}, ValueError, "use EPOCH-SEQ"),
        ({"a": 7}, ValueError, "Expected a cursor"),
    ],
)
async def test_bad_ids_and_cursors_are_refused_at_once(
    redis_url: str, sessions: Any, error: type[Exception], words: str
) -> None:
    async with AsyncAgentClient.from_url(redis_url) as client:
        with pytest.raises(error, match=words):
            client.follow(sessions)
        follower = client.follow({"s": None})
        for session_id, cursor in sessions.items():
            with pytest.raises(error, match=words):
                follower.add(session_id, cursor)
        assert follower.sessions == {"s"}
    with AgentClient.from_url(redis_url) as other, pytest.raises(error, match=words):
        other.follow(sessions)


async def test_a_redis_that_is_not_there_is_told_at_once(unused_tcp_port: int) -> None:
    url = f"redis://127.0.0.1:{unused_tcp_port}/0"
    async with AsyncAgentClient.from_url(url) as client:
        with pytest.raises(RedisUnavailable, match=str(unused_tcp_port)):
            await anext(client.follow({"s": None}))
    with AgentClient.from_url(url) as other, pytest.raises(RedisUnavailable, match=str(unused_tcp_port)):
        next(other.follow({"s": None}))


# -- cancellation and closing


@pytest.mark.both_loops
async def test_a_cancelled_wait_loses_nothing(redis_url: str) -> None:
    """Each wait for an item is cancelled at a place of its own; what comes is whole all the same."""
    writer, heard = Writer.start(redis_url, "s"), Heard()
    async with following(redis_url, {"s": None}) as follower:
        for turn in range(300):
            waits = asyncio.get_running_loop().create_task(anext(follower))
            if turn % 3 == 0:
                writer.message("text", {"text": "x"})
            for _ in range(turn % 7):
                await asyncio.sleep(0)
            waits.cancel()
            for result in await asyncio.gather(waits, return_exceptions=True):
                if isinstance(result, tuple):
                    heard.add(*result)
        writer.end("done", "completed")
        await listen(follower, heard)
    assert heard.items["s"] == [*first_epoch(102), SessionDelivered()]


@pytest.mark.parametrize("how", ["follower", "client"])
@pytest.mark.both_loops
async def test_a_follower_that_is_closed_leaves_no_connection(redis_url: str, raw: redis.Redis, how: str) -> None:
    Writer.start(redis_url, "s")
    before = len(raw.client_list())
    async with asyncio.timeout(30):
        client, heard = AsyncAgentClient.from_url(redis_url), Heard()
        follower = client.follow({"s": None})
        waits = asyncio.get_running_loop().create_task(listen(follower, heard))
        await waiting.true(lambda: heard.count("s") == 2 and len(raw.pubsub_channels()) == 2)
        if how == "follower":
            await follower.aclose()
            await waits
            assert follower.sessions == set()
        else:
            await client.aclose()
            with pytest.raises(AgentRQError, match="The client was closed"):
                await waits
        await waiting.true(lambda: not raw.client_list(_type="pubsub"))
        await client.aclose()
        await waiting.true(lambda: len(raw.client_list()) == before)


def test_a_synchronous_follower_ends_with_its_client(redis_url: str, raw: redis.Redis) -> None:
    Writer.start(redis_url, "s")
    client, heard, errors = AgentClient.from_url(redis_url), Heard(), list[BaseException]()

    def consume() -> None:
        try:
            for session_id, item in client.follow({"s": None}):
                heard.add(session_id, item)
        except AgentRQError as error:
            errors.append(error)

    thread = threading.Thread(target=consume)
    thread.start()
    wait_until(lambda: heard.count("s") == 2 and len(raw.pubsub_channels()) == 2)
    client.close()
    thread.join(30)
    assert [str(error) for error in errors] == ["The client was closed"]
    wait_until(lambda: not raw.client_list(_type="pubsub"))


# -- many, slow, and through faults


async def test_many_sessions_take_two_connections(redis_url: str, raw: redis.Redis) -> None:
    writers, heard = [Writer.start(redis_url, f"s{number}") for number in range(300)], Heard()
    for writer in writers:
        writer.redis.close()
    before = len(raw.client_list())
    async with following(redis_url, {writer.sid: None for writer in writers}) as follower, asyncio.TaskGroup() as group:
        group.create_task(listen(follower, heard))
        await waiting.true(lambda: all(heard.count(writer.sid) == 2 for writer in writers))
        await waiting.true(lambda: len(raw.pubsub_channels()) == 600)
        assert len(raw.client_list()) == before + 2
        for writer in writers:
            writer.end("done", "completed")
            writer.redis.close()
    assert heard.items == {writer.sid: [*first_epoch(2), SessionDelivered()] for writer in writers}


@pytest.mark.both_loops
async def test_a_slow_consumer_gets_all_and_keeps_no_more_than_the_bound(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed_sessions, "MAX_WAITING_BYTES", 20_000)
    writers, heard = [Writer.start(redis_url, f"s{number}") for number in range(3)], Heard()
    async with following(redis_url, {writer.sid: "1-1" for writer in writers}) as follower:
        await settled(follower, *writers)
        most = 0
        for _ in range(300):
            await asyncio.to_thread(say_something, writers)
            most = max(most, follower._sessions._hint_bytes)
        assert 10_000 < most <= 20_000
        for writer in writers:
            writer.end("done", "completed")
        await listen(follower, heard)
    assert heard.items == {writer.sid: [*first_epoch(302)[2:], SessionDelivered()] for writer in writers}


@pytest.mark.both_loops
async def test_hints_that_are_never_published_are_made_up_for(
    redis_url: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a hint a silent session is looked at, and what it wrote meanwhile is read."""
    monkeypatch.setattr(followed_sessions, "CHECK_AGAIN_S", 0.2)
    monkeypatch.setattr(followed_sessions, "CHECK_EVERY_S", 0.1)
    writer, heard = Writer.start(redis_url, "s"), Heard()
    async with following(redis_url, {"s": None}) as follower, asyncio.TaskGroup() as group:
        group.create_task(listen(follower, heard))
        await waiting.true(lambda: heard.count("s") == 2 and len(raw.pubsub_channels()) == 2)
        unheard = b'{"cursor":"1-2","sessionId":"s","id":"m","type":"text","timestamp":0,"content":{"text":"x"}}'
        with raw.pipeline() as pipeline:
            pipeline.xadd(KEYS.events("s"), {"message": unheard}, id="1-2")
            pipeline.hset(KEYS.state("s"), "cursor", "1-2")
            pipeline.execute()
        await waiting.true(lambda: heard.count("s") == 3)
        writer.seq += 1
        writer.end("done", "completed")
    assert heard.items["s"] == [*first_epoch(3), SessionDelivered()]


async def test_a_session_without_a_worker_is_ended_as_lost(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followed_sessions, "CHECK_AGAIN_S", 0.2)
    monkeypatch.setattr(followed_sessions, "CHECK_EVERY_S", 0.1)
    monkeypatch.setenv("AGENTRQ_RECOVERY_TIMEOUT_S", "0.3")
    Writer.start(redis_url, "s")  # its worker has no lease
    heard = list[Any]()
    async with following(redis_url, {"s": None}) as follower:
        heard = [item async for _, item in follower]
    assert heard[-2].reason == "lost"
    assert heard[-1] == SessionDelivered()


async def test_a_removed_session_is_gone_and_its_successor_is_another(
    redis_url: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed_sessions, "CHECK_AGAIN_S", 0.2)
    monkeypatch.setattr(followed_sessions, "CHECK_EVERY_S", 0.1)
    monkeypatch.setattr(owner_watch, "RESTORE_S", 0.3)
    heard, names = Heard(), ("lost", "reused", "stays")
    for name in names:
        Writer.start(redis_url, name)
    async with following(redis_url, dict.fromkeys(names)) as follower, asyncio.TaskGroup() as group:
        group.create_task(listen(follower, heard))
        await waiting.true(lambda: all(heard.count(name) == 2 for name in names))
        await waiting.true(lambda: len(raw.pubsub_channels()) == 6)
        raw.delete(KEYS.state("lost"), KEYS.events("lost"))
        raw.hset(KEYS.state("reused"), "status", "done")  # it ends unheard, as while a reader is cut off
        with AgentClient.from_url(redis_url) as client:
            client.session("reused").remove()
            client.start("fake", "Of another session", "reused")
        await waiting.true(lambda: SessionGone() in heard.items["lost"] and SessionGone() in heard.items["reused"])
        assert follower.sessions == {"stays"}
        follower.remove("stays")
    assert heard.items == {"lost": ["0-1", "1-1", SessionGone()], "reused": ["0-1", "1-1", SessionGone()]} | {
        "stays": ["0-1", "1-1"]
    }


@pytest.fixture
def sessions_at_work(redis_url: str) -> Iterator[list[Writer]]:
    writers = [Writer.start(redis_url, f"s{number}") for number in range(40)]
    yield writers
    for writer in writers:
        writer.redis.close()


async def test_cuts_and_delays_lose_and_double_nothing(
    redis_url: str, sessions_at_work: list[Writer], follow: Callable[..., Any]
) -> None:
    async with Proxy.to(redis_url, Plan(7, 0.05)) as proxy:

        def act(_: Any, heard: Heard) -> None:
            wait_until(lambda: all(heard.count(writer.sid) for writer in sessions_at_work))
            for turn in range(30):
                for writer in sessions_at_work:
                    writer.message("text", {"text": "x" * 50})
                if turn % 5 == 4:
                    loop.call_soon_threadsafe(proxy.cut)
                    wait_until(lambda turn=turn: heard.count("s0") > turn // 2)  # type: ignore[misc] # bound by a default
            proxy.plan.calm()
            for writer in sessions_at_work:
                writer.end("done", "completed")

        loop = asyncio.get_running_loop()
        heard = await follow(proxy.url, {writer.sid: None for writer in sessions_at_work}, act)
        assert sum(proxy.plan.injected.values()) > 0
    assert heard.items == {writer.sid: [*first_epoch(32), SessionDelivered()] for writer in sessions_at_work}
