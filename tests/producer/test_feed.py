"""The feed as clients read it: places, consumers, gaps; and that a repeated write tells it nothing twice."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from agentrq import AgentClient, AsyncAgentClient, FeedEntry, FeedGap, InvalidOption
from agentrq.script_runner import ScriptRunner
from agentrq.wire import script_calls
from agentrq.wire.feed import feed_members, trim_feed
from agentrq.wire.owner_calls import EventWrites, Run, WriteLimits, WriteTarget
from tests.producer.command_line import run_cli
from tests.producer.session_writer import KEYS, Writer


@pytest.fixture
def sync_client(redis_url: str) -> Iterator[AgentClient]:
    with AgentClient.from_url(redis_url) as client:
        yield client


def now(client: AgentClient, consumer: str | None = None, **options: Any) -> list[FeedEntry | FeedGap]:
    return list(client.feed(consumer, follow=False, **options))


def kinds(entries: list[FeedEntry | FeedGap]) -> list[str]:
    return [entry.kind if isinstance(entry, FeedEntry) else "gap" for entry in entries]


def put(raw: redis.Redis, *times: int) -> None:
    """Entries of these times."""
    for time in times:
        entry = json.dumps({"kind": "status", "sessionId": "a", "time": time, "status": "idle"})
        raw.xadd(KEYS.feed, {"entry": entry}, id=f"{time}-0")


def trim(raw: redis.Redis, most: int, oldest: int = 0, at_once: int = 5000) -> int:
    return ScriptRunner(raw).run(trim_feed(KEYS, most, oldest, at_once))


def told(writer: Writer, kind: str, event: dict[str, Any], *feed: bytes) -> Any:
    """Write one event with what the feed is told; the call, to be repeated."""
    run = Run(kind, writer.seq + 1, [json.dumps(event).encode()], feed=list(feed))
    keys, channels = (
        script_calls.session_keys(KEYS, writer.sid),
        (KEYS.messages_channel(writer.sid), KEYS.status_channel(writer.sid)),
    )
    writes = EventWrites(WriteLimits(100, 1 << 20, 60_000), 1_763_793_000_123)
    target = WriteTarget(writer.sid, writer.epoch, writer.fence, keys, *channels)
    writes.add(target, {}, [run], quick=True)
    return lambda: writer._write_events(keys=writes.keys, args=writes.args)


def test_what_clients_and_claims_do_is_told_in_order(redis_url: str, sync_client: AgentClient) -> None:
    writer = Writer.start(redis_url, "a")
    writer.end("done", "completed")
    sync_client.session("a").remove()
    entries = now(sync_client)
    assert kinds(entries) == ["started", "status", "ended", "removed"]
    assert [getattr(entry, "status", None) for entry in entries] == ["queued", "starting", "done", None]
    assert [getattr(entry, "cursor", None) for entry in entries] == ["0-1", "1-1", "1-2", "1-2"]
    assert all(isinstance(entry, FeedEntry) and entry.session_id == "a" and entry.provider == "fake" and entry.time
               for entry in entries)  # fmt: skip


def test_a_write_whose_reply_was_lost_tells_the_feed_once(redis_url: str, sync_client: AgentClient) -> None:
    writer = Writer.start(redis_url, "a")
    call = told(writer, "m", {"cursor": "1-2"}, feed_members("turn", turn="whole", inputTokens=1, outputTokens=2))
    call()
    call()
    writer.seq += 1
    end = told(writer, "e", {"status": "done"}, feed_members("turn", turn="cut", inputTokens=0, outputTokens=0))
    writer.redis.hset(KEYS.state("a"), mapping={"status": "running"})
    end()
    end()
    assert kinds(now(sync_client)) == ["started", "status", "turn", "turn", "ended"]


def test_an_event_that_is_not_written_tells_the_feed_nothing(redis_url: str, sync_client: AgentClient) -> None:
    writer = Writer.start(redis_url, "a")
    writer.seq += 3  # a gap before it
    told(writer, "s", {"status": "running"}, feed_members("status", status="running"))()
    writer.seq, writer.fence = 1, "another claim"
    told(writer, "s", {"status": "running"}, feed_members("status", status="running"))()
    assert kinds(now(sync_client)) == ["started", "status"]


def test_a_session_that_is_ended_for_its_lost_worker_has_its_turn_told_as_cut(
    redis_url: str, sync_client: AgentClient
) -> None:
    writer = Writer.start(redis_url, "a")
    writer.redis.hset(KEYS.state("a"), "turn", 1)
    sync_client.session("a").stop()
    turn, ended = now(sync_client)[-2:]
    assert isinstance(turn, FeedEntry)
    assert isinstance(ended, FeedEntry)
    assert (turn.kind, turn.turn, ended.kind, ended.reason) == ("turn", "cut", "ended", "stopped")


def test_a_consumer_goes_on_where_it_was(sync_client: AgentClient, raw: redis.Redis) -> None:
    put(raw, 1, 2, 3)
    assert [getattr(each, "time", None) for each in now(sync_client, "billing")] == [1, 2, 3]
    put(raw, 4)
    assert [getattr(each, "time", None) for each in now(sync_client, "billing")] == [4]
    assert now(sync_client, "billing") == []
    assert len(now(sync_client, "another")) == 4


def test_a_killed_process_loses_no_entry(sync_client: AgentClient, raw: redis.Redis) -> None:
    put(raw, 1, 2, 3)
    killed = sync_client.feed("billing", process="one", follow=False)
    assert [getattr(next(killed), "time", None) for _ in range(2)] == [1, 2]  # the first is done, which nobody was told
    again = now(sync_client, "billing", process="one")
    assert [getattr(each, "time", None) for each in again] == [1, 2, 3]
    put(raw, 4)
    held = sync_client.feed("billing", process="two", follow=False)
    next(held)
    assert now(sync_client, "billing", process="three", takeover_s=1000) == []
    raw.xclaim(KEYS.feed, "billing", "two", 0, ["4-0"], idle=5000)
    taken = now(sync_client, "billing", process="three", takeover_s=4)
    assert [getattr(each, "time", None) for each in taken] == [4]


def test_an_entry_is_done_when_the_next_is_asked_for(sync_client: AgentClient, raw: redis.Redis) -> None:
    put(raw, 1, 2)
    for _ in (entries := sync_client.feed("billing", process="one", follow=False)):
        break
    entries.close()  # type: ignore[attr-defined]  # a generator
    assert len(now(sync_client, "billing", process="one")) == 2


def test_processes_share_a_consumers_entries(sync_client: AgentClient, raw: redis.Redis, redis_url: str) -> None:
    put(raw, *range(1, 501))
    seen: list[str] = []

    def read() -> None:
        with AgentClient.from_url(redis_url) as client:
            seen.extend(entry.id for entry in client.feed("billing", follow=False) if isinstance(entry, FeedEntry))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(seen) == sorted(f"{time}-0" for time in range(1, 501))
    assert raw.xpending(KEYS.feed, "billing")["pending"] == 0
    assert raw.xinfo_consumers(KEYS.feed, "billing") == []


def test_a_consumer_that_is_too_late_is_told_once(sync_client: AgentClient, raw: redis.Redis) -> None:
    put(raw, 1, 2)
    assert len(now(sync_client, "billing")) == 2
    put(raw, 3, 4, 5)
    assert trim(raw, 1) == 4
    assert now(sync_client, "billing")[0] == FeedGap("2-0", "4-0")
    assert now(sync_client, "billing") == []
    assert now(sync_client, after="1-0")[0] == FeedGap("1-0", "4-0")
    assert kinds(now(sync_client, after="4-0")) == ["status"]
    assert kinds(now(sync_client)) == ["status"]
    assert kinds(now(sync_client, "new")) == ["status"]


def test_what_was_dropped_after_it_was_read_is_no_gap(sync_client: AgentClient, raw: redis.Redis) -> None:
    put(raw, 1, 2, 3)
    assert len(now(sync_client, "billing")) == 3
    assert trim(raw, 10, oldest=10) == 3
    assert now(sync_client, "billing") == []
    put(raw, 11)
    assert kinds(now(sync_client, "billing")) == ["status"]
    assert kinds(now(sync_client, after="3-0")) == ["status"]


def test_entries_dropped_before_they_were_done_are_a_gap(sync_client: AgentClient, raw: redis.Redis) -> None:
    put(raw, 1, 2)
    held = sync_client.feed("billing", process="one", follow=False)
    next(held)
    trim(raw, 10, oldest=10)
    assert now(sync_client, "billing", process="one") == [FeedGap("0-0", "2-0")]
    assert now(sync_client, "billing", process="one") == []


@pytest.mark.parametrize(
    ("most", "oldest", "left"), [(3, 0, [3, 4, 5]), (10, 3, [3, 4, 5]), (2, 3, [4, 5]), (9, 99, [])]
)
def test_the_feed_is_bounded_by_size_and_age(
    sync_client: AgentClient, raw: redis.Redis, most: int, oldest: int, left: list[int]
) -> None:
    put(raw, 1, 2, 3, 4, 5)
    while trim(raw, most, oldest, at_once=2) == 2:
        pass
    assert [getattr(each, "time", None) for each in now(sync_client)] == left


async def test_a_follower_gets_what_comes(client: AsyncAgentClient, raw: redis.Redis) -> None:
    put(raw, 1)
    fresh, kept = client.feed(after="$"), client.feed("billing")
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        assert getattr(await anext(kept), "time", None) == 1
        waits = [group.create_task(next_of(entries)) for entries in (fresh, kept)]
        while len([each for each in raw.client_list() if each["cmd"] == "xread"]) < 2:
            await asyncio.sleep(0)
        put(raw, 2)
    assert [getattr(each.result(), "time", None) for each in waits] == [2, 2]
    await fresh.aclose()
    await kept.aclose()


async def next_of(entries: Any) -> FeedEntry | FeedGap:
    found: FeedEntry | FeedGap = await anext(entries)
    return found


@pytest.mark.parametrize("options", [
    {"consumer": "a b"}, {"consumer": ""}, {"after": "yesterday"}, {"process": "x"}, {"takeover_s": 0},
])  # fmt: skip
def test_a_reader_that_cannot_be_is_refused(sync_client: AgentClient, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        sync_client.feed(**options)


def test_a_feed_of_another_type_stands_in_no_sessions_way(redis_url: str, raw: redis.Redis) -> None:
    raw.set(KEYS.feed, "mine")
    Writer.start(redis_url, "a").end("done", "completed")
    assert raw.hget(KEYS.state("a"), "status") == b"done"


def test_the_command_line_shows_the_feed(redis_url: str, raw: redis.Redis) -> None:
    Writer.start(redis_url, "a").end("error", "failed")
    shown = run_cli("feed", "--no-follow", url=redis_url)
    assert [line.split()[3:] for line in shown.stdout.splitlines()] == [
        ["started", "queued"], ["status", "starting"], ["ended", "error", "failed"],
    ]  # fmt: skip
    lines = run_cli("feed", "--no-follow", "--json", "--consumer", "cli", url=redis_url).stdout.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["started", "status", "ended"]
    assert run_cli("feed", "--no-follow", "--json", "--consumer", "cli", url=redis_url).stdout == ""
    trim(raw, 1)
    assert (
        json.loads(run_cli("feed", "--no-follow", "--json", "--after", "1-0", url=redis_url).stdout.splitlines()[0])[
            "gap"
        ]["after"]
        == "1-0"
    )
    assert run_cli("feed", "--after", "never", url=redis_url).returncode == 2
