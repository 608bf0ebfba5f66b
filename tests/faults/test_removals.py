"""Sessions that are removed: nothing of them stays, and nobody brings them back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import redis

from agentrq import AgentClient, AsyncAgentClient, AsyncSession
from agentrq.wire.keys import Keys
from tests.rq_checks import eventually, fetch
from tests.sessions import until
from tests.workers import Worker

Start = Callable[..., Worker]
KEYS = Keys()
REGISTRIES = ("finished", "failed", "canceled", "wip")


def left(raw: redis.Redis, ids: Iterable[str]) -> list[str]:
    """All that Redis has of sessions, by key."""
    names = set(ids)
    found = [key.decode() for key in raw.scan_iter(count=1000) if any(name in key.decode() for name in names)]
    for index in (KEYS.sessions, *(f"rq:{registry}:agentrq" for registry in REGISTRIES)):
        entries: Any = raw.zrange(index, 0, -1)
        members = {member.decode().partition(":")[0] for member in entries}
        found += [f"{index}: {name}" for name in names & members]
    return found + [name for name in names if name.encode() in raw.lrange("rq:queue:agentrq", 0, -1)]


async def test_removed_as_soon_as_they_are_started(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    """Wherever the worker is with them: queued, taken, claimed, at work, at their end."""
    worker = start_worker()
    ids: list[str] = []

    async def one(delay: float) -> None:
        session = await client.start("demo", "/echo hi")
        ids.append(session.id)
        await asyncio.sleep(delay)
        await session.remove()

    async with asyncio.timeout(60):
        for _ in range(5):
            await asyncio.gather(*(one(0.004 * number) for number in range(16)))
        last = await client.start("demo", "/echo last")  # taken after all of them
        await until(last, "idle")
    await eventually(lambda: not left(raw, ids), "nothing is left of what was removed")
    assert [state.id for state in await client.sessions()] == [last.id]
    assert not [line for line in worker.log if "ERROR" in line]


async def test_another_by_the_same_id_begins_anew_in_rq_too(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    start_worker()
    for number in range(4):
        session = await client.start("demo", f"/echo {number}", "again", metadata={"number": str(number)})
        await until(session, "idle")
        # The worker may still be at the end of the one before.
        await eventually(lambda: fetch(raw, "again").latest_result() is None)
        await eventually(lambda: not any(raw.zscore(f"rq:{each}:agentrq", "again") for each in REGISTRIES[:3]))
        await session.remove()
    await eventually(lambda: not left(raw, ["again"]))


async def test_a_worker_that_thaws_lets_them_be(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    frozen = start_worker("--lease-s", "1", "--beat-s", "0.3", "--name", "frozen")
    session: AsyncSession = await client.start("demo", "/echo hi")
    await until(session, "idle")
    frozen.freeze()
    start_worker("--lease-s", "1", "--beat-s", "0.3", "--name", "other")
    await eventually(lambda: raw.hget(KEYS.state(session.id), "worker") == b"other")
    await until(session, "recovering")
    await session.remove()
    frozen.thaw()
    frozen.wait_log(f"session {session.id}: superseded")
    await eventually(lambda: not left(raw, [session.id]))
    served = await client.start("demo", "/echo after")
    await until(served, "idle")
    assert not left(raw, [session.id])


@pytest.mark.parametrize("how", ["async", "sync"])
async def test_who_may_not_follow_removes_all_the_same(
    client: AsyncAgentClient, start_worker: Start, redis_url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A live session is stopped and then asked for again and again: that takes no subscription."""
    start_worker()
    session = await client.start("demo", "/echo hi")
    await until(session, "idle")

    def refused(*_: object) -> None:
        raise AssertionError("it follows")

    if how == "async":
        monkeypatch.setattr(AsyncAgentClient, "follow", refused)
        await session.remove()
    else:
        with AgentClient.from_url(redis_url) as other:
            monkeypatch.setattr(AgentClient, "follow", refused)
            await asyncio.to_thread(other.session(session.id).remove)
    assert await client.sessions() == []
