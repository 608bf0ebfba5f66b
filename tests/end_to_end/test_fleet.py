"""``client.fleet()`` with real workers: what no single worker knows."""

from __future__ import annotations

from collections.abc import Callable

import redis

from agentrq import AsyncAgentClient, Fleet
from agentrq.client import AgentClient
from tests.polling import wait_until
from tests.sessions import until
from tests.workers import Worker


async def test_the_fleet_tells_its_workers_slots_and_the_queue(
    client: AsyncAgentClient, redis_url: str, start_worker: Callable[..., Worker]
) -> None:
    sync_client = AgentClient.from_url(redis_url)
    busy = start_worker("--name", "busy", "--max-sessions", "1")
    session = await client.start("demo", "/sleep 60")
    await until(session, "running")
    start_worker("--name", "dead", "--lease-s", "1", "--beat-s", "0.3").kill()

    def told() -> Fleet | None:
        fleet = sync_client.fleet()
        by_name = {worker.name: worker for worker in fleet.workers}
        ready = by_name["busy"].free == 0 and not by_name["dead"].alive
        return fleet if ready else None

    wait_until(told)
    waiting = await client.start("demo", "/echo hi")
    fleet = await client.fleet()
    worker = next(worker for worker in fleet.workers if worker.name == "busy")
    assert (worker.slots, worker.free, worker.draining, worker.pid) == (1, 0, False, busy.pid)
    assert worker.version
    assert worker.host
    assert worker.alive
    assert worker.lease_ms is not None
    assert 0 < worker.lease_ms <= 10_000
    assert (fleet.queue, fleet.queue_length, fleet.commands_length, fleet.suspended) == ("agentrq", 1, 0, False)
    created = (await waiting.state()).created_at
    assert fleet.oldest_ms == created
    busy.process.terminate()
    wait_until(lambda: any(each.draining for each in sync_client.fleet().workers))
    await session.stop()
    sync_client.close()


async def test_an_empty_fleet_is_empty(client: AsyncAgentClient, raw: redis.Redis) -> None:
    raw.set("rq:suspended", 1)
    fleet = await client.fleet()
    assert (fleet.workers, fleet.queue_length, fleet.oldest_ms, fleet.suspended) == ([], 0, None, True)


async def test_a_start_of_rqs_own_without_a_session_has_an_age_too(client: AsyncAgentClient, raw: redis.Redis) -> None:
    raw.hset("rq:job:j", mapping={"created_at": "2026-11-22T10:00:00.000000Z"})
    raw.rpush("rq:queue:agentrq", "j")
    assert (await client.fleet()).oldest_ms == 1795341600000
    raw.hset("rq:job:j", mapping={"created_at": "soon"})
    assert (await client.fleet()).oldest_ms is None
