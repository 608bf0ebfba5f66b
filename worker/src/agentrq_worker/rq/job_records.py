"""RQ's records of the jobs that this worker handles: started, finished, failed, stopped, canceled, requeued.

Each change is our own commands in one step (fenced_pipeline.py): a worker that dies leaves the old record or the new
one, and a job that somebody canceled in RQ stays canceled. RQ's own methods are used where they write into a pipeline.
All of it runs on the one RQ thread (executor.py), which repeats a call whose reply was lost: what identifies a step is
therefore made once, with its `JobRun`. Does not own which end a job has (job_handler.py).
"""

from __future__ import annotations

import contextlib
import copy
import logging
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import redis
from redis.client import Pipeline
from rq import Queue
from rq.defaults import DEFAULT_FAILURE_TTL
from rq.executions import Execution, ExecutionRegistry
from rq.group import Group
from rq.job import JobStatus
from rq.rate_limit import release_slot
from rq.repeat import Repeat
from rq.results import Result
from rq.utils import now
from rq.worker import BaseWorker, WorkerStatus

from agentrq.connection import is_outage
from agentrq.rq_commands import RESULT_TTL_S, SERIALIZER, cancel_job, delete_job
from agentrq.wire.keys import Keys
from agentrq.wire.status import Status
from agentrq_worker.redis_clock import RedisClock
from agentrq_worker.rq.fenced_pipeline import FencedPipeline, SessionIdentity, Written
from agentrq_worker.rq.job import SessionJob, read_data
from agentrq_worker.rq.job_run import JobRun

log = logging.getLogger(__name__)

EXECUTION_LEASE_S: Final = 900
"""How long RQ believes in an execution without a heartbeat. agentrq's own lease is seconds; this one only keeps RQ's
registries from calling a living session abandoned: it is longer than clocks of machines differ, for `rq info` cleans
the registries by the clock of where it runs."""
STOPPED: Final = "Job stopped by user"
"""What RQ has as the error of a job that was stopped on request."""


