"""The list of what waits for an answer, over all sessions, with real workers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import redis

from agentrq import AgentClient, AsyncAgentClient
from agentrq.wire.keys import Keys
from agentrq.wire.messages import ApprovalRequest
from tests.producer.session_writer import Writer
from tests.rq_checks import eventually
from tests.sessions import asked, until
from tests.workers import Worker

KEYS = Keys()
Start = Callable[..., Worker]
FAST = ("--lease-s", "2", "--beat-s", "0.4")


@pytest.mark.usefixtures("fake_claude")
async def test_what_waits_is_listed_oldest_first_until_it_is_answered(
    client: AsyncAgentClient, start_worker: Start, redis_url: str, raw: redis.Redis
) -> None:
    start_worker()
    sessions = []
    for command in ("ls", "make"):
        session = await client.start(
            "fake-claude", f"ask {command}", permission_mode="default", cwd="/tmp", metadata={"tenant": "acme"},
            approvals={"deadlineS": 500},
        )  # fmt: skip
        await until(session, "waiting")
        sessions.append(session)
    waiting = await client.waiting()
    with AgentClient.from_url(redis_url) as other:
        assert other.waiting() == waiting
    assert [each.session_id for each in waiting] == [session.id for session in sessions]
    for each, session, command in zip(waiting, sessions, ("ls", "make"), strict=True):
        message = await asked(session)
        assert each.content == message.content
        assert isinstance(each.content, ApprovalRequest)
        assert each.content.input == {"command": command}
        request = each.request
        assert (request.id, request.kind, request.name) == (each.content.request_id, "approval", each.content.name)
        assert request.cursor == message.cursor
        assert abs(request.asked_at - message.timestamp) < 2000
        assert request.deadline == request.asked_at + 500_000
        assert each.state.requests == (request,)
        assert (each.state.cwd, each.state.metadata) == ("/tmp", {"tenant": "acme"})
    await sessions[0].answer(waiting[0].request.id, "allow", wait=True, timeout=20)
    await until(sessions[0], "idle")
    assert [each.session_id for each in await client.waiting()] == [sessions[1].id]
    assert (await sessions[0].state()).requests == ()
    await sessions[1].stop()
    assert (await sessions[1].wait(20)).requests == ()
    assert await client.waiting() == []
    assert raw.exists(KEYS.waiting) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("fake_claude")
async def test_a_killed_workers_request_stays_listed_and_keeps_its_time(
    client: AsyncAgentClient, start_worker: Start
) -> None:
    first = start_worker(*FAST)
    session = await client.start("fake-claude", "ask make", permission_mode="default", on_interrupt="continue")
    waiting = await until(session, "waiting")
    (before,) = await client.waiting()
    first.kill()
    (lost,) = await client.waiting()
    assert lost.request == before.request
    start_worker(*FAST)
    await until(session, "waiting", waiting)
    (after,) = await client.waiting()
    assert after.request.id == before.request.id
    assert abs(after.request.asked_at - before.request.asked_at) < 2000
    assert after.content is not None
    assert after.content.request_id == after.request.id
    await session.answer(after.request.id, "allow", wait=True, timeout=20)
    await session.stop()
    await session.wait(20)
    assert await client.waiting() == []


def waits(writer: Writer, *, requests: list[dict[str, Any]] | None, open_requests: list[str]) -> None:
    """Write what an owner writes into the state of a session that asks."""
    fields: Any = {"openRequests": json.dumps(open_requests), "pendingApprovals": len(open_requests)}
    if requests is not None:
        fields["requests"] = json.dumps(requests)
    writer.redis.hset(KEYS.state(writer.sid), mapping=fields)


async def test_an_older_owners_requests_are_found_in_its_stream(client: AsyncAgentClient, redis_url: str) -> None:
    writer = Writer.start(redis_url, "older")
    writer.statuses("running")
    writer.message("approval_request", {"requestId": "r1", "name": "Bash", "input": {"command": "ls"}})
    writer.message("approval_request", {"requestId": "r2", "name": "Bash", "input": {"command": "rm"}})
    writer.message("approval_resolved", {"requestId": "r1", "decision": "allow", "by": "me"})
    waits(writer, requests=None, open_requests=["r2"])
    writer.redis.zadd(KEYS.waiting, {"older": 1})
    (found,) = await client.waiting()
    assert (found.request.id, found.request.name, found.request.cursor) == ("r2", "Bash", f"{writer.epoch}-4")
    assert isinstance(found.content, ApprovalRequest)
    assert writer.redis.zcard(KEYS.waiting) == 1


async def test_an_index_that_is_wrong_is_put_right(
    client: AsyncAgentClient, start_worker: Start, redis_url: str, raw: redis.Redis
) -> None:
    """Names that wait for nothing leave it; a session that an older worker left waiting comes into it."""
    await client.start("fake", "Do it", "queued")
    raw.zadd(KEYS.waiting, {"queued": 1, "gone": 2})
    raw.zadd(KEYS.waiting, {b"\xff{}": 3})
    raw.set(KEYS.state("odd"), "not a hash")
    raw.zadd(KEYS.waiting, {"odd": 4})
    assert await client.waiting() == []
    assert raw.zrange(KEYS.waiting, 0, -1) == [b"\xff{}"]
    older = Writer.start(redis_url, "older")
    older.redis.set(KEYS.worker("fake-worker"), "token")
    older.statuses("running")
    older.message("question", {"requestId": "q1", "questions": []})
    waits(older, requests=None, open_requests=["q1"])
    start_worker(*FAST)
    await eventually(lambda: raw.zscore(KEYS.waiting, "older") is not None)
    (found,) = await client.waiting()
    assert (found.session_id, found.request.id, found.request.kind) == ("older", "q1", "question")


async def test_requests_that_an_older_worker_answered_are_not_open(client: AsyncAgentClient, redis_url: str) -> None:
    """It took the session over from a worker of this version, and does not know the field."""
    writer = Writer.start(redis_url, "s")
    each = {"kind": "approval", "name": "Bash", "askedAt": 5, "cursor": "1-9"}
    waits(writer, requests=[each | {"id": "r1"}, each | {"id": "r2"}], open_requests=["r2"])
    state = await client.session("s").state()
    assert [request.id for request in state.requests] == ["r2"]
    writer.redis.zadd(KEYS.waiting, {"s": 5})
    (found,) = await client.waiting()
    assert (found.request.id, found.content) == ("r2", None)


async def test_a_removed_session_waits_no_more(client: AsyncAgentClient, redis_url: str, raw: redis.Redis) -> None:
    writer = Writer.start(redis_url, "s")
    waits(writer, requests=[{"id": "r", "kind": "question", "askedAt": 5}], open_requests=["r"])
    raw.zadd(KEYS.waiting, {"s": 5})
    raw.hset(KEYS.state("s"), "status", "done")
    await client.session("s").remove()
    assert raw.exists(KEYS.waiting) == 0
    assert await asyncio.wait_for(client.waiting(), 10) == []


def test_many_sessions_cost_the_list_nothing(client: AsyncAgentClient, redis_url: str, raw: redis.Redis) -> None:
    """The commands that Redis runs for the list depend on what waits, not on how many sessions there are."""
    with AgentClient.from_url(redis_url) as other:
        counts = []
        for more in (2, 40):
            for number in range(more):
                other.start("fake", "Do it", f"s{more}-{number}")
            raw.config_resetstat()
            assert other.waiting() == []
            stats: Any = raw.info("commandstats")
            counts.append({name: stat["calls"] for name, stat in stats.items() if name != "cmdstat_config|resetstat"})
        assert counts[0] == counts[1]
