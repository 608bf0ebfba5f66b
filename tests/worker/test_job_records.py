"""What RQ's records say after each step of a worker, whatever was canceled or repeated, whatever clocks say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from rq import Queue, Repeat, Retry
from rq.command import send_stop_job_command
from rq.exceptions import InvalidJobOperation
from rq.job import Dependency
from rq.rate_limit import RateLimit
from rq.registry import StartedJobRegistry
from rq.results import Result
from rq.timeouts import TimerDeathPenalty

from agentrq import AsyncAgentClient
from agentrq.client import operations
from agentrq.connection import connect_async
from agentrq.rq_commands import format_time
from agentrq.wire.commands import Command, Options
from agentrq_worker.ownership.ownership import Ownership, SessionSnapshot
from agentrq_worker.redis_clock import RedisClock
from agentrq_worker.rq.connection import connect_rq
from agentrq_worker.rq.job import SessionJob
from agentrq_worker.rq.job_identity import identity_of, is_own_job
from agentrq_worker.rq.job_records import JobRecords
from agentrq_worker.rq.job_run import JobRun
from agentrq_worker.rq.orphan_jobs import OrphanJobRecords
from agentrq_worker.rq.queue_reader import QueueReader
from agentrq_worker.rq.registry_maintenance import RegistryMaintenance
from agentrq_worker.rq.worker import RqWorker
from agentrq_worker.rq.worker_record import WorkerRecord
from agentrq_worker.settings import Settings
from tests.rq_checks import backend_queue, eventually, fetch, stuck

SETTINGS = Settings(name="w", lease_s=5.0, beat_s=1.0)
KEYS = SETTINGS.keys


@dataclass
class Bench:
    """One worker's RQ side, taken step by step."""

    raw: redis.Redis
    worker: RqWorker
    records: JobRecords
    record: WorkerRecord
    orphans: OrphanJobRecords
    maintenance: RegistryMaintenance
    ownership: Ownership

    def dequeue(self, number: int = 0) -> JobRun:
        """The next job of the starts (0) or the commands (1)."""
        queue = self.worker.queues[number]
        found: Any = Queue.dequeue_any(
            [queue], 1, self.worker.connection, SessionJob, self.worker.serializer, TimerDeathPenalty
        )
        return JobRun(found[0], queue)

    async def session(self, session_id: str) -> SessionSnapshot:
        session = await self.ownership.fetch_session(session_id)
        assert session is not None
        return session

    def registries(self, job_id: str, queue: str = "agentrq") -> set[str]:
        """The registries of RQ that have the job."""
        names = ("wip", "finished", "failed", "canceled", "deferred", "scheduled")
        members: dict[str, Any] = {name: self.raw.zrange(f"rq:{name}:{queue}", 0, -1) for name in names}
        return {name for name, ids in members.items() if job_id in {each.decode().split(":")[0] for each in ids}}


@pytest.fixture
async def bench(redis_url: str, raw: redis.Redis) -> AsyncIterator[Bench]:
    worker = RqWorker(SETTINGS, connect_rq(redis_url), lambda _: None)
    async with connect_async(redis_url) as client:
        ownership = Ownership(client, client, SETTINGS)
        records = JobRecords(worker, worker.queues[0], KEYS, RedisClock())
        record = WorkerRecord(worker, records, KEYS.worker, SETTINGS.lease_s)
        record.register()
        orphans = OrphanJobRecords(worker.connection, KEYS, records)
        maintenance = RegistryMaintenance(worker, records, KEYS, SETTINGS.lease_s)
        yield Bench(raw, worker, records, record, orphans, maintenance, ownership)


# -- canceled


async def test_a_start_canceled_after_its_dequeue_is_never_claimed(client: AsyncAgentClient, bench: Bench) -> None:
    await client.start("demo", "hi", "s")
    run = bench.dequeue()
    fetch(bench.raw, "s").cancel()
    assert await bench.ownership.claim_session(await bench.session("s")) is None
    session = await bench.session("s")
    assert (session.state.status, session.state.reason, session.state.started_at) == ("done", "stopped", None)
    bench.orphans.close(run, session)
    assert bench.registries("s") == {"canceled"}
    assert not stuck(bench.raw)


