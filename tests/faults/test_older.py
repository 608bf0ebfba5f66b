"""Redis comes back without its last writes, or without a session: repaired from what the worker has, or declared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from agentrq import AsyncAgentClient, Message
from agentrq.wire.ids import Cursor
from agentrq.wire.keys import Keys
from agentrq.wire.messages import Text
from agentrq.wire.status import Reason, Status
from agentrq_worker.ownership.inbox_reader import InboxReader
from agentrq_worker.session_types import InboxCommand
from agentrq_worker.stream import event_log as lanes
from agentrq_worker.stream import loss_check
from agentrq_worker.stream.event_log import EventLog
from agentrq_worker.stream.loss_check import LossCheck
from tests.faults import waiting
from tests.faults.restarts import Restartable
from tests.faults.writing import Seen, claimed, publishing, seen

STATE, EVENTS = Keys().state("s"), Keys().events("s")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Restartable]:
    with Restartable(tmp_path, "--appendfsync", "always") as server:
        yield server


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_check, "CHECK_S", 0.1)


async def say(lane: EventLog, count: int) -> None:
    for _ in range(count):
        lane.add_message("text", Text(f"event {lane._seq + 1}"))
    await lane.flush()


async def stands(server: Restartable, cursor: str) -> None:
    """Wait until the session stands at a cursor."""
    async with redis.asyncio.Redis.from_url(server.url) as raw:

        async def there() -> bool:
            return await raw.hget(STATE, "cursor") == cursor.encode()

        await waiting.true(there)


async def history(server: Restartable, after: str | None = None) -> list[Seen]:
    """What is in the stream of an ended session."""
    async with asyncio.timeout(20), AsyncAgentClient.from_url(server.url) as client:
        return [seen(event) async for event in client.session("s").events(after)]


def go_back(server: Restartable) -> None:
    """Die and come back as it was when it was remembered."""
    server.kill()
    server.forget()
    server.start()


async def test_lost_events_that_are_in_memory_are_sent_again(server: Restartable) -> None:
    async with waiting.a_lane(server.url) as (lane, _), AsyncAgentClient.from_url(server.url) as client:
        await say(lane, 20)
        server.remember()
        lane.add_status(Status.IDLE, {"numTurns": 7})
        await say(lane, 20)
        followed: list[Seen] = []

        async def follow() -> None:
            async for event in client.session("s").events():
                followed.append(seen(event))

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(follow())
            await waiting.true(lambda: len(followed) == 43)
            go_back(server)
            await stands(server, "1-42")  # nothing new was written
            state = await client.session("s").state()
            assert (state.status, state.num_turns) == ("idle", 7)
            lane.add_end(Status.DONE, Reason.COMPLETED, None)
        assert followed == await history(server)
    assert [cursor for cursor, _, _ in followed] == ["0-1", *(f"1-{seq}" for seq in range(1, 44))]
    assert not [kind for _, kind, _ in followed if kind == "error"]


async def test_lost_events_that_are_gone_are_declared_with_their_range(
    server: Restartable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "KEPT_BYTES", 2000)
    async with waiting.a_lane(server.url) as (lane, _), AsyncAgentClient.from_url(server.url) as client:
        await say(lane, 20)
        server.remember()
        await say(lane, 10)
        lane.add_status(Status.IDLE)
        await say(lane, 40)
        kept = [seq for _, entry in lane._recent for seq in range(entry.seq, entry.last + 1)]
        go_back(server)
        await stands(server, f"1-{lane.written}")
        assert (await client.session("s").state()).status == "idle"
        lane.add_end(Status.DONE, Reason.COMPLETED, None)
        await lane.flush()
    events = await history(server, "1-21")
    present = {Cursor.parse(cursor or "").seq for cursor, kind, _ in events if kind != "error"}
    declared = set[int]()
    for cursor, kind, content in events:
        if kind == "error":
            assert (content.code, content.to) == ("history_lost", cursor)
            lost = range(Cursor.parse(content.from_).seq, Cursor.parse(content.to).seq + 1)
            assert declared.isdisjoint(lost)
            declared |= set(lost)
    assert present.isdisjoint(declared)
    assert present | declared == set(range(22, 74))
    assert 72 in kept
    assert present == {32, *kept, 73}  # the status in the middle is known too: the state is right


async def test_a_session_that_redis_lost_is_written_again(server: Restartable) -> None:
    async with waiting.a_lane(server.url) as (lane, _), AsyncAgentClient.from_url(server.url) as client:
        await say(lane, 20)
        lane._recent.clear()
        with redis.Redis.from_url(server.url) as raw:
            raw.flushall()
        await stands(server, "1-21")
        assert [session.id for session in await client.sessions()] == ["s"]
        lane.add_end(Status.DONE, Reason.COMPLETED, None)
        await lane.flush()
        assert (await client.session("s").state()).provider == "demo"
        events = [event async for event in client.session("s").events()]
    lost, end = events
    assert isinstance(lost, Message)
    assert (lost.content.code, lost.content.from_, lost.content.to) == ("history_lost", "0-1", "1-21")  # type: ignore[union-attr]
    assert end.cursor == "1-22"


async def test_a_redis_that_comes_back_older_twice_is_repaired(server: Restartable) -> None:
    """What waits to be sent again is not declared lost by the second time."""
    async with waiting.a_lane(server.url) as (lane, _):
        await say(lane, 3)
        lane.add_status(Status.IDLE)
        await say(lane, 3)
        place = Cursor.parse("1-3")
        lane.repair(place)
        lane.repair(place)  # as by a check and, at once, a write that finds a gap
        entries = lane.waiting.peek(1000, 1 << 20)
        assert [(entry.kind, entry.seq) for entry in entries if entry.last > 3] == [
            ("m", 4), ("s", 5), ("m", 6), ("m", 7), ("m", 8)
        ]  # fmt: skip


async def test_an_end_that_redis_lost_is_written_again(server: Restartable) -> None:
    async with waiting.a_lane(server.url) as (lane, _):
        await say(lane, 5)
        server.remember()
        lane.add_end(Status.DONE, Reason.COMPLETED, None)
        await lane.flush()
        lane.close()  # as the host does
        before = await history(server)
        go_back(server)
        await stands(server, "1-7")
    assert await history(server) == before


async def test_an_end_that_is_being_sent_again_while_its_session_is_let_go(server: Restartable) -> None:
    async with waiting.a_lane(server.url) as (lane, _):
        await say(lane, 5)
        server.remember()
        lane.add_end(Status.DONE, Reason.COMPLETED, None)
        await lane.flush()
        before = await history(server)
        go_back(server)
        lane.repair(Cursor.parse("1-6"))  # as the check does
        lane.close()  # as the host does, once it has cleaned up
        await stands(server, "1-7")
    assert [place for place, _, _ in await history(server)] == [place for place, _, _ in before]


async def test_a_claim_that_redis_lost_is_made_again(server: Restartable) -> None:
    async with AsyncAgentClient.from_url(server.url) as client:
        session = await client.start("demo", "hello", "s")
        server.remember()
        async with publishing(server.url, waiting.SETTINGS) as (publisher, ownership):
            lane = await claimed(publisher, ownership, "s")
            await say(lane, 5)
            go_back(server)
            await stands(server, "1-6")
            state = await session.state()
            assert (state.epoch, state.worker, lane.lost) == (1, "w", None)
            lane.add_end(Status.DONE, Reason.COMPLETED, None)
            await lane.flush()
    events = await history(server)
    assert [cursor for cursor, _, _ in events] == ["0-1", *(f"1-{seq}" for seq in range(1, 8))]
    assert (events[1][2].from_, events[1][2].to) == ("0-2", "1-1")  # the claim's own event


async def test_a_removed_session_stays_removed(server: Restartable) -> None:
    async with waiting.a_lane(server.url) as (lane, publisher), AsyncAgentClient.from_url(server.url) as client:
        lane.add_end(Status.DONE, Reason.COMPLETED, None)
        await lane.flush()
        lane.close()
        await client.session("s").remove()
        await publisher._losses.check_once()
        with redis.Redis.from_url(server.url) as raw:
            assert not raw.exists(STATE, EVENTS)


@pytest.mark.parametrize("how", ["queued", "claimed by the same worker"])
async def test_an_id_that_is_used_again_is_another_session(
    server: Restartable, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The old one's owner does not take it for a Redis that came back older, and sends nothing again."""
    looks = 0
    check = LossCheck.check_once

    async def counted(publisher: LossCheck) -> None:
        nonlocal looks
        await check(publisher)
        looks += 1

    monkeypatch.setattr(LossCheck, "check_once", counted)
    async with (
        AsyncAgentClient.from_url(server.url) as client,
        publishing(server.url, waiting.SETTINGS) as (publisher, ownership),
    ):
        session = await client.start("demo", "hello", "s")
        lane = await claimed(publisher, ownership, "s")
        await say(lane, 20)
        lane.add_end(Status.DONE, Reason.COMPLETED, None)
        await lane.flush()
        lane.close()
        await session.remove()
        session = await client.start("demo", "another", "s")
        expected = ["2-1"]  # above the epochs of the one before
        if how != "queued":
            await claimed(publisher, ownership, "s")
            expected.append("3-1")
        looks = 0
        await waiting.true(lambda: looks >= 2)
        with redis.Redis.from_url(server.url) as raw:
            entries: Any = raw.xrange(EVENTS)
        assert [place.decode() for place, _ in entries] == expected
        assert (await session.state()).cursor == expected[-1]


