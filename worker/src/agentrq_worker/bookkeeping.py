"""What RQ is to know of jobs: prepared, finished, failed, stopped, canceled, put back. Synchronous RQ calls.

All of it runs on intake.py's one rq thread, so that RQ's worker state is never raced. Owns no decision: which end a
job has is the session's outcome.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import redis
from redis.client import Pipeline
from rq import Queue, worker_registration
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.scheduler import RQScheduler
from rq.utils import now
from rq.worker import BaseWorker, WorkerStatus

from agentrq.rq_commands import RESULT_TTL_S, SERIALIZER, start_job
from agentrq.wire.state import to_wire
from agentrq.wire.status import Status
from agentrq_worker.ownership import Look

log = logging.getLogger(__name__)

RQ_LEASE_S: Final = 90
"""How long RQ believes in an execution without a heartbeat. agentrq's own lease is seconds; this one is only there
so that RQ's registries never call a living session abandoned."""


class Bookkeeping:
    """RQ's records of the jobs that one worker handles."""

    def __init__(self, worker: BaseWorker, starts: Queue) -> None:
        self._worker = worker
        self._connection: redis.Redis = worker.connection
        self._starts = starts
        self._scheduler: RQScheduler | None = None

    # -- the life of a job here

    def prepare(self, job: Job) -> Execution:
        """The job is ``started`` here; its data may be unreadable."""
        execution = self._worker.prepare_execution(job)
        with self._connection.pipeline() as pipeline:
            job.heartbeat(now(), RQ_LEASE_S, pipeline=pipeline)
            job.prepare_for_execution(self._worker.name, pipeline=pipeline)
            pipeline.persist(job.key)
            pipeline.lrem(Queue(job.origin, connection=self._connection).intermediate_queue_key, 1, job.id)
            pipeline.execute()
        job.started_at = now()
        return execution

    def succeed(self, job: Job, queue: Queue, execution: Execution, result: Any) -> None:
        """``finished``, with a result."""
        if job.result_ttl is None:
            job.result_ttl = RESULT_TTL_S
        self._worker._finalize_success(job, queue, execution, result)
        self._forget(execution)

    def fail(self, job: Job, queue: Queue, execution: Execution, error: str, *, stopped: bool = False) -> None:
        """``failed`` with the error as exc_info, or ``stopped`` as RQ was asked to."""
        if stopped:
            self._worker._stopped_job_id = job.id
        job._status = JobStatus.FAILED
        self._worker.handle_execution_ended(job, queue, RQ_LEASE_S)
        self._worker.handle_job_failure(job, queue, exc_string=error, execution=execution)
        self._forget(execution)

    def let_go(self, job: Job, execution: Execution, requeue: bool) -> None:
        """The session goes on elsewhere: this execution is over, the job is not."""
        with self._connection.pipeline() as pipeline:
            execution.delete(job, pipeline)
            pipeline.execute()
        self._forget(execution)
        if requeue:
            self._starts.enqueue_job(job, at_front=True)

    def drop_copy(self, job: Job, queue: Queue) -> None:
        """A second copy of a job that runs elsewhere was dequeued: it is forgotten, the job untouched."""
        queue.intermediate_queue.remove(job.id)

    def cancel(self, job: Job, queue: Queue) -> None:
        """``canceled``: its session was stopped before anybody took it."""
        queue.intermediate_queue.remove(job.id)
        job.set_status(JobStatus.CANCELED)
        queue.canceled_job_registry.add(job, ttl=RESULT_TTL_S)

    def put_back(self, job: Job, queue: Queue) -> None:
        """A job that came while the worker was told to end goes back to where it was."""
        with self._connection.pipeline() as pipeline:
            pipeline.lpush(queue.key, job.id)
            pipeline.lrem(queue.intermediate_queue_key, 1, job.id)
            pipeline.execute()

    def move_to_starts(self, job: Job, queue: Queue) -> None:
        """A start in the queue of the other commands goes where starts are counted."""
        queue.intermediate_queue.remove(job.id)
        self._starts.enqueue_job(job)

    def _forget(self, execution: Execution) -> None:
        self._worker.executions.pop(execution.id, None)
        self._worker._executions = []

    # -- the worker itself

    def beat(self) -> None:
        """Tell RQ that the worker and its executions live."""
        worker, executions = self._worker, list(self._worker.executions.values())
        with self._connection.pipeline(transaction=False) as pipeline:
            worker.set_state(WorkerStatus.BUSY if executions else WorkerStatus.IDLE, pipeline=pipeline)
            worker.heartbeat(RQ_LEASE_S, pipeline=pipeline)
            for execution in executions:
                execution.heartbeat(execution.job.started_job_registry, RQ_LEASE_S, pipeline=pipeline)
                execution.job.heartbeat(now(), RQ_LEASE_S, pipeline=pipeline, xx=True)
            created = pipeline.execute()[1]
        if created == 1:  # our entry had expired: register again
            with self._connection.pipeline() as pipeline:
                self._register(pipeline)
                pipeline.execute()

    def _register(self, pipeline: Pipeline) -> None:
        pipeline.hset(self._worker.key, mapping=self._worker.serialize())
        worker_registration.register(self._worker, pipeline)

    def schedule(self) -> None:
        """Enqueue what ``enqueue_at`` and retries with an interval have due, if no other scheduler has the lock."""
        queues = self._worker.queues
        if not any(self._connection.zcard(queue.scheduled_job_registry.key) for queue in queues):
            return
        if self._scheduler is None:
            self._scheduler = RQScheduler(
                [queue.name for queue in queues], self._connection, logging_level=logging.WARNING, serializer=SERIALIZER
            )
        scheduler = self._scheduler
        scheduler.acquire_locks()
        if scheduler.acquired_locks:
            scheduler.enqueue_scheduled_jobs()

    def end_schedule(self) -> None:
        """Give the scheduler's locks back."""
        if self._scheduler is not None:
            self._scheduler.release_locks()

    # -- for maintenance

    def enqueue_again(self, job_id: str, look: Look) -> bool:
        """Put the job of a session without an owner into its queue, in front, if it is not there already."""
        queue = self._starts
        job = self._fetch(job_id)
        if job is not None and job.get_status(refresh=False) in (JobStatus.SCHEDULED, JobStatus.DEFERRED):
            return False
        if self._connection.lpos(queue.key, job_id) is not None:
            return False
        if self._connection.lpos(
            queue.intermediate_queue_key, job_id
        ) is not None and queue.intermediate_queue.set_first_seen(job_id):
            return False  # somebody is about to take it: looked at again in the next round
        with self._connection.pipeline() as pipeline:
            pipeline.lrem(queue.intermediate_queue_key, 0, job_id)
            pipeline.delete(queue.intermediate_queue.get_first_seen_key(job_id))
            if job is None:
                arguments = [look.state.session_id, look.state.provider, look.inner.prompt, {}]
                for command in start_job(queue.name, job_id, arguments, at_front=True):
                    pipeline.execute_command(*command)
            pipeline.execute()
        if job is not None:
            self._delete_executions(job)
            queue.failed_job_registry.remove(job)
            queue.enqueue_job(job, at_front=True)
        return True

    def conclude(self, job_id: str, look: Look) -> None:
        """Finish the job of an ended session that a worker which is gone left ``started``."""
        job = self._fetch(job_id)
        if job is None or job.get_status(refresh=False) is not JobStatus.STARTED:
            return
        log.warning("job %s: its worker died before it could close it", job_id)
        self._delete_executions(job)
        execution = self.prepare(job)
        if look.state.status is Status.ERROR:
            self.fail(job, self._starts, execution, look.state.error or "failed")
        else:
            self.succeed(job, self._starts, execution, to_wire(look.state))

    def bury(self, name: str) -> None:
        """Take a worker that is gone out of RQ's list."""
        key = BaseWorker.redis_worker_namespace_prefix + name
        dead = BaseWorker.find_by_key(key, self._connection, serializer=SERIALIZER)
        if dead is not None and self._connection.hget(dead.key, "death") is None:
            dead.register_death()

    def _fetch(self, job_id: str) -> Job | None:
        try:
            return Job.fetch(job_id, self._connection, SERIALIZER)
        except NoSuchJobError:
            return None
        except Exception as error:  # noqa: BLE001 - a job hash may hold anything, RQ's reading of it raise anything
            log.error("job %s cannot be read: %r", job_id, error)
            return None

    def _delete_executions(self, job: Job) -> None:
        executions = job.get_executions()
        if executions:
            with self._connection.pipeline() as pipeline:
                for execution in executions:
                    execution.delete(job, pipeline)
                pipeline.execute()