async def test_a_start_by_rq_that_is_canceled_after_its_dequeue_gets_no_session(bench: Bench) -> None:
    job = backend_queue(bench.raw).enqueue("agentrq.start", None, "demo", "hi")
    bench.dequeue()
    job.cancel()
    opened = await bench.ownership.open_session(job.id, "demo", "hi", Options(), job.id, "2020-01-01T00:00:00.000000Z")
    assert opened == "canceled"
    assert not bench.raw.exists(KEYS.state(job.id), KEYS.events(job.id))
    assert bench.raw.zscore(KEYS.sessions, job.id) is None


async def test_a_command_canceled_after_its_dequeue_is_not_sent(client: AsyncAgentClient, bench: Bench) -> None:
    await client.start("demo", "hi", "s")
    job = backend_queue(bench.raw, "agentrq-ctl").enqueue("agentrq.prompt", "s", "never")
    bench.dequeue(1)
    job.cancel()
    assert await bench.ownership.send_command("s", Command(job.id, "prompt", text="never"), job.id) == "canceled"
    assert not bench.raw.exists(KEYS.inbox("s"))


@pytest.mark.parametrize(
    "step",
    [
        lambda bench, run: bench.records.mark_started(run),
        lambda bench, run: bench.records.finish(run, {}),
        lambda bench, run: bench.records.fail(run, "an error"),
        lambda bench, run: bench.records.fail(run, "an error", retry=True),
        lambda bench, run: bench.records.fail(run, "an error", stopped=True),
        lambda bench, run: bench.records.move_to_starts(run),
        lambda bench, run: bench.maintenance.enqueue_due(),
    ],
    ids=["started", "finished", "failed", "retried", "stopped", "moved", "due"],
)
async def test_a_canceled_job_stays_canceled_whatever_is_recorded_of_it(
    bench: Bench, step: Callable[[Bench, JobRun], object]
) -> None:
    queue, more = backend_queue(bench.raw), {"retry": Retry(max=3), "repeat": Repeat(times=2)}
    job = queue.enqueue("agentrq.start", None, "demo", "hi", **more)
    run = bench.dequeue()
    job.cancel()
    bench.raw.zadd("rq:scheduled:agentrq", {job.id: 1})
    step(bench, run)
    bench.raw.zrem("rq:scheduled:agentrq", job.id)
    assert fetch(bench.raw, job.id).get_status() == "canceled"
    assert bench.registries(job.id) == {"canceled"}
    assert bench.raw.llen("rq:queue:agentrq") == 0
    assert fetch(bench.raw, job.id).latest_result() is None


async def test_a_job_canceled_while_it_runs_is_found_and_its_end_leaves_it_canceled(bench: Bench) -> None:
    queue = backend_queue(bench.raw)
    job, other = (queue.enqueue("agentrq.start", None, "demo", "hi") for _ in range(2))
    run, running = bench.dequeue(), bench.dequeue()
    for each in (run, running):
        assert bench.records.mark_started(each) == "written"
    assert bench.record.find_canceled() == []
    job.cancel()
    bench.record.beat()  # it must not put "started" over it
    assert bench.record.find_canceled() == [job.id]
    assert fetch(bench.raw, job.id).get_status() == "canceled"
    assert bench.records.finish(run, {}) == "canceled"
    assert bench.registries(job.id) == {"canceled"}
    assert bench.registries(other.id) == {"wip"}
    bench.records.finish(running, {})
    assert not stuck(bench.raw)


# -- repeated after a lost reply


async def test_an_end_that_is_written_again_after_a_lost_reply_counts_once(bench: Bench) -> None:
    queue = backend_queue(bench.raw, "agentrq-ctl")
    job = queue.enqueue("agentrq.prompt", "s", "hi")
    dependent = backend_queue(bench.raw, "other").enqueue("any.function", depends_on=job)
    run = bench.dequeue(1)
    for _ in range(3):
        assert bench.records.finish(run, {"commandId": job.id}) == "written"
    assert Result.count(fetch(bench.raw, job.id)) == 1
    assert bench.raw.hget(bench.worker.key, "successful_job_count") == b"1"
    assert bench.registries(job.id, "agentrq-ctl") == {"finished"}
    assert fetch(bench.raw, dependent.id).get_status() == "queued"
    assert bench.raw.lrange("rq:queue:other", 0, -1) == [dependent.id.encode()]
    bench.record.beat()
    assert fetch(bench.raw, job.id).get_status() == "finished"
    assert not bench.records.started


