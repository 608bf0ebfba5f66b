"""A worker's calls that write: what they publish, how many are under way, and that no session is in two of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import redis

from agentrq import AsyncAgentClient
from agentrq.wire.messages import Text
from agentrq.wire.script_calls import ScriptCall
from agentrq.wire.status import Status
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.stream import loss_check
from agentrq_worker.stream import publisher as publishers
from agentrq_worker.stream.event_log import EventLog
from agentrq_worker.stream.loss_check import LossCheck
from agentrq_worker.stream.publisher import Publisher
from tests.faults.waiting import SETTINGS
from tests.faults.writing import claimed, publishing

SESSIONS = 8


class Calls:
    """What is under way: the sessions of each call, how many events, and how many calls at once at most."""

    def __init__(self) -> None:
        self.now: list[set[str]] = []
        self.most = self.made = self.events = 0
        self.beside = 0
        """Events under way when another call was made beside them, at most."""

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        call = Publisher._call_script

        async def watched(publisher: Publisher, batch: Any, own: Any) -> Any:
            sessions = {lane.session_id for lane, _ in batch}
            assert not any(sessions & others for others in self.now)
            events = sum(len(entry.jsons) for _, entries in batch for entry in entries)
            self.beside = max(self.beside, self.events)
            self.now.append(sessions)
            self.events += events
            self.made += 1
            self.most = max(self.most, len(self.now))
            try:
                return await call(publisher, batch, own)
            finally:
                self.now.remove(sessions)
                self.events -= events

        monkeypatch.setattr(Publisher, "_call_script", watched)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    calls.watch(monkeypatch)
    return calls


@contextlib.asynccontextmanager
async def lanes(url: str) -> AsyncIterator[tuple[Publisher, list[EventLog]]]:
    async with AsyncAgentClient.from_url(url) as client:
        for number in range(SESSIONS):
            await client.start("demo", "hello", f"s-{number}")
    async with asyncio.timeout(60), publishing(url, SETTINGS) as (publisher, owner):
        yield publisher, [await claimed(publisher, owner, f"s-{number}") for number in range(SESSIONS)]


def say(lane: EventLog, first: int, count: int, size: int) -> None:
    lane.add_messages([DraftMessage("text", Text(f"{number} " + "x" * size)) for number in range(first, first + count)])


def whole(raw: Any, lane: EventLog, count: int) -> None:
    """So many messages after what the claim wrote, in order."""
    found = [entry.decode() for entry, fields in raw.xrange(lane.target.keys[1]) if b"message" in fields]
    first = lane.written - count + 1
    assert found == [f"{lane.epoch}-{seq}" for seq in range(first, first + count)]


@pytest.mark.parametrize("size", [10, 1500])
@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 64, 65, 150])
@pytest.mark.parametrize("status", [Status.RUNNING, Status.IDLE])
async def test_the_channel_carries_what_the_stream_keeps(
    redis_url: str, raw: Any, status: Status, count: int, size: int
) -> None:
    """Long messages are joined another way than short ones, in parts; only a running session's go the quick way."""
    async with lanes(redis_url) as (_, all_lanes):
        lane = all_lanes[0]
        lane.add_status(status)
        await lane.flush()
        with raw.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(lane.target.messages_channel)
            assert channel.get_message(timeout=5.0) is None  # the subscription itself
            say(lane, 0, count, size)
            await lane.flush()
            published: list[msgspec.Raw] = []
            while len(published) < count:
                told = channel.get_message(timeout=5.0)
                assert told is not None
                published += msgspec.json.decode(told["data"], type=list[msgspec.Raw])
        kept = [fields[b"message"] for _, fields in raw.xrange(lane.target.keys[1]) if b"message" in fields]
        assert list(map(bytes, published)) == kept
        assert len(kept) == count


