"""Sessions without an owner: put back for others, given up after the recovery timeout by whoever looks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import redis
from rq.suspension import resume, suspend

from agentrq import AgentClient, AsyncAgentClient
from agentrq.client import owner_watch
from agentrq.client.owner_watch import OwnerWatch
from agentrq.client.redis_requests import Context
from agentrq.connection import connect_async
from agentrq_worker.ownership import owner_leases
from agentrq_worker.ownership import recovery_scanner as maintenance_module
from agentrq_worker.ownership.owner_leases import CONFIRM_S
from agentrq_worker.ownership.ownership import Ownership, SessionSnapshot
from agentrq_worker.ownership.recovery_scanner import RecoveryScanner
from agentrq_worker.settings import Settings

SETTINGS = Settings(name="w", recovery_timeout_s=120.0)


class Clock:
    """`time` as the code under test sees it, and set forward by hand."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


class JobHandler:
    """RQ's side: every job goes into its queue."""

    def __init__(self) -> None:
        self.enqueued: list[str] = []

    async def enqueue(self, job_id: str, look: SessionSnapshot) -> bool:
        self.enqueued.append(job_id)
        return True

    async def conclude(self, job_id: str, look: SessionSnapshot) -> None:
        raise AssertionError("nothing has ended")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(maintenance_module, "time", clock)
    monkeypatch.setattr(owner_leases, "time", clock)
    monkeypatch.setattr(owner_watch, "time", clock)
    return clock


@pytest.fixture
async def ownership(client: AsyncAgentClient, redis_url: str, raw: redis.Redis) -> AsyncIterator[Ownership]:
    """Of another worker than the one that had claimed the session ``lost`` and is gone."""
    await client.start("demo", "hello", "lost")
    async with connect_async(redis_url) as connection:
        dead = Ownership(connection, connection, Settings(name="dead"))
        await dead.lease.begin()
        look = await dead.fetch_session("lost")
        assert look is not None
        assert await dead.claim_session(look) is not None
        await dead.lease.end()
        yield Ownership(connection, connection, SETTINGS)


def ended(raw: redis.Redis) -> tuple[object, object]:
    return raw.hget("agentrq:{lost}:state", "status"), raw.hget("agentrq:{lost}:state", "reason")


async def test_a_worker_gives_up_in_time_and_not_while_suspended(
    redis_url: str, ownership: Ownership, raw: redis.Redis, clock: Clock
) -> None:
    jobs = JobHandler()
    async with connect_async(redis_url) as connection:
        maintenance = RecoveryScanner(connection, ownership, SETTINGS, jobs)
        await maintenance.scan_once()
        assert jobs.enqueued == []  # a lease is lost at the second look
        clock.ahead += CONFIRM_S
        await maintenance.scan_once()
        assert jobs.enqueued == ["lost"]
        suspend(raw)
        for _ in range(3):
            clock.ahead += 1000
            await maintenance.scan_once()
        assert ended(raw) == (b"starting", None)
        resume(raw)
        clock.ahead += 119
        await maintenance.scan_once()
        assert ended(raw) == (b"starting", None)
        clock.ahead += 2
        await maintenance.scan_once()
        assert ended(raw) == (b"error", b"lost")


@pytest.mark.usefixtures("ownership")
def test_a_reader_gives_up_in_time_and_not_while_suspended(redis_url: str, raw: redis.Redis, clock: Clock) -> None:
    with AgentClient.from_url(redis_url) as client:
        watch = OwnerWatch(Context(client.context.keys, client.context.queue, recovery_timeout_s=120.0), "lost")
        suspend(raw)
        for _ in range(3):
            clock.ahead += 1000
            client.run(watch.check())
        resume(raw)
        client.run(watch.check())
        clock.ahead += 119
        client.run(watch.check())
        assert ended(raw) == (b"starting", None)
        clock.ahead += 2
        client.run(watch.check())
        assert ended(raw) == (b"error", b"lost")


async def test_an_expired_session_leaves_the_index(
    redis_url: str, client: AsyncAgentClient, raw: redis.Redis, clock: Clock
) -> None:
    """Its id, used again, is looked after again."""
    jobs, settings = JobHandler(), Settings(name="w", retention_s=3600)
    async with connect_async(redis_url) as connection:
        maintenance = RecoveryScanner(connection, Ownership(connection, connection, settings), settings, jobs)
        session = await client.start("demo", "hello", "again")
        raw.zadd("agentrq:sessions", {"again": 1})
        await session.stop()
        await maintenance.scan_once()
        raw.delete(*raw.keys("agentrq:{again}:*"))  # as time does
        await client.start("demo", "hello", "again")
        assert raw.zscore("agentrq:sessions", "again") != 1
        raw.delete("rq:queue:agentrq", "rq:job:again")
        await maintenance.scan_once()
        clock.ahead += 10
        await maintenance.scan_once()
        assert jobs.enqueued == ["again"]
        await client.session("again").stop()
        raw.zadd("agentrq:sessions", {"again": 1})
        await maintenance.scan_once()
        raw.delete(*raw.keys("agentrq:{again}:*"))
        await maintenance.scan_once()
        assert raw.zcard("agentrq:sessions") == 0
