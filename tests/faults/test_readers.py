"""Readers: slow, dying, cancelled, of what is trimmed, removed or malformed. None harms another or is left hanging."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from agentrq import (
    AgentClient,
    AgentRQError,
    AsyncAgentClient,
    AsyncSession,
    Message,
    Session,
    SessionNotFound,
    State,
    StreamTrimmed,
)
from agentrq import connection as connections
from agentrq.client import asyncio_client, states, sync_client
from agentrq.client import pubsub_hub as lives
from agentrq.client import subscription as subscriptions
from agentrq.connection import connect, connect_async
from agentrq.wire.keys import Keys
from agentrq.wire.messages import Text
from agentrq.wire.status import Reason, Status
from agentrq_worker.settings import Settings
from agentrq_worker.stream import loss_check
from agentrq_worker.stream.event_log import EventLog
from tests.faults import waiting
from tests.faults.proxy import Proxy
from tests.faults.reader_pauses import noted_pauses
from tests.faults.waiting import a_hub, a_lane
from tests.faults.writing import Seen, seen

EAGER = getattr(asyncio, "eager_task_factory", None)
STATE, EVENTS = Keys().state("s"), Keys().events("s")


def say(lane: EventLog, count: int, size: int = 10) -> None:
    for _ in range(count):
        lane.add_message("text", Text(f"{lane._seq + 1} ".ljust(size, "x")))


def end(lane: EventLog) -> None:
    lane.add_end(Status.DONE, Reason.COMPLETED, None)


async def follow(client: AsyncAgentClient, sequence: list[Seen], after: str | None = None) -> None:
    async for event in client.session("s").events(after):
        sequence.append(seen(event))


def follow_sync(client: AgentClient, sequence: list[Seen], pause: Callable[[], object] = lambda: None) -> None:
    for event in client.session("s").events():
        sequence.append(seen(event))
        pause()


def whole(sequence: list[Seen], last: int, first: int = 1) -> None:
    assert [cursor for cursor, _, _ in sequence if cursor != "0-1"] == [f"1-{seq}" for seq in range(first, last + 1)]


def clients(raw: redis.Redis, kind: str) -> int:
    return len(raw.client_list(_type=kind))


# -- slow ones


@pytest.mark.both_loops
async def test_a_frozen_reader_slows_nobody(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "MAX_WAITING_BYTES", 10_000)
    quick, slow, awake = list[Seen](), list[Seen](), asyncio.Event()
    async with a_lane(redis_url) as (lane, _), AsyncAgentClient.from_url(redis_url) as client:

        async def sleepy() -> None:
            async for event in client.session("s").events():
                slow.append(seen(event))
                if event.cursor == "1-2":
                    await awake.wait()

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(sleepy())
            group.create_task(follow(client, quick))
            await waiting.true(lambda: len(client._hub._readers.get(lane.target.messages_channel, ())) == 2)
            say(lane, 1)
            await waiting.true(lambda: len(quick) == 3 and len(slow) == 3)
            say(lane, 1999, 100)
            await waiting.true(lambda: len(quick) == 2002)
            boxes = [inbox for readers in client._hub._readers.values() for _, inbox in readers]
            assert len(boxes) == 4
            assert all(isinstance(inbox, lives.ReaderInbox) and inbox._bytes <= 10_000 for inbox in boxes)
            assert len(slow) == 3
            awake.set()
            end(lane)
    whole(slow, 2002)
    whole(quick, 2002)


@pytest.mark.both_loops
async def test_a_reader_that_redis_cuts_off_goes_on_from_the_stream(redis_url: str, raw: redis.Redis) -> None:
    limit = raw.config_get("client-output-buffer-limit")["client-output-buffer-limit"] or ""
    raw.config_set("client-output-buffer-limit", "pubsub 64kb 64kb 1")
    quick, slow, awake = list[Seen](), list[Seen](), threading.Event()
    try:
        async with a_lane(redis_url) as (lane, _), AsyncAgentClient.from_url(redis_url) as client:
            with AgentClient.from_url(redis_url) as other:
                async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                    sleeping = asyncio.to_thread(follow_sync, other, slow, lambda: len(slow) < 3 or awake.wait())
                    group.create_task(sleeping)
                    group.create_task(follow(client, quick))
                    await waiting.true(lambda: len(slow) == len(quick) == 2 and clients(raw, "pubsub") == 2)
                    say(lane, 3000, 2000)
                    await waiting.true(lambda: clients(raw, "pubsub") == 1)
                    await waiting.true(lambda: len(quick) == 3002)
                    awake.set()
                    end(lane)
    finally:
        awake.set()
        raw.config_set("client-output-buffer-limit", limit)
    whole(slow, 3002)
    whole(quick, 3002)


async def test_many_sessions_over_one_connection(redis_url: str, raw: redis.Redis) -> None:
    async with AsyncAgentClient.from_url(redis_url) as client:
        sessions = [await client.start("demo", "hello") for _ in range(40)]
        seen_statuses: dict[str, list[str]] = {session.id: [] for session in sessions}

        async def watch(session: Any) -> None:
            async for event in session.events():
                seen_statuses[session.id].append(seen(event)[1])

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for session in sessions:
                group.create_task(watch(session))
            await waiting.true(lambda: len(raw.pubsub_channels()) == 80)
            assert clients(raw, "pubsub") == 1
            for session in sessions:
                await session.stop()
    assert list(seen_statuses.values()) == [["status", "receipt", "status"]] * 40


# -- what they leave behind


@pytest.mark.parametrize("how", ["cancel", "break", "aclose", "client"])
@pytest.mark.both_loops
async def test_a_reader_that_leaves_closes_its_connection(
    redis_url: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(loss_check, "CHECK_S", 3600.0)  # it would take another connection
    async with a_lane(redis_url) as (lane, _):
        say(lane, 5)
        await lane.flush()
        others = clients(raw, "normal")
        client, staying = AsyncAgentClient.from_url(redis_url), asyncio.Event()

        async def read() -> None:
            events = client.session("s").events()
            async for event in events:
                if event.cursor == "1-6":
                    staying.set()
                    if how == "break":
                        await waiting.true(lambda: True)
                        break
                    if how == "aclose":
                        await events.aclose()  # type: ignore[attr-defined]
                        return

        reading = asyncio.get_running_loop().create_task(read())
        async with asyncio.timeout(30):
            await staying.wait()
            if how == "cancel":
                await waiting.true(lambda: clients(raw, "pubsub") == 1)
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
            elif how == "client":
                await waiting.true(lambda: clients(raw, "pubsub") == 1)
                await client.aclose()
                with pytest.raises(AgentRQError, match="closed"):
                    await reading
            else:
                await reading
            await waiting.true(lambda: clients(raw, "pubsub") == 0)
            await client.aclose()
            await waiting.true(lambda: clients(raw, "normal") == others)


@pytest.mark.parametrize("how", ["break", "close"])
async def test_a_synchronous_reader_that_leaves_closes_its_connection(
    redis_url: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(loss_check, "CHECK_S", 3600.0)
    async with a_lane(redis_url) as (lane, _):
        say(lane, 5)
        await lane.flush()
        others, client = clients(raw, "normal"), AgentClient.from_url(redis_url)
        if how == "break":
            for event in client.session("s").events():
                if event.cursor == "1-6":
                    break
        else:
            reading = asyncio.get_running_loop().run_in_executor(None, follow_sync, client, list[Seen]())
            await waiting.true(lambda: clients(raw, "pubsub") == 1)
            client.close()
            with pytest.raises(AgentRQError, match="closed"):
                await reading
        client.close()
        await waiting.true(lambda: clients(raw, "pubsub") == 0 and clients(raw, "normal") == others)


# -- what is not there, or no longer


@pytest.mark.parametrize("after", ["1-3", "0-0"])
async def test_a_trimmed_cursor_raises_stream_trimmed(redis_url: str, after: str) -> None:
    settings = Settings(name="w", max_events=10)
    async with a_lane(redis_url, settings=settings) as (lane, _), AsyncAgentClient.from_url(redis_url) as client:
        say(lane, 50)
        await lane.flush()
        with pytest.raises(StreamTrimmed) as raised:
            await follow(client, [], after)
        assert (raised.value.after, raised.value.trimmed_through) == (after, "1-41")
        end(lane)
        await lane.flush()
        for begin, first in ((None, 43), ("1-42", 43)):
            kept: list[Seen] = []
            await follow(client, kept, begin)
            whole(kept, 52, first)


async def test_a_reader_trimmed_while_it_slept_is_told(redis_url: str) -> None:
    settings = Settings(name="w", max_events=10)
    async with a_lane(redis_url, settings=settings) as (lane, _), AsyncAgentClient.from_url(redis_url) as client:
        say(lane, 5)
        await lane.flush()

        async def read() -> None:
            async for event in client.session("s").events():
                if event.cursor == "1-6":
                    say(lane, 100)
                    await lane.flush()

        with pytest.raises(StreamTrimmed) as raised:
            await read()
        assert raised.value.after == "1-6"


@pytest.mark.parametrize("how", ["async", "sync"])
@pytest.mark.parametrize("ended", [False, True])
async def test_a_waiter_does_not_mind_trimmed_events(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, how: str, ended: bool
) -> None:
    """More than is kept comes between the first look of a `wait` and its reading."""
    loop, settings = asyncio.get_running_loop(), Settings(name="w", max_events=10)
    async with a_lane(redis_url, settings=settings) as (lane, _), AsyncAgentClient.from_url(redis_url) as client:
        skipped = False

        async def flood() -> None:
            say(lane, 50)
            if ended:
                end(lane)
            await lane.flush()

        def skip(reader: subscriptions.Reader[Any], through: Any) -> None:
            nonlocal skipped
            gone(reader, through)
            skipped = True
            if not ended:
                loop.call_soon_threadsafe(end, lane)

        async def look(session: AsyncSession) -> State:
            found = await client.run(states.state(client.context, session.id))
            if not skipped:
                await flood()
            return found

        def look_sync(session: Session) -> State:
            found = other.run(states.state(other.context, session.id))
            if not skipped:
                asyncio.run_coroutine_threadsafe(flood(), loop).result(15)
            return found

        gone = subscriptions.Reader._skip
        monkeypatch.setattr(subscriptions.Reader, "_skip", skip)
        monkeypatch.setattr(AsyncSession, "state", look)
        monkeypatch.setattr(Session, "state", look_sync)
        with AgentClient.from_url(redis_url) as other:
            async with asyncio.timeout(30):
                if how == "async":
                    state = await client.session("s").wait(20)
                else:
                    state = await loop.run_in_executor(None, other.session("s").wait, 20)
        assert skipped
        assert state.status == "done"


@pytest.mark.parametrize("kept", [False, True])
async def test_a_waiter_finds_a_receipt_that_was_trimmed(
    redis_url: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """It is found where it is kept; where it is not, that is said."""
    loop, settings = asyncio.get_running_loop(), Settings(name="w", max_events=10)
    async with a_lane(redis_url, settings=settings) as (lane, _):

        async def flood() -> None:
            entries: Any = raw.xrange(Keys().inbox("s"))
            say(lane, 45 if kept else 0)
            lane.add_receipt("c", "interrupt", "applied", None, entries[0][0])
            say(lane, 5 if kept else 50)
            await lane.flush()

        def reader(*args: Any, **named: Any) -> subscriptions.Reader[Any]:
            asyncio.run_coroutine_threadsafe(flood(), loop).result(15)
            return subscriptions.Reader(*args, **named)

        monkeypatch.setattr(sync_client, "Reader", reader)
        with AgentClient.from_url(redis_url) as client:

            def interrupt() -> Any:
                return client.session("s").interrupt(wait=True, command_id="c", timeout=20)

            waits = loop.run_in_executor(None, interrupt)
            if kept:
                assert (await waits).outcome == "applied"
            else:
                with pytest.raises(AgentRQError, match="receipt of command c of session s is no longer kept"):
                    await waits


@pytest.mark.slow
@pytest.mark.parametrize("how", ["async", "sync"])
async def test_a_reader_of_a_removed_session_is_told(
    redis_url: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(asyncio_client, "CHECK_AGAIN_S", 0.1)
    monkeypatch.setattr(sync_client, "CHECK_AGAIN_S", 0.1)
    async with AsyncAgentClient.from_url(redis_url) as client:
        await client.start("demo", "hello", "s")
        sequence: list[Seen] = []
        if how == "sync":
            with AgentClient.from_url(redis_url) as other:
                reading = asyncio.get_running_loop().run_in_executor(None, follow_sync, other, sequence)
                await waiting.true(lambda: len(sequence) == 1)
                raw.delete(STATE, EVENTS)
                with pytest.raises(SessionNotFound):
                    await reading
            return
        async with asyncio.timeout(30):
            task = asyncio.get_running_loop().create_task(follow(client, sequence))
            await waiting.true(lambda: len(sequence) == 1)
            raw.delete(STATE, EVENTS)
            with pytest.raises(SessionNotFound):
                await task


async def test_a_reader_of_an_ended_session_without_a_stream_ends(redis_url: str, raw: redis.Redis) -> None:
    async with AsyncAgentClient.from_url(redis_url) as client:
        session = await client.start("demo", "hello", "s")
        await session.stop()
        raw.delete(EVENTS)
        async with asyncio.timeout(20):
            with pytest.raises(StreamTrimmed):
                await follow(client, [], "0-1")


# -- what nobody should have written

GARBAGE = (b"", b"\xff\xfe", b"{}", b"[1]", b"[" * 100_000, b'[{"cursor":"no cursor"}]', b'{"cursor":"1-3","status":5}')


@pytest.mark.both_loops
async def test_garbage_on_the_channels_does_not_reach_a_reader(redis_url: str, raw: redis.Redis) -> None:
    sequence: list[Seen] = []
    async with (
        asyncio.timeout(30),
        a_lane(redis_url) as (lane, _),
        AsyncAgentClient.from_url(redis_url) as client,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(follow(client, sequence))
        await waiting.true(lambda: clients(raw, "pubsub") == 1 and len(sequence) == 2)
        for garbage in GARBAGE:
            for channel in lane.target[-2:]:
                raw.publish(channel, garbage)
            say(lane, 1)
            await lane.flush()
        end(lane)
    whole(sequence, 2 + len(GARBAGE))


@pytest.mark.parametrize("how", ["async", "sync"])
async def test_garbage_in_the_stream_keeps_its_place(redis_url: str, raw: redis.Redis, how: str) -> None:
    entries: list[dict[Any, Any]] = [{name: data} for data in GARBAGE for name in ("message", "status", "receipt")]
    entries += [{"message": "{}", "status": "{}"}, {"of a newer agentrq": "{}"}]
    async with AsyncAgentClient.from_url(redis_url) as client:
        session = await client.start("demo", "hello", "s")
        for at, fields in enumerate(entries):
            raw.xadd(EVENTS, fields, f"0-{at + 2}")
        await session.stop()
        if how == "async":
            events = [event async for event in session.events()]
        else:
            with AgentClient.from_url(redis_url) as other:
                events = await asyncio.to_thread(lambda: list(other.session("s").events()))
    read = events[1:-2]  # a receipt and the end follow
    assert [event.cursor for event in read] == [f"0-{at + 2}" for at in range(len(entries) - 1)]
    assert all(isinstance(event, Message) and event.type == "unknown" for event in read)
    assert (events[-1].cursor, len(events)) == ("1-2", len(entries) + 2)


# -- connections that are there and say nothing


@asynccontextmanager
async def following(how: str, redis_url: str, live_url: str, sequence: list[Seen]) -> AsyncIterator[None]:
    """A reader whose hints come by another way, until it has seen the end. Closed whatever happens: a thread would
    follow on."""
    async with contextlib.AsyncExitStack() as stack:
        reading: Coroutine[Any, Any, None]
        if how == "async":
            client = AsyncAgentClient(connect_async(redis_url), connect_async(live_url, blocking=True))
            stack.push_async_callback(client.aclose)
            reading = follow(client, sequence)
        else:
            other = AgentClient(connect(redis_url), connect(live_url, blocking=True, retries=0))
            stack.callback(other.close)
            reading = asyncio.to_thread(follow_sync, other, sequence)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(reading)
            yield


@pytest.mark.slow
@pytest.mark.parametrize("how", ["async", "sync"])
@pytest.mark.both_loops
async def test_a_silent_subscription_is_made_anew(redis_url: str, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(sync_client, "CHECK_AGAIN_S", 0.2)
    monkeypatch.setattr(lives, "PING_S", 0.2)
    monkeypatch.setattr(connections, "CONNECT_TIMEOUT_S", 1.0)
    sequence: list[Seen] = []
    async with (
        Proxy.to(redis_url) as network,
        a_lane(redis_url) as (lane, _),
        following(how, redis_url, network.url, sequence),
    ):
        await waiting.true(lambda: len(sequence) == 2 and network.connections > 0)
        before = network.connections
        network.freeze()
        while network.connections == before:  # what came before its subscription stood, it does not miss in silence
            say(lane, 1)
            await waiting.true(lambda: len(sequence) == lane._seq + 1)
        network.thaw()
        last = lane._seq + 1
        end(lane)
    whole(sequence, last)


@pytest.mark.parametrize("how", ["async", "sync"])
@pytest.mark.both_loops
async def test_a_network_that_stalls_at_connect_is_survived(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The connection is made and never greeted: hints cannot be had, the stream is read all the same."""
    monkeypatch.setattr(sync_client, "CHECK_AGAIN_S", 0.2)
    monkeypatch.setattr(asyncio_client, "CHECK_AGAIN_S", 0.2)
    monkeypatch.setattr(lives, "PING_S", 0.2)
    monkeypatch.setattr(connections, "CONNECT_TIMEOUT_S", 1.0)
    sequence: list[Seen] = []
    async with Proxy.to(redis_url) as network, a_lane(redis_url) as (lane, _):
        network.freeze()
        async with following(how, redis_url, network.url, sequence):
            await waiting.true(lambda: len(sequence) == 2 and network.connections > 1)
            say(lane, 1)
            await waiting.true(lambda: len(sequence) == 3)
            end(lane)
    whole(sequence, 3)