async def test_a_retry_that_is_written_again_after_a_lost_reply_costs_one_retry(bench: Bench) -> None:
    job = backend_queue(bench.raw, "agentrq-ctl").enqueue("agentrq.prompt", "s", "hi", retry=Retry(max=3))
    run = bench.dequeue(1)
    for _ in range(2):
        assert bench.records.fail(run, "SessionNotFound", retry=True) == "written"
    assert fetch(bench.raw, job.id).retries_left == 2
    assert bench.raw.lrange("rq:queue:agentrq-ctl", 0, -1) == [job.id.encode()]


async def test_a_mark_that_is_written_again_after_a_lost_reply_is_one_execution(bench: Bench) -> None:
    job = backend_queue(bench.raw).enqueue("agentrq.start", None, "demo", "hi")
    run = bench.dequeue()
    for _ in range(2):
        assert bench.records.mark_started(run) == "written"
    assert [each.id for each in fetch(bench.raw, job.id).get_executions()] == [run.id]
    bench.records.fail(run, "an error", stopped=True)
    assert fetch(bench.raw, job.id).get_status() == "stopped"
    assert not stuck(bench.raw)


# -- what RQ's users know


async def test_dependents_run_after_what_they_asked_for(bench: Bench) -> None:
    queue, other = backend_queue(bench.raw), backend_queue(bench.raw, "other")
    good, bad, stopped = (queue.enqueue("agentrq.start", None, "demo", "hi") for _ in range(3))
    after = {
        name: other.enqueue("any.function", depends_on=Dependency(jobs=[job], allow_failure=allow), job_id=name)
        for name, job, allow in (
            ("good", good, False), ("bad", bad, False), ("bad-allowed", bad, True), ("stopped-allowed", stopped, True),
        )
    }  # fmt: skip
    runs = [bench.dequeue() for _ in range(3)]
    bench.records.finish(runs[0], {})
    bench.records.fail(runs[1], "an error")
    bench.records.fail(runs[2], "an error", stopped=True)
    statuses = {name: fetch(bench.raw, job.id).get_status().value for name, job in after.items()}
    assert statuses == {"good": "queued", "bad": "deferred", "bad-allowed": "queued", "stopped-allowed": "deferred"}


async def test_a_dependent_that_cannot_be_read_does_not_keep_a_job_from_ending(bench: Bench) -> None:
    job = backend_queue(bench.raw).enqueue("agentrq.start", None, "demo", "hi")
    bench.raw.hset("rq:job:bad", mapping={"data": "x", "status": "dancing"})
    bench.raw.sadd(job.dependents_key, "bad")
    assert bench.records.finish(bench.dequeue(), {}) == "written"
    assert fetch(bench.raw, job.id).get_status() == "finished"


async def test_a_slot_of_a_rate_limit_is_given_to_the_next_job(bench: Bench) -> None:
    queue = backend_queue(bench.raw)
    limit = RateLimit("tenant", 1)
    first, second = (queue.enqueue("agentrq.start", None, "demo", "hi", rate_limit=limit) for _ in range(2))
    assert second.get_status() == "rate_limited"
    run = bench.dequeue()
    bench.records.mark_started(run)
    bench.records.finish(run, {})
    assert [fetch(bench.raw, each.id).get_status().value for each in (first, second)] == ["finished", "queued"]


async def test_scheduled_jobs_are_enqueued_once_by_several_workers(bench: Bench) -> None:
    queue = backend_queue(bench.raw)
    soon = queue.enqueue_at(datetime.now(UTC) - timedelta(seconds=5), "agentrq.start", None, "demo", "hi")
    late = queue.enqueue_in(timedelta(hours=1), "agentrq.start", None, "demo", "hi")
    limited = queue.enqueue_at(
        datetime.now(UTC) - timedelta(seconds=5), "agentrq.start", None, "demo", "hi",
        rate_limit=RateLimit("tenant", 1),
    )  # fmt: skip
    for _ in range(2):
        bench.maintenance.enqueue_due()
    assert sorted(bench.raw.lrange("rq:queue:agentrq", 0, -1)) == sorted([soon.id.encode(), limited.id.encode()])
    assert bench.registries(late.id) == {"scheduled"}
    assert bench.registries(soon.id) == bench.registries(limited.id) == set()


