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
from agentrq_worker.rq.job import SessionJob
from agentrq_worker.rq.job_records import JobRecords, identity_of
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


def books_of(worker: RqWorker) -> JobRecords:
    return JobRecords(worker, worker.queues[0], DOOMED.keys)


async def checked(worker: RqWorker, redis_url: str, session_id: str) -> tuple[bool, SessionSnapshot | None]:
    async with connect_async(redis_url) as client:
        return await Ownership(client, client, DOOMED).check_session(session_id)


async def looked_at(worker: RqWorker, redis_url: str, session_id: str) -> SessionSnapshot:
    _, look = await checked(worker, redis_url, session_id)
    assert look is not None
    return look


def dequeue(worker: RqWorker, queue: Queue) -> SessionJob:
    taken: Any = Queue.dequeue_any([queue], 1, worker.connection, SessionJob, worker.serializer, TimerDeathPenalty)
    return taken[0]  # type: ignore[no-any-return]


async def claim(worker: RqWorker, redis_url: str, session_id: str, *, end: bool = False) -> None:
    """Take the lease and the session, perhaps end it, and be gone."""
    async with connect_async(redis_url) as client:
        ownership = Ownership(client, client, DOOMED)
        await ownership.lease.begin()
        look = await ownership.fetch_session(session_id)
        assert look is not None
        assert await ownership.claim_session(look) is not None
        if end:
            look = await ownership.fetch_session(session_id)
            assert look is not None
            await ownership.end_session(look, Status.DONE, Reason.COMPLETED, "")


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


@pytest.mark.parametrize("prepared", [False, True])
async def test_a_worker_killed_between_claim_and_spawn_loses_no_session(
    client: AsyncAgentClient,
    start_worker: Start,
    raw: redis.Redis,
    redis_url: str,
    doomed: RqWorker,
    prepared: bool,
) -> None:
    session = await client.start("demo", "/echo hi")
    job = dequeue(doomed, backend_queue(raw))
    await claim(doomed, redis_url, session.id)
    if prepared:
        books_of(doomed).prepare(job)
    start_worker(*FAST)
    await until(session, "idle")
    await session.stop()
    state = await session.wait(20)
    assert (state.worker, state.epoch, state.num_turns) == ("living", 2, 1)
    assert (await result_of(raw, session.id))[0] == "finished"
    await eventually(lambda: not stuck(raw))


@pytest.mark.parametrize("prepared", [False, True])
async def test_a_worker_killed_between_end_and_closing_leaves_no_open_job(
    client: AsyncAgentClient,
    start_worker: Start,
    raw: redis.Redis,
    redis_url: str,
    doomed: RqWorker,
    prepared: bool,
) -> None:
    session = await client.start("demo", "/echo hi")
    job = dequeue(doomed, backend_queue(raw))
    await claim(doomed, redis_url, session.id, end=True)
    if prepared:
        books_of(doomed).prepare(job)
        assert fetch(raw, session.id).get_status() == "started"
    start_worker(*FAST)
    status, result = await result_of(raw, session.id)
    assert (status, result["reason"]) == ("finished", "completed")
    await eventually(lambda: not stuck(raw))


@pytest.mark.parametrize("then", ["runs", "stopped", "removed"])
async def test_a_job_marked_started_after_its_session_was_taken(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, redis_url: str, doomed: RqWorker, then: str
) -> None:
    """A worker that stood still writes into RQ's record what was true before; letting go, it makes that good."""
    session = await client.start("demo", "/echo hi")
    job = dequeue(doomed, backend_queue(raw))
    await claim(doomed, redis_url, session.id)
    start_worker(*FAST)
    await until(session, "idle")
    if then != "runs":
        await session.stop()
        await session.wait(20)
        await eventually(lambda: not stuck(raw))
    if then == "removed":
        await session.remove()
    books = books_of(doomed)
    execution = books.prepare(job)
    assert execution is not None
    gone, look = await checked(doomed, redis_url, session.id)
    books.let_go(job, execution)
    books.set_right(job.id, session.id, look, gone)
    if then == "removed":
        assert not raw.exists(f"rq:job:{session.id}")
        return
    if then == "runs":
        assert raw.hget(f"rq:job:{session.id}", "worker_name") == b"living"
        await session.stop()
        await session.wait(20)
    assert (await result_of(raw, session.id))[0] == "finished"
    assert not stuck(raw)


