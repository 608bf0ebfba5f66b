"""Deaths between two steps: each worker here does one step by hand and is gone; what it left is put right in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis
from rq import Queue
from rq.timeouts import TimerDeathPenalty

from agentrq import AsyncAgentClient
from agentrq.connection import connect, connect_async
from agentrq.wire import owner_calls
from agentrq.wire.keys import Keys
from agentrq.wire.status import Reason, Status
from agentrq_worker.ownership.ownership import Ownership, SessionSnapshot
from agentrq_worker.redis_clock import RedisClock
from agentrq_worker.rq.job import SessionJob
from agentrq_worker.rq.job_identity import identity_of
from agentrq_worker.rq.job_records import JobRecords
from agentrq_worker.rq.job_run import JobRun
from agentrq_worker.rq.orphan_jobs import OrphanJobRecords
from agentrq_worker.rq.worker import RqWorker
from agentrq_worker.settings import Settings
from tests.rq_checks import backend_queue, eventually, fetch, result_of, stuck
from tests.sessions import until
from tests.workers import Worker

Start = Callable[..., Worker]
FAST = ("--lease-s", "2", "--beat-s", "0.5", "--name", "living")
DOOMED = Settings(name="doomed", lease_s=2.0, beat_s=0.5)


@pytest.fixture
def doomed(redis_url: str) -> RqWorker:
    """A worker of which only parts will run."""
    return RqWorker(DOOMED, connect(redis_url, retries=0), lambda _: None)


@pytest.fixture
def records(doomed: RqWorker) -> JobRecords:
    return JobRecords(doomed, doomed.queues[0], DOOMED.keys, RedisClock())


@pytest.fixture
def orphans(doomed: RqWorker, records: JobRecords) -> OrphanJobRecords:
    return OrphanJobRecords(doomed.connection, DOOMED.keys, records)


async def snapshot(redis_url: str, session_id: str) -> SessionSnapshot:
    async with connect_async(redis_url) as client:
        session = await Ownership(client, client, DOOMED).fetch_session(session_id)
        assert session is not None
        return session


def dequeue(worker: RqWorker, queue: Queue) -> SessionJob:
    taken: Any = Queue.dequeue_any([queue], 1, worker.connection, SessionJob, worker.serializer, TimerDeathPenalty)
    return taken[0]  # type: ignore[no-any-return]


def dequeue_run(worker: RqWorker, raw: redis.Redis) -> JobRun:
    return JobRun(dequeue(worker, backend_queue(raw)), worker.queues[0])


async def claim(redis_url: str, session_id: str, *, end: bool = False) -> str:
    """Take the lease and the session, perhaps end it, and be gone; answers the claim."""
    async with connect_async(redis_url) as client:
        ownership = Ownership(client, client, DOOMED)
        await ownership.lease.begin()
        look = await ownership.fetch_session(session_id)
        assert look is not None
        claimed = await ownership.claim_session(look)
        assert claimed is not None
        if end:
            look = await ownership.fetch_session(session_id)
            assert look is not None
            await ownership.end_session(look, Status.DONE, Reason.COMPLETED, "")
        return str(claimed.state["claim"])


@pytest.mark.parametrize("by", ["client", "rq"])
async def test_a_worker_killed_between_dequeue_and_claim_loses_no_start(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, doomed: RqWorker, by: str
) -> None:
    queue = backend_queue(raw)
    sid = "mine"
    if by == "client":
        await client.start("demo", "/echo hi", sid)
    else:
        queue.enqueue("agentrq.start", None, "demo", "/echo hi", job_id=sid)
    assert dequeue(doomed, queue).id == sid
    start_worker(*FAST)
    await eventually(lambda: raw.exists("agentrq:{mine}:state"))
    session = client.session(sid)
    await until(session, "idle")
    await session.stop()
    assert (await session.wait(20)).epoch == 1
    assert (await result_of(raw, sid))[0] == "finished"
    await eventually(lambda: not stuck(raw))


async def test_a_worker_killed_with_a_dequeued_command_loses_none(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, doomed: RqWorker
) -> None:
    queue = backend_queue(raw, "agentrq-ctl")
    session = await client.start("demo", "/echo hi")
    job = queue.enqueue("agentrq.prompt", session.id, "/echo by rq")
    assert dequeue(doomed, queue).id == job.id
    start_worker(*FAST)
    assert (await result_of(raw, job.id))[0] == "finished"
    await session.stop()


@pytest.mark.parametrize("marked", [False, True])
async def test_a_worker_killed_between_claim_and_spawn_loses_no_session(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, redis_url: str, doomed: RqWorker,
    records: JobRecords, marked: bool,
) -> None:  # fmt: skip
    session = await client.start("demo", "/echo hi")
    run = dequeue_run(doomed, raw)
    await claim(redis_url, session.id)
    if marked:
        assert records.mark_started(run) == "written"
    start_worker(*FAST)
    await until(session, "idle")
    await session.stop()
    state = await session.wait(20)
    assert (state.worker, state.epoch, state.num_turns) == ("living", 2, 1)
    assert (await result_of(raw, session.id))[0] == "finished"
    await eventually(lambda: not stuck(raw))


@pytest.mark.parametrize("marked", [False, True])
async def test_a_worker_killed_between_end_and_closing_leaves_no_open_job(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, redis_url: str, doomed: RqWorker,
    records: JobRecords, marked: bool,
) -> None:  # fmt: skip
    session = await client.start("demo", "/echo hi")
    run = dequeue_run(doomed, raw)
    await claim(redis_url, session.id, end=True)
    if marked:
        assert records.mark_started(run) == "written"
        assert fetch(raw, session.id).get_status() == "started"
    start_worker(*FAST)
    status, result = await result_of(raw, session.id)
    assert (status, result["reason"]) == ("finished", "completed")
    await eventually(lambda: not stuck(raw))


@pytest.mark.parametrize("then", ["runs", "stopped", "removed"])
async def test_a_worker_that_stood_still_does_not_mark_the_job_of_a_session_that_was_taken_over(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, redis_url: str, doomed: RqWorker,
    records: JobRecords, then: str,
) -> None:  # fmt: skip
    session = await client.start("demo", "/echo hi")
    run = dequeue_run(doomed, raw)
    run.claim = await claim(redis_url, session.id)
    run.identity = identity_of(await snapshot(redis_url, session.id))._replace(status=None)
    start_worker(*FAST)
    await until(session, "idle")
    if then != "runs":
        await session.stop()
        await session.wait(20)
        await eventually(lambda: not stuck(raw))
    if then == "removed":
        await session.remove()
    before = raw.hgetall(f"rq:job:{session.id}")
    assert records.mark_started(run) == "changed"
    records.end_execution(run)
    assert raw.hgetall(f"rq:job:{session.id}") == before
    if then == "runs":
        await session.stop()
        await session.wait(20)
    if then != "removed":
        assert (await result_of(raw, session.id))[0] == "finished"
    await eventually(lambda: not stuck(raw))


async def test_a_worker_that_closes_a_removed_session_leaves_the_job_of_the_next_by_its_id_alone(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, redis_url: str, doomed: RqWorker,
    records: JobRecords, orphans: OrphanJobRecords,
) -> None:  # fmt: skip
    session, key = await client.start("demo", "/echo first", "again"), "rq:job:again"
    run = dequeue_run(doomed, raw)
    first = await snapshot(redis_url, "again")
    run.identity = identity_of(first)._replace(status=None)
    assert records.mark_started(run) == "written"
    await session.stop()
    await session.remove()
    session = await client.start("demo", "/echo second", "again")
    before = raw.hgetall(key)
    assert b"second" in fetch(raw, "again").data
    dependent = backend_queue(raw, "dependents").enqueue("any.function", depends_on="again")

    def nothing_happened() -> bool:
        waits = raw.lrange("rq:queue:agentrq", 0, -1) == [b"again"]
        return raw.hgetall(key) == before and raw.ttl(key) == -1 and waits

    steps: list[Callable[[], object]] = [
        lambda: records.finish(run, {}), lambda: records.fail(run, "too late"), lambda: records.mark_started(run),
        lambda: orphans.close(run, first), lambda: orphans.close_job("again", first), lambda: records.hand_over(run),
        lambda: orphans.enqueue_orphan("again", first),
    ]  # fmt: skip
    for step in steps:
        assert step() in ("changed", "waiting", None)
        assert nothing_happened()
    assert fetch(raw, "again").latest_result() is None
    assert fetch(raw, dependent.id).get_status() == "deferred"
    assert not records.started
    start_worker(*FAST)
    await until(session, "idle")
    await session.stop()
    assert (await result_of(raw, "again"))[0] == "finished"
    await eventually(lambda: fetch(raw, dependent.id).get_status() == "queued")
    fetch(raw, dependent.id).delete()
    await eventually(lambda: not stuck(raw))


async def test_a_worker_that_closes_a_removed_session_leaves_no_job(
    client: AsyncAgentClient, raw: redis.Redis, redis_url: str, doomed: RqWorker, records: JobRecords,
    orphans: OrphanJobRecords,
) -> None:  # fmt: skip
    """A job without a session would be a start of its own: the removed session would be back."""
    session = await client.start("demo", "/echo hi")
    run = dequeue_run(doomed, raw)
    assert records.mark_started(run) == "written"
    before = await snapshot(redis_url, session.id)
    await session.stop()
    ended = await snapshot(redis_url, session.id)
    await session.remove()
    assert orphans.enqueue_orphan(session.id, before) == "changed"
    run.identity = identity_of(before)
    assert records.mark_started(run) == "changed"
    records.hand_over(run)
    run.identity = identity_of(ended)
    records.finish(run, {})
    records.fail(run, "too late")
    orphans.close(run, ended)
    left = [key for key in raw.scan_iter() if session.id.encode() in key]
    assert left == []
    assert raw.lrange("rq:queue:agentrq", 0, -1) == []


async def test_a_session_by_the_same_id_is_not_ended_for_the_one_before(
    client: AsyncAgentClient, redis_url: str
) -> None:
    """Both are queued, at epoch 0 and without an owner: only their nonces tell them apart."""
    first = await client.start("demo", "/echo first", "again")
    look = await snapshot(redis_url, "again")
    await first.stop()
    await first.remove()
    second = await client.start("demo", "/echo second", "again")
    async with connect_async(redis_url) as connection:
        ownership = Ownership(connection, connection, DOOMED)
        assert await ownership.end_session(look, Status.DONE, Reason.STOPPED, "") == "changed"
        seen = (look.state.epoch, look.inner.token, look.inner.nonce)
        call = owner_calls.end_unwritable_session(Keys(), "again", *seen, Status.DONE, Reason.STOPPED, "", 60.0)
        assert not await ownership.run_script(call)
    assert (await second.state()).status == "queued"


async def test_a_stop_while_it_recovers(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, redis_url: str
) -> None:
    """Nobody is there: the session waits for a worker, takes prompts, and a stop ends it at once."""
    first = start_worker(*FAST)
    sessions = [await client.start("demo", "/echo hi") for _ in range(3)]
    for session in sessions:
        await until(session, "idle")
    assert await asyncio.to_thread(first.terminate) == 0
    for session in sessions:
        assert (await session.state()).status == "recovering"
        assert raw.hget(f"rq:job:{session.id}", "status") == b"queued"
    await sessions[0].stop()
    state = await sessions[0].state()
    assert (state.status, state.reason) == ("done", "stopped")
    handed_over = (await sessions[1].state()).cursor
    await sessions[1].prompt("/echo while away")
    fetch(raw, sessions[2].id).cancel()
    second = start_worker(*FAST)
    assert (await sessions[2].wait(20)).reason == "stopped"
    assert (await result_of(raw, sessions[0].id))[0] == "finished"  # not failed: it has run, and was stopped
    await until(sessions[1], "idle", await until(sessions[1], "running", handed_over))
    await sessions[1].stop()
    state = await sessions[1].wait(20)
    assert (state.worker, state.num_turns) == (second.name, 2)
    await eventually(lambda: not stuck(raw))


async def test_a_name_is_free_when_its_worker_is_dead(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    first = start_worker(*FAST)
    session = await client.start("demo", "/sleep 60")
    await until(session, "running")
    with pytest.raises(AssertionError, match="There is a live worker named 'living' already"):
        start_worker(*FAST)
    first.kill()
    start_worker(*FAST)
    await until(session, "idle")
    await session.stop()
    assert (await session.wait(20)).epoch == 2


async def test_a_name_taken_from_a_frozen_worker(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    first = start_worker(*FAST)
    session = await client.start("demo", "/sleep 60")
    await until(session, "running")
    first.freeze()
    start_worker(*FAST)
    await until(session, "idle")
    first.thaw()
    assert await asyncio.to_thread(first.process.wait, 20) == 5
    first.wait_log("has taken the name 'living'")
    await session.prompt("/echo hi", wait=True, timeout=20)
    await session.stop()
    assert (await session.wait(20)).epoch == 2


@pytest.mark.slow
async def test_sessions_are_handed_over_at_the_drain_deadline(client: AsyncAgentClient, start_worker: Start) -> None:
    first = start_worker(*FAST, "--drain-s", "5")
    busy = await client.start("demo", "/sleep 60")
    idle = await client.start("demo", "/echo hi")
    await until(busy, "running")
    await until(idle, "idle")
    assert await asyncio.to_thread(first.terminate) == 0
    first.wait_log("1 sessions still run after 5 s")
    for session in (busy, idle):
        assert (await session.state()).status == "recovering"
    second = start_worker("--name", "second")
    for session in (busy, idle):
        await session.prompt("/echo again", wait=True, timeout=20)
        await session.stop()
        assert (await session.wait(20)).worker == second.name