async def test_more_calls_are_under_way_when_much_waits(redis_url: str, raw: redis.Redis, calls: Calls) -> None:
    async with lanes(redis_url) as (publisher, all_lanes):
        for first in range(0, 300, 50):
            for lane in all_lanes:
                say(lane, first, 50, 2000)
            await asyncio.sleep(0)
        for lane in all_lanes:
            await lane.flush()
            whole(raw, lane, 300)
        assert calls.most == publishers.WRITERS
        assert publisher.shares.memory == 0
        assert publisher.measurements.events.values[()] == 300 * SESSIONS


async def test_what_comes_while_some_are_under_way_is_for_the_next_call(redis_url: str, calls: Calls) -> None:
    async with lanes(redis_url) as (_, all_lanes):
        for number in range(400):
            say(all_lanes[number % SESSIONS], number, 1, 100)
            await asyncio.sleep(0)
        for lane in all_lanes:
            await lane.flush()
        assert 0 < calls.beside < publishers.FEW_EVENTS
        assert calls.made < 200  # what came meanwhile went together


async def test_a_lone_event_waits_for_no_other(
    redis_url: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    call = Publisher._call_script

    async def slowly(publisher: Publisher, batch: Any, own: Any) -> Any:
        if batch[0][0].session_id == "s-0":
            begun.set()
            await go_on.wait()
        return await call(publisher, batch, own)

    async with lanes(redis_url) as (_, all_lanes):
        monkeypatch.setattr(Publisher, "_call_script", slowly)
        slow, other = all_lanes[0], all_lanes[1]
        say(slow, 0, 1, 100)
        await begun.wait()
        say(other, 0, 1, 100)
        await other.flush()
        say(slow, 1, 1, 100)  # of the same session: in its order
        say(other, 1, 1, 100)
        await other.flush()
        whole(raw, other, 2)
        assert slow.waiting
        go_on.set()
        await slow.flush()
        whole(raw, slow, 2)


async def test_a_session_that_is_looked_after_is_in_no_call(
    redis_url: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis comes back without a quiet session, which begins to say much while it is given back."""
    monkeypatch.setattr(publishers, "MUCH_BYTES", 1)
    monkeypatch.setattr(loss_check, "CHECK_S", 0.01)
    begun, go_on = asyncio.Event(), asyncio.Event()
    give_back = LossCheck.restore

    async def slowly(check: LossCheck, lane: EventLog, *, missing: bool) -> Any:
        begun.set()
        await go_on.wait()
        return await give_back(check, lane, missing=missing)

    monkeypatch.setattr(LossCheck, "restore", slowly)
    async with lanes(redis_url) as (_, all_lanes):
        quiet, other = all_lanes[0], all_lanes[1]
        say(quiet, 0, 10, 100)
        await quiet.flush()
        raw.delete(*quiet.target.keys)
        await begun.wait()
        say(quiet, 10, 200, 1000)
        say(other, 0, 200, 1000)
        await other.flush()
        assert not raw.exists(quiet.target.keys[1])
        go_on.set()
        await quiet.flush()
        whole(raw, quiet, 211)  # with the message that stands for the lost status of the claim
        assert quiet.lost is None


async def test_a_look_that_is_older_than_a_write_is_not_believed(
    redis_url: str, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Between Redis' answer and its reading the session went on, further than what is kept here."""
    monkeypatch.setattr(loss_check, "CHECK_S", 0.01)
    answered, go_on, looked = asyncio.Event(), asyncio.Event(), asyncio.Event()
    async with lanes(redis_url) as (publisher, all_lanes):
        lane, run = all_lanes[0], publisher._losses._scripts.run
        say(lane, 0, 5, 100)
        await lane.flush()
        stood = raw.hmget(lane.target.keys[0], "epoch", "claim", "cursor", "status", "nonce")

        async def late(call: ScriptCall[Any]) -> Any:
            if answered.is_set():
                looked.set()
                return await run(call)
            answered.set()
            await go_on.wait()
            return call.read([[list(call.keys).index(lane.target.keys[0]) + 1, *stood]])

        monkeypatch.setattr(publisher._losses._scripts, "run", late)
        await answered.wait()
        say(lane, 5, 500, 1000)
        await lane.flush()
        go_on.set()
        await looked.wait()
        whole(raw, lane, 505)
    assert "lost" not in caplog.text