async def test_a_removed_session_whose_id_is_taken_before_its_job_is_closed(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, redis_url: str, doomed: RqWorker
) -> None:
    """Whatever its worker still does about its job, it does not hit the job of the next by its id."""
    books, key = books_of(doomed), "rq:job:again"
    session = await client.start("demo", "/echo first", "again")
    job = dequeue(doomed, backend_queue(raw))
    queue = books.queue(job.origin)
    look = await looked_at(doomed, redis_url, "again")
    job.whose = identity_of(look)._replace(status=None)
    execution = books.prepare(job)
    assert execution is not None
    await session.stop()
    await session.remove()
    session = await client.start("demo", "/echo second", "again")

    def nothing_happened() -> bool:
        whole = raw.hgetall(key)
        return whole == before and raw.ttl(key) == -1 and raw.lrange("rq:queue:agentrq", 0, -1) == [b"again"]

    before = raw.hgetall(key)
    assert b"second" in fetch(raw, "again").data
    dependent = backend_queue(raw, "dependents").enqueue("any.function", depends_on="again")
    assert not books.forget(job, queue, "again", None)
    assert nothing_happened()
    books.set_right(job.id, "again", None, True)
    assert nothing_happened()
    books.succeed(job, queue, execution, {})
    assert nothing_happened()
    books.fail(job, queue, execution, "too late")
    assert nothing_happened()
    assert books.prepare(job) is None
    assert nothing_happened()
    books.close(job, queue, look)
    books.conclude(job.id, look)
    books.hand_over(job)
    assert books.enqueue_again(job.id, look) in ("there", "changed")
    assert nothing_happened()
    assert fetch(raw, "again").latest_result() is None
    assert fetch(raw, dependent.id).get_status() == "deferred"
    assert not doomed.executions

    # What another version wrote there goes; the session, which has another status by now, is left alone.
    look = await looked_at(doomed, redis_url, "again")
    raw.expire(key, 1000)
    assert books.forget(job, queue, "again", look)
    assert raw.ttl(key) == -1
    start_worker(*FAST)
    await until(session, "idle")
    assert not books.forget(job, queue, "again", look)
    raw.hset(key, mapping={"status": "finished", "worker_name": "doomed"})
    assert books.forget(job, queue, "again", await looked_at(doomed, redis_url, "again"))
    assert raw.hmget(key, "status", "worker_name") == [b"started", b"living"]
    await session.stop()
    assert (await result_of(raw, "again"))[0] == "finished"
    await eventually(lambda: fetch(raw, dependent.id).get_status() == "queued")
    fetch(raw, dependent.id).delete()
    await eventually(lambda: not stuck(raw))
    assert books.forget(job, queue, "again", await looked_at(doomed, redis_url, "again"))
    assert (await result_of(raw, "again"))[0] == "finished"


async def test_a_removed_session_leaves_no_job(
    client: AsyncAgentClient, raw: redis.Redis, redis_url: str, doomed: RqWorker
) -> None:
    """A job without a session would be a start of its own: the removed session would be back."""
    session = await client.start("demo", "/echo hi")
    job = dequeue(doomed, backend_queue(raw))
    books = books_of(doomed)
    queue, execution = books.queue(job.origin), books.prepare(job)
    assert execution is not None
    look = await looked_at(doomed, redis_url, session.id)
    await session.stop()
    ended = await looked_at(doomed, redis_url, session.id)
    await session.remove()
    assert books.enqueue_again(job.id, look) == "changed"
    job.whose = identity_of(look)
    assert books.prepare(job) is None
    books.hand_over(job)
    job.whose = identity_of(ended)
    books.succeed(job, queue, execution, {})
    books.fail(job, queue, execution, "too late")
    books.close(job, queue, ended)
    left = [key for key in raw.scan_iter() if session.id.encode() in key]
    assert left == []
    assert raw.lrange("rq:queue:agentrq", 0, -1) == []


async def test_a_session_by_the_same_id_is_not_ended_for_the_one_before(
    client: AsyncAgentClient, redis_url: str, doomed: RqWorker
) -> None:
    """Both are queued, at epoch 0 and without an owner: only their nonces tell them apart."""
    first = await client.start("demo", "/echo first", "again")
    look = await looked_at(doomed, redis_url, "again")
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