# -- whole sessions, and commands


async def test_a_session_that_began_and_ended_in_the_lost_seconds_is_given_back(server: Restartable) -> None:
    server.remember()
    async with waiting.a_lane(server.url) as (lane, _):
        await say(lane, 5)
        lane.add_end(Status.DONE, Reason.COMPLETED, None)
        await lane.flush()
        lane.close()  # as the host does
        before = await history(server)
        go_back(server)
        await stands(server, "1-7")
        async with AsyncAgentClient.from_url(server.url) as client:
            assert [session.id for session in await client.sessions()] == ["s"]
    lost, *events = await history(server)
    assert events == before[2:]
    assert (lost[2].code, lost[2].from_, lost[2].to) == ("history_lost", "0-1", "1-1")  # what the claim wrote


async def test_an_end_whose_events_are_forgotten_here_is_given_back(
    server: Restartable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with waiting.a_lane(server.url) as (lane, _):
        await say(lane, 5)
        server.remember()
        await say(lane, 5)
        lane.add_end(Status.ERROR, Reason.FAILED, "Exit code: 3")
        await lane.flush()
        lane.close()
        lane.forget(float("inf"))  # as time does
        go_back(server)
        await stands(server, "1-12")
        async with AsyncAgentClient.from_url(server.url) as client:
            state = await client.session("s").state()
            assert (state.status, state.reason, state.error) == ("error", "failed", "Exit code: 3")
    events = await history(server)
    assert [(content.from_, content.to) for _, kind, content in events if kind == "error"] == [("1-7", "1-11")]


async def test_a_later_session_is_not_given_up_for_an_earlier_one_by_its_id(server: Restartable) -> None:
    async with AsyncAgentClient.from_url(server.url) as client:
        earlier = await client.start("demo", "earlier", "s")
        server.remember()
        await earlier.stop()
        await earlier.remove()
        later = await client.start("demo", "later", "s")
        async with publishing(server.url, waiting.SETTINGS) as (publisher, ownership):
            lane = await claimed(publisher, ownership, "s")
            await say(lane, 5)
            last = f"{lane.epoch}-{lane.written}"
            go_back(server)
            await stands(server, last)
            with redis.Redis.from_url(server.url) as raw:
                assert raw.hget(STATE, "prompt") == b"later"
                entries: Any = raw.xrange(EVENTS)
            assert all(place.startswith(b"%d-" % lane.epoch) for place, _ in entries)
            assert lane.lost is None
            assert (await later.state()).worker == "w"
            lane.add_end(Status.DONE, Reason.COMPLETED, None)
            await lane.flush()


class Answering:
    """In a session's place: answers each command at once, and keeps what it was given."""

    id = "s"

    def __init__(self, lane: EventLog) -> None:
        self.lane = lane
        self.got: list[str] = []

    def deliver(self, waiting: InboxCommand) -> None:
        command = waiting.command
        self.got.append(command.command_id)
        if command.command_id != "queued":
            self.lane.add_receipt(command.command_id, command.command, "applied", None, waiting.entry)

    def reject(self, entry: bytes, command_id: str, command: str, reason: str) -> None:
        self.got.append(f"{command_id} rejected")
        self.lane.add_receipt(command_id, command, "rejected", reason, entry)


def inbox_of(server: Restartable) -> list[str]:
    with redis.Redis.from_url(server.url) as raw:
        entries: Any = raw.xrange(Keys().inbox("s"))
    return [json.loads(fields[b"command"])["commandId"] for _, fields in entries]


async def test_no_command_is_given_twice_where_redis_has_it_again(
    server: Restartable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "KEPT_BYTES", 0)  # receipts are written again by themselves, not among the events
    async with waiting.a_lane(server.url) as (lane, _), AsyncAgentClient.from_url(server.url) as client:
        session, connection = client.session("s"), redis.asyncio.Redis.from_url(server.url)
        inboxes = InboxReader(connection, connection, waiting.SETTINGS)
        answering = Answering(lane)
        inboxes.add(answering, lane, 0)
        lane.on_repaired = lambda: inboxes.reread("s")
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(inboxes.deliver())
            for command_id in ("queued", "answered"):
                await session.prompt("x", command_id=command_id)
            server.remember()
            inboxes.read_all()
            await waiting.true(lambda: answering.got == ["queued", "answered"])
            await lane.flush()
            await say(lane, 20)
            go_back(server)
            await stands(server, "1-23")  # "answered" has its receipt again, behind what was lost
            assert inbox_of(server) == ["queued"]
            await session.prompt("x", command_id="new")
            inboxes.read_all()
            await waiting.true(lambda: answering.got == ["queued", "answered", "new"])
            await lane.flush()
            reading.cancel()
        await connection.aclose()
        receipt = await session.prompt("x", command_id="answered", wait=True)
        assert receipt is not None
        assert receipt.outcome == "applied"


async def test_a_command_that_an_earlier_owner_may_have_carried_out_is_rejected(server: Restartable) -> None:
    async with AsyncAgentClient.from_url(server.url) as client:
        session = await client.start("demo", "hello", "s")
        await session.prompt("x", command_id="carried out")
        server.remember()
        async with publishing(server.url, waiting.SETTINGS) as (publisher, first):
            earlier = await claimed(publisher, first, "s")
            with redis.Redis.from_url(server.url) as raw:
                ((entry, _),) = raw.xrange(Keys().inbox("s"))
            earlier.add_receipt("carried out", "prompt", "applied", None, entry)
            earlier.add_status(Status.RECOVERING, {"worker": "", "token": "", "claim": ""})
            await earlier.flush()
        async with publishing(server.url, waiting.SETTINGS) as (publisher, second):
            lane = await claimed(publisher, second, "s")
            answering = Answering(lane)
            with redis.Redis.from_url(server.url) as raw:
                second.inboxes.add(answering, lane, int(raw.hget(STATE, "updatedAt") or 0))
            lane.on_repaired = lambda: second.inboxes.reread("s")
            await say(lane, 3)
            await second.inboxes._read(["s"])  # the inbox is empty
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(second.inboxes.deliver())
                go_back(server)
                second.inboxes.read_all()  # before the loss is found
                await waiting.true(lambda: answering.got == ["carried out rejected"])
                await lane.flush()
                reading.cancel()
            assert inbox_of(server) == []