async def test_hints_that_cannot_be_had_are_asked_for_seldom(
    redis_url: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens where the hints come from: each try is followed by a look at the stream, and a longer pause."""
    pauses = noted_pauses(monkeypatch, longest=0.01)
    sequence: list[Seen] = []
    async with a_lane(redis_url) as (lane, _), following("sync", redis_url, "unix:///nobody/here", sequence):
        await waiting.true(lambda: len(pauses) >= 8)
        say(lane, 1)
        await waiting.true(lambda: len(sequence) == 3)
        end(lane)
    whole(sequence, 3)
    assert pauses[:8] == [0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 2.0, 2.0]


def test_a_wait_is_over_in_time_though_no_hint_can_be_had(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = noted_pauses(monkeypatch, longest=10.0)
    with AgentClient(connect(redis_url), connect("unix:///nobody/here", blocking=True, retries=0)) as client:
        session = client.start("demo", "hello", "s")
        with pytest.raises(TimeoutError):
            session.wait(3)
    assert len(pauses) > 2
    assert sum(pauses) <= 3


# -- readers that are killed


async def test_killed_readers_come_back_where_they_were(redis_url: str) -> None:
    chance, deaths = random.Random(7), 0

    async def read() -> list[Seen]:
        nonlocal deaths
        sequence: list[Seen] = []
        while not (sequence and sequence[-1][1:] == ("status", "done")):
            arguments = [redis_url, "s", *([sequence[-1][0] or ""] if sequence else [])]
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.faults.reader_process", *arguments,
                stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
            )  # fmt: skip
            assert process.stdout
            most = chance.choice((3, 100, 400)) if deaths < 6 else 10_000
            while (line := await process.stdout.readline()).endswith(b"\n"):
                cursor, kind, what = json.loads(line)
                sequence.append((cursor, kind, what))
                most -= 1
                if most == 0:
                    process.kill()
                    deaths += 1
                    break
            process._transport.close()  # type: ignore[attr-defined]  # what it printed after its death is not read
            await process.wait()
        return sequence

    async with asyncio.timeout(60), a_lane(redis_url) as (lane, _):
        async with asyncio.TaskGroup() as group:
            readings = [group.create_task(read()) for _ in range(2)]
            for _ in range(100):
                say(lane, 10)
                await lane.flush()
            end(lane)
        for reading in readings:
            whole(reading.result(), 1002)
    assert deaths >= 4


@pytest.mark.skipif(EAGER is None, reason="no eager tasks before Python 3.12")
async def test_a_reader_works_where_tasks_are_eager(redis_url: str) -> None:
    """The pump runs before it is known as the pump."""
    asyncio.get_running_loop().set_task_factory(EAGER)
    async with a_hub(redis_url) as hub, hub.subscribed("s") as inbox:
        assert await inbox.wait(20.0)
        assert inbox.behind


# -- how long somebody waits


@pytest.mark.slow
@pytest.mark.parametrize("how", ["async", "sync"])
@pytest.mark.both_loops
async def test_a_waiter_times_out_though_the_network_stalls(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Nobody waits beyond his time by more than one answer may take; and it is `TimeoutError`, as documented."""
    async with AsyncAgentClient.from_url(redis_url) as client:
        await client.start("demo", "hello", "s")
    monkeypatch.setattr(connections, "ANSWER_TIMEOUT_S", 2.0)
    monkeypatch.setattr(connections, "CONNECT_TIMEOUT_S", 2.0)
    monkeypatch.setattr(asyncio_client, "ANSWER_TIMEOUT_S", 2.0)
    async with Proxy.to(redis_url) as network, asyncio.timeout(30):
        if how == "async":
            async with AsyncAgentClient.from_url(network.url) as client:
                session = client.session("s")
                await session.state()
                network.freeze()
                with pytest.raises(TimeoutError, match=r"Session s took longer than 0\.2 s"):
                    await session.wait(0.2)
                with pytest.raises(TimeoutError, match=r"The receipt of .* took longer than 0\.2 s"):
                    await session.interrupt(wait=True, timeout=0.2)
                with pytest.raises(redis.TimeoutError, match=r"did not answer within 2 s"):
                    await session.wait()
        else:
            with AgentClient.from_url(network.url) as other:
                named = other.session("s")
                await asyncio.to_thread(named.state)
                network.freeze()
                with pytest.raises(TimeoutError, match=r"Session s took longer than 0\.2 s"):
                    await asyncio.to_thread(named.wait, 0.2)
                with pytest.raises(TimeoutError, match=r"The receipt of .* took longer than 0\.2 s"):
                    await asyncio.to_thread(named.interrupt, wait=True, timeout=0.2)
                with pytest.raises(redis.TimeoutError):
                    await asyncio.to_thread(named.wait)


async def test_a_zero_timeout_is_enough_for_an_ended_session(redis_url: str) -> None:
    async with AsyncAgentClient.from_url(redis_url) as client:
        session = await client.start("demo", "hello", "s")
        with pytest.raises(TimeoutError):
            await session.wait(0)
        await session.stop()
        assert (await session.wait(0)).reason == "stopped"
    with AgentClient.from_url(redis_url) as other:
        state = await asyncio.to_thread(other.session("s").wait, 0)
        assert state.reason == "stopped"


async def test_pages_that_take_too_long_are_asked_for_in_smaller_ones(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    perform = AsyncAgentClient._perform

    async def slow(self: AsyncAgentClient, request: Any) -> Any:
        for command in getattr(request, "commands", ()):
            if command[0] == "XRANGE":
                asked.append(command[-1])
                if command[-1] > 5:
                    raise redis.TimeoutError("a slow link")
        return await perform(self, request)

    monkeypatch.setattr(AsyncAgentClient, "_perform", slow)
    async with asyncio.timeout(30), a_lane(redis_url) as (lane, _), AsyncAgentClient.from_url(redis_url) as client:
        say(lane, 20)
        end(lane)
        await lane.flush()
        sequence: list[Seen] = []
        await follow(client, sequence)
    whole(sequence, 22)
    assert asked[:3] == [100, 10, 1]


def test_pieces_of_a_text_that_came_whole_are_left_out() -> None:
    """They came as a hint while the page that has the text was read."""
    content = b'{"text":"Hello","blockId":"b1"}'
    head = b'{"cursor":"1-1","sessionId":"s","id":"1-1","type":"text","timestamp":1,"content":' + content + b"}"
    reader = subscriptions.Reader(Keys(), "s", None, subscriptions.DECODED, deltas=True)
    found = reader.from_stream([[(b"1-1", {b"message": head})], (b"running", b"1-1", None, b"nonce", b"w")])
    assert len(found) == 1
    for block, expected in (("b1", 0), ("b2", 1)):
        delta = {"text": "Hel", "blockId": block, "offset": 0}
        piece = {"sessionId": "s", "id": "1-d1", "type": "text_delta", "timestamp": 1, "content": delta}
        assert len(reader.from_messages(json.dumps([piece]).encode())) == expected
    strange = {"sessionId": "s", "id": "x", "type": "novelty", "timestamp": 1, "content": {"a": 1}}
    assert len(reader.from_messages(json.dumps([strange]).encode())) == 1


@pytest.mark.parametrize("after", ["nonsense", 5, (0, 1), b"0-1"])
def test_a_malformed_cursor_is_a_value_error(redis_url: str, after: Any) -> None:
    with AgentClient.from_url(redis_url) as client, pytest.raises(ValueError, match="cursor"):
        client.session("s").events(after)
