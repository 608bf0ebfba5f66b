"""A session from start to end, through the real worker, as clients and plain Redis commands see it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from agentrq import AgentClient, AsyncAgentClient, Message, Receipt, SessionEnded, StatusEvent
from agentrq.wire.status import MOVES, Status
from tests.rq_checks import eventually
from tests.sessions import contents, until
from tests.workers import Worker

Start = Callable[..., Worker]


@pytest.mark.both_loops
async def test_a_session_is_seen_whole_from_start_to_end(
    client: AsyncAgentClient, start_worker: Start, raw: Any, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text("hello\n")
    start_worker()
    session = await client.start("demo", "look", cwd=str(tmp_path), metadata={"team": "blue"})
    idle = await until(session, "idle")
    await session.prompt("again")
    await until(session, "idle", idle)
    await session.stop()
    state = await session.wait(20)
    assert (state.status, state.reason, state.num_turns, state.metadata) == ("done", "stopped", 2, {"team": "blue"})
    events = [event async for event in session.events()]
    statuses = [event.status for event in events if isinstance(event, StatusEvent)]
    for before, after in itertools.pairwise(statuses):
        assert Status(after) in MOVES[Status(before)], (before, after)
    assert statuses[0] == "queued"
    assert statuses[-1] == "done"
    prompts = [content.text for content in contents(events, "prompt")]
    assert prompts == ["look", "again"]
    types = {event.type for event in events if isinstance(event, Message)}
    assert types >= {
        "prompt", "init", "text", "thinking", "tool_call", "tool_result", "status", "compaction", "cost",
        "approval_request", "approval_resolved", "rate_limit", "question", "error", "unknown",
    }  # fmt: skip
    # The stream is exactly the entries, each with one field; cursors rise without a hole in their epoch.
    entries = raw.xrange(f"agentrq:{{{session.id}}}:events")
    assert [place.decode() for place, _ in entries] == [event.cursor for event in events]
    assert all(len(fields) == 1 for _, fields in entries)
    assert state.cursor == events[-1].cursor
    after_half = [event async for event in session.events(events[len(events) // 2].cursor)]
    assert after_half == events[len(events) // 2 + 1 :]


async def test_a_plain_subscriber_sees_what_a_client_sees(
    client: AsyncAgentClient, start_worker: Start, redis_url: str
) -> None:
    """No library of ours: redis-py, JSON, two channels."""
    start_worker()
    sid = "plain"
    plain: Any = redis.Redis.from_url(redis_url)
    pubsub = plain.pubsub(ignore_subscribe_messages=False)
    pubsub.subscribe(f"agentrq:{{{sid}}}:messages", f"agentrq:{{{sid}}}:status")
    for _ in range(2):
        assert pubsub.get_message(timeout=5)["type"] == "subscribe"
    session = await client.start("demo", "/echo hello", sid)
    await until(session, "idle")
    await session.stop()
    await session.wait(20)
    seen: list[dict[str, Any]] = []
    while (message := pubsub.get_message(timeout=1)) is not None:
        payload = json.loads(message["data"])
        seen += payload if isinstance(payload, list) else [payload]
    stream = [json.loads(next(iter(fields.values()))) for _, fields in plain.xrange(f"agentrq:{{{sid}}}:events")]
    assert [event for event in seen if "cursor" in event] == stream
    assert {event["type"] for event in seen if "cursor" not in event} <= {"text_delta", "thinking_delta"}
    pubsub.close()
    plain.close()


async def test_prompts_while_busy_queue_in_order(client: AsyncAgentClient, start_worker: Start) -> None:
    start_worker()
    session = await client.start("demo", "/sleep 2")
    ids = [await session.prompt(f"/echo {number}") for number in range(5)]
    async with asyncio.timeout(30):
        events = []
        async for event in session.events():
            events.append(event)
            if isinstance(event, StatusEvent) and event.status == "idle":
                break
    receipts = [event for event in events if isinstance(event, Receipt)]
    assert [(receipt.command_id, receipt.outcome) for receipt in receipts] == [(sid, "applied") for sid in ids]
    texts = [content.text for content in contents(events, "text")]
    assert texts[-5:] == [str(number) for number in range(5)]


@pytest.mark.parametrize(
    ("prompt", "status", "reason", "error"),
    [
        ("/crash 3", "error", "failed", "Exit code: 3"),
        ("/crash 0", "done", "completed", None),
    ],
)
async def test_the_state_says_how_the_runner_ended(
    client: AsyncAgentClient, start_worker: Start, prompt: str, status: str, reason: str, error: str | None
) -> None:
    start_worker()
    state = await (await client.start("demo", prompt)).wait(30)
    assert (state.status, state.reason, state.error) == (status, reason, error)


@pytest.mark.parametrize("pause", ["queued", "busy"])
async def test_a_stop_at_any_time_ends_the_session(
    client: AsyncAgentClient, start_worker: Start, raw: Any, pause: str
) -> None:
    if pause == "queued":
        session = await client.start("demo", "look")
        await session.stop()
        start_worker()
        assert raw.hget(f"rq:job:{session.id}", "status") == b"canceled"
    else:
        start_worker()
        session = await client.start("demo", "/sleep 60")
        await until(session, "running")
        await session.stop()
    state = await session.wait(30)
    assert (state.status, state.reason) == ("done", "stopped")
    assert await session.stop()  # an ended session stays as it is
    with pytest.raises(SessionEnded):
        await session.prompt("too late")


async def test_fifty_sessions_run_at_once(client: AsyncAgentClient, start_worker: Start, raw: Any) -> None:
    start_worker()
    sessions = [await client.start("demo", f"/lines 20 {50 + number}") for number in range(50)]
    await asyncio.gather(*(until(session, "idle") for session in sessions))
    for number, session in enumerate(sessions):
        texts = [content.text for content in contents([event async for event in _until_idle(session)], "text")]
        assert len(texts) == 20
        assert all(len(text) == 50 + number for text in texts)
    await asyncio.gather(*(session.stop() for session in sessions))
    states = await asyncio.gather(*(session.wait(60) for session in sessions))
    assert {state.status for state in states} == {Status.DONE}


async def _until_idle(session: Any) -> Any:
    async for event in session.events():
        if isinstance(event, StatusEvent) and event.status == "idle":
            return
        if isinstance(event, Message):
            yield event


def test_the_synchronous_client_runs_a_session(redis_url: str, start_worker: Start) -> None:
    start_worker()
    with AgentClient.from_url(redis_url) as client:
        session = client.start("demo", "/echo hi")
        kinds = []
        for event in session.events():
            if isinstance(event, Message):
                kinds.append(event.type)
            if isinstance(event, StatusEvent) and event.status == "idle":
                receipt = session.prompt("/echo more", wait=True, timeout=20)
                assert receipt.outcome == "applied"
                session.stop()
                break
        assert kinds.count("prompt") == 1
        assert session.wait(30).status == "done"
        assert [known.id for known in client.sessions()] == [session.id]
        session.remove()
        assert client.sessions().sessions == []


async def test_rqs_job_agrees_with_the_sessions_state(client: AsyncAgentClient, start_worker: Start, raw: Any) -> None:
    worker = start_worker()
    good = await client.start("demo", "/echo hi")
    await until(good, "idle")
    await eventually(lambda: raw.hget(f"rq:job:{good.id}", "status") == b"started")
    assert raw.scard(f"rq:worker:{worker.name}:executions") == 1
    await good.stop()
    bad = await client.start("demo", "/crash 7")
    await good.wait(20)
    await bad.wait(20)
    worker.wait_log(f"session {bad.id}: error")
    assert worker.terminate() == 0
    assert raw.hget(f"rq:job:{good.id}", "status") == b"finished"
    assert raw.hget(f"rq:job:{bad.id}", "status") == b"failed"
    result = raw.xrange(f"rq:results:{good.id}")[-1][1]
    assert msgspec.json.decode(base64.b64decode(result[b"return_value"]))["status"] == "done"
    assert raw.zcard("rq:wip:agentrq") == 0