async def test_rq_refuses_a_stop_of_a_job_that_was_handed_over(client: AsyncAgentClient, bench: Bench) -> None:
    await client.start("demo", "hi", "s")
    run = bench.dequeue()
    run.identity = identity_of(await bench.session("s"))._replace(status=None)
    bench.records.mark_started(run)
    bench.raw.hset(KEYS.state("s"), "status", "recovering")
    bench.records.end_execution(run)
    assert bench.records.hand_over(run) == "written"
    with pytest.raises(InvalidJobOperation, match="not currently executing"):
        send_stop_job_command(bench.raw, "s", serializer=bench.worker.serializer)


# -- whose clock


async def test_a_clients_clock_does_not_tell_whose_a_job_is(
    client: AsyncAgentClient, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=300)

    monkeypatch.setattr(operations, "datetime", Ahead)
    session = await client.start("demo", "hi", "s")
    run = bench.dequeue()
    assert is_own_job(run.job, await bench.session("s"))
    await session.stop()
    ended = await bench.session("s")
    assert is_own_job(run.job, ended)
    # Another start by this id, whenever it believes that it was made.
    for shift in (-1000, 0, 1000):
        again = backend_queue(bench.raw).enqueue("agentrq.start", "s", "demo", "hi", job_id="s")
        created = datetime.now(UTC) + timedelta(seconds=shift)
        bench.raw.hset(again.key, "created_at", format_time(created))
        assert not is_own_job(bench.dequeue().job, ended)
        bench.orphans.close_job("s", ended)
        assert fetch(bench.raw, "s").get_status() == "queued"


async def test_an_orphans_job_is_its_own_again_whoever_wrote_it(client: AsyncAgentClient, bench: Bench) -> None:
    """RQ lost it and another worker made it anew, or somebody enqueued another start by this id."""
    await client.start("demo", "hi", "s")
    for lost in (True, False):
        bench.raw.delete("rq:queue:agentrq", *(["rq:job:s"] if lost else []))
        if not lost:
            backend_queue(bench.raw).enqueue("agentrq.start", "s", "demo", "other", job_id="s", meta={"mine": 1})
            bench.raw.delete("rq:queue:agentrq")
        assert bench.orphans.enqueue_orphan("s", await bench.session("s")) == "enqueued"
        assert is_own_job(bench.dequeue().job, await bench.session("s"))
        bench.raw.delete("rq:queue:agentrq:intermediate")
    assert fetch(bench.raw, "s").meta == {"mine": 1}


@pytest.mark.parametrize("ahead", [-300, 300])
async def test_registries_are_kept_by_redis_clock(bench: Bench, monkeypatch: pytest.MonkeyPatch, ahead: int) -> None:
    """A worker whose clock is wrong neither calls another's job abandoned nor forgets what is to be kept."""
    queue = backend_queue(bench.raw)
    running, done = (queue.enqueue("agentrq.start", None, "demo", "hi", result_ttl=60) for _ in range(2))
    runs = [bench.dequeue() for _ in range(2)]
    for run in runs:
        bench.records.mark_started(run)
    bench.records.finish(runs[1], {})
    right = datetime.now(UTC).timestamp()
    monkeypatch.setattr("rq.registry.current_timestamp", lambda: int(right + ahead))
    monkeypatch.setattr("rq.executions.current_timestamp", lambda: int(right + ahead))
    bench.record.beat()
    bench.maintenance.clean()
    assert fetch(bench.raw, running.id).get_status() == "started"
    assert (bench.registries(running.id), bench.registries(done.id)) == ({"wip"}, {"finished"})
    # Whoever looks with `rq info` cleans by the clock of where it runs.
    StartedJobRegistry(queue=queue).cleanup()
    assert fetch(bench.raw, running.id).get_status() == "started"


# -- the wait for a job


async def test_a_wait_for_a_job_is_ended_from_outside(
    redis_url: str, raw: redis.Redis, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A BLMOVE that ended by its socket's time would be an error, and cost the connection."""
    monkeypatch.setattr("agentrq_worker.rq.queue_reader.DEQUEUE_S", 1000)
    reader = QueueReader(redis_url, bench.worker.queues[0], KEYS)
    async with asyncio.TaskGroup() as group:
        read = group.create_task(reader.read_one())
        await eventually(lambda: [each for each in raw.client_list() if each["cmd"] == "blmove"])
        ending = group.create_task(reader.end_wait())
        assert await read == ([], None)
        ending.cancel()
    reader.close()