class JobRecords:
    """RQ's records of the jobs that one worker handles."""

    def __init__(self, worker: BaseWorker, starts: Queue, keys: Keys, clock: RedisClock) -> None:
        self.started: dict[str, JobRun] = {}
        """The runs that are marked started here, by id."""
        self._clock = clock
        self._worker = worker
        self._connection: redis.Redis = worker.connection
        self._starts = starts
        self._keys = keys

    def now(self) -> float:
        """Seconds since the epoch by Redis's clock: workers whose clocks differ must agree on what has expired."""
        return self._clock.now_ms() / 1000

    @property
    def machine_ahead_ms(self) -> int:
        """By how many milliseconds this machine's clock is ahead of Redis's."""
        return self._clock.machine_ahead_ms

    def queue(self, name: str | None) -> Queue:
        """The queue of that name; none: this worker's queue of starts."""
        if not name or name == self._starts.name:
            return self._starts
        return Queue(name, self._connection, job_class=SessionJob, serializer=SERIALIZER)

    def fence(self, run: JobRun, identity: SessionIdentity | None, step: str = "", **guard: Any) -> FencedPipeline:
        """A step on the records of a run's job."""
        name = f"{run.id}:{step}" if step else ""
        return FencedPipeline(self._connection, self._keys, run.job.key, identity, step=name, **guard)

    # -- the start of a run

    def mark_started(self, run: JobRun) -> Written:
        """Mark the job ``started`` by this worker alone."""
        self.started[run.id] = run
        written: Written = "changed"
        try:
            with self.fence(run, run.owned_identity) as step:
                self.delete_executions(run.job, step.rq)
                self.write_execution(run, step.rq)
                self._worker.set_state(WorkerStatus.BUSY, pipeline=step.rq)
                run.job.prepare_for_execution(self._worker.name, step.rq)
                step.add(
                    ("PERSIST", run.job.key),
                    ("LREM", run.queue.intermediate_queue_key, 1, run.job.id),
                    ("ZREM", run.queue.canceled_job_registry.key, run.job.id),
                )
                written = step.execute()
        finally:
            if written != "written":
                del self.started[run.id]
        return written

    def write_execution(self, run: JobRun, pipeline: Pipeline) -> None:
        """Write RQ's record of a run, whole: it may have expired while Redis was away. Scores are by Redis's clock."""
        execution, expiry = run.execution(self._worker.name), self.now() + EXECUTION_LEASE_S
        registry = ExecutionRegistry(run.job.id, self._connection).key
        if run.job.started_at is not None:
            execution.created_at = run.job.started_at
        execution.save(EXECUTION_LEASE_S, pipeline)
        pipeline.zadd(registry, {execution.id: expiry})
        pipeline.expire(registry, EXECUTION_LEASE_S)
        pipeline.zadd(run.queue.started_job_registry.key, {execution.composite_key: expiry})
        pipeline.sadd(execution.worker_executions_key, execution.composite_key)
        pipeline.expire(execution.worker_executions_key, EXECUTION_LEASE_S)

    def delete_executions(self, job: SessionJob, pipeline: Pipeline) -> None:
        """Delete what older executions of a job left: RQ's maintenance would take the job for abandoned."""
        ids: Any = self._connection.zrange(ExecutionRegistry(job.id, self._connection).key, 0, -1)
        for raw in ids:
            execution = Execution(raw.decode(), job.id, self._connection)
            owner: Any = self._connection.hget(execution.key, "worker_name")
            execution.worker_name = owner.decode() if owner else ""
            execution.delete(job, pipeline)

    # -- its end

    def finish(self, run: JobRun, result: Any) -> Written:
        """Record that the job is ``finished``, with a result."""
        ttl = RESULT_TTL_S if run.job.result_ttl is None else run.job.result_ttl

        def write(job: SessionJob, step: FencedPipeline) -> None:
            job.result_ttl = ttl
            self._worker.increment_successful_job_count(step.rq)
            step.add(("ZREM", run.queue.failed_job_registry.key, job.id))
            if ttl:
                self._write_result(run, job, step, Result.Type.SUCCESSFUL, ttl, return_value=result)
                self._write_end(job, step, ttl, run.queue.finished_job_registry.key)
            if job.repeats_left:
                step.add(("PERSIST", job.key))
                Repeat.schedule(job, run.queue, pipeline=step.rq)
            elif not ttl:
                self._delete(run, job, step)

        return self._end(run, JobStatus.FINISHED, write)

    def fail(self, run: JobRun, error: str, *, stopped: bool = False, retry: bool = False) -> Written:
        """Record that the job ``failed``, with the error as exc_info, or was ``stopped`` on request.

        ``retry``: enqueue it again, if it has retries left.
        """
        ttl = DEFAULT_FAILURE_TTL if run.job.failure_ttl is None else run.job.failure_ttl

        def write(job: SessionJob, step: FencedPipeline) -> None:
            self._worker.increment_failed_job_count(step.rq)
            self._write_result(run, job, step, Result.Type.FAILED, ttl, exc_string=error)
            self._write_end(job, step, ttl, run.queue.failed_job_registry.key)
            step.add(("HSET", job.key, "exc_info", zlib.compress(error.encode("utf-8", "replace"))))
            if not ttl:
                self._delete(run, job, step)

        def write_retry(job: SessionJob, step: FencedPipeline) -> None:
            self._worker.increment_failed_job_count(step.rq)
            interval = job.get_retry_interval()
            job.retries_left = (job.retries_left or 1) - 1
            if interval:
                due = datetime.fromtimestamp(self.now(), UTC) + timedelta(seconds=interval)
                run.queue.schedule_job(job, due, pipeline=step.rq)
            else:
                self.write_queued(job, run.queue, step, at_front=bool(job.enqueue_at_front_on_retry))

        if stopped:
            return self._end(run, JobStatus.STOPPED, write, error)
        if retry and run.job.should_retry:
            return self._end(run, None, write_retry)
        return self._end(run, JobStatus.FAILED, write, error)

    def _end(
        self,
        run: JobRun,
        status: JobStatus | None,
        write: Callable[[SessionJob, FencedPipeline], None],
        error: str | None = None,
    ) -> Written:
        """Write how a run ended and move the dependents that may run now. ``status`` None: the job is not over."""
        while True:
            job = copy.copy(run.job)  # what the step changes of it is not to be changed twice
            job.ended_at = now()
            job.started_at = job.started_at or job.ended_at
            with contextlib.suppress(redis.WatchError), self.fence(run, run.identity, "end") as step:
                self._move_dependents(run, job, status, step)
                self._worker.increment_total_working_time(job.ended_at - job.started_at, step.rq)
                write(job, step)
                run.execution(self._worker.name).delete(job, step.rq)
                step.add(("LREM", run.queue.intermediate_queue_key, 0, job.id))
                written = step.execute()
                break
        if written == "canceled":
            self._keep_canceled(run)
        elif written == "written":
            run.queue.enqueue_ready_jobs_by_queue(run.ready)
            self._release_slot(job)
            if status in (JobStatus.FINISHED, JobStatus.FAILED):
                job.send_webhooks(status, exc_string=error)
            self._forget(run)
            return written
        self.end_execution(run)
        return written

    def _move_dependents(self, run: JobRun, job: SessionJob, status: JobStatus | None, step: FencedPipeline) -> None:
        """Move the dependents that may run to RQ's "ready", in the step that writes the end; read while watched."""
        if status is not None:
            step.rq.watch(job.dependents_key)
            self._cache_status(job, status)
            try:
                ready = run.queue.move_dependents_to_ready(job, pipeline=step.rq, refresh_job_status=False)
                run.ready = {name: [*run.ready.get(name, []), *ids] for name, ids in ready.items()} or run.ready
            except Exception as failure:
                if is_outage(failure) or isinstance(failure, redis.WatchError):
                    raise
                log.error("job %s: its dependents cannot be read and stay deferred: %.500r", job.id, failure)
        if not step.rq.explicit_transaction:
            step.rq.multi()

    def _write_result(
        self, run: JobRun, job: SessionJob, step: FencedPipeline, kind: Result.Type, ttl: int, **what: Any
    ) -> None:
        Result.create(
            job, kind, ttl, worker_name=self._worker.name, pipeline=step.rq, execution_id=run.id,
            execution_started_at=job.started_at, execution_ended_at=job.ended_at, **what,
        )  # fmt: skip

    def _write_end(self, job: SessionJob, step: FencedPipeline, ttl: int, registry: str) -> None:
        job.save(pipeline=step.rq, include_meta=False, include_result=False)
        for key in (job.key, job.dependents_key, job.dependencies_key):
            step.add(("EXPIRE", key, ttl) if ttl > 0 else ("PERSIST", key))
        step.add(("ZADD", registry, self.now() + ttl if ttl >= 0 else "+inf", job.id))

    def _delete(self, run: JobRun, job: SessionJob, step: FencedPipeline) -> None:
        step.add(*delete_job(run.queue.name, job.id), ("DEL", job.dependents_key, job.dependencies_key))
        if job.group_id:
            step.add(("SREM", Group.get_key(job.group_id), job.id))

    def end_execution(self, run: JobRun) -> None:
        """Delete RQ's record of this run: its session goes on elsewhere. The job itself is left as it is."""
        with self._connection.pipeline() as pipeline:
            run.execution(self._worker.name).delete(run.job, pipeline)
            pipeline.execute()
        self._forget(run)

    def _forget(self, run: JobRun) -> None:
        if self.started.pop(run.id, None) is not None and not self.started:
            self._worker.set_state(WorkerStatus.IDLE)

    def _keep_canceled(self, run: JobRun) -> None:
        """Let a job that was canceled in RQ expire like one that ended; it stays canceled."""
        with self._connection.pipeline() as pipeline:
            pipeline.expire(run.job.key, RESULT_TTL_S)
            pipeline.lrem(run.queue.intermediate_queue_key, 0, run.job.id)
            pipeline.execute()
        job = copy.copy(run.job)
        self._cache_status(job, JobStatus.CANCELED)
        self._release_slot(job)

    def _release_slot(self, job: SessionJob) -> None:
        """Give the slot of a rate limit to the next job; RQ's maintenance does it where this fails."""
        try:
            release_slot(job)
        except redis.ResponseError as error:
            log.error("job %s: its slot of a rate limit cannot be released: %s", job.id, error)

    def _cache_status(self, job: SessionJob, status: JobStatus) -> None:
        """Set the status that RQ's own methods ask a job for. RQ sets it only by a write; this one is never sent."""
        job.set_status(status, pipeline=self._connection.pipeline())

    def cancel(self, run: JobRun) -> None:
        """Record that the job is ``canceled``: its session was stopped before it began."""
        with self.fence(run, run.identity) as step:
            step.add(*cancel_job(run.queue.name, run.job.id))
            step.add(("LREM", run.queue.key, 0, run.job.id), ("LREM", run.queue.intermediate_queue_key, 0, run.job.id))
            if step.execute() == "canceled":
                self._keep_canceled(run)

    # -- back into a queue

    def hand_over(self, run: JobRun) -> Written:
        """Enqueue the job of a session that was handed over and waits for another worker."""
        assert run.identity is not None
        with self.fence(run, run.identity._replace(status=Status.RECOVERING), "hand-over") as step:
            self.write_queued(run.job, self._starts, step, at_front=True)
            written = step.execute()
        if written == "canceled":
            self._keep_canceled(run)
        return written

    def write_queued(self, job: SessionJob, queue: Queue, step: FencedPipeline, *, at_front: bool) -> None:
        """Put the job into its queue, without a worker: RQ then refuses a stop instead of sending it nowhere."""
        job.worker_name, job.origin, job.enqueued_at = None, queue.name, now()
        job.set_status(JobStatus.QUEUED, pipeline=step.rq)
        job.save(pipeline=step.rq, include_meta=False)  # its users may have changed that meanwhile
        job.cleanup(ttl=job.ttl, pipeline=step.rq)
        step.add(("SADD", Queue.redis_queues_keys, queue.key))
        queue.push_job_id(job.id, pipeline=step.rq, at_front=at_front)

    def move_to_starts(self, run: JobRun) -> None:
        """Move a start from the queue of commands to the queue of starts, where starts are counted."""
        with self.fence(run, None, "move") as step:
            step.add(("LREM", run.queue.intermediate_queue_key, 1, run.job.id))
            self.write_queued(run.job, self._starts, step, at_front=False)
            written = step.execute()
        if written == "canceled":
            self._keep_canceled(run)

    def drop_copy(self, job_id: str, queue: Queue) -> None:
        """Drop the second copy of a job that runs elsewhere; the job itself is left as it is."""
        queue.intermediate_queue.remove(job_id)

    # -- jobs that cannot be read

    def fail_unreadable(self, queue: Queue, job_id: str, error: str) -> None:
        """Make a job readable whose hash RQ cannot read, and fail it; an id that RQ does not allow is dropped."""
        key = SessionJob.key_for(job_id)
        try:
            job = SessionJob(job_id, self._connection, SERIALIZER)
        except ValueError:
            self._connection.lrem(queue.intermediate_queue_key, 0, job_id)
            self._connection.delete(key)
            return
        job.data = read_data(self._connection, key) or b'["unreadable",null,[],{}]'
        self._connection.delete(key)
        job.origin, job.created_at, job.timeout = queue.name, now(), -1
        job.description = "a job that cannot be read"
        job.save()
        self.fail(JobRun(job, queue), error)
