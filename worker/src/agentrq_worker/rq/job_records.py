"""What RQ is to know of a job: prepared, finished, failed, stopped, canceled, put back. Synchronous RQ calls.

All of it runs on the one RQ thread (executor.py). Owns no decision: which end a job has is its session's outcome.
What is written of a job is written in one MULTI, so that a worker which dies leaves either the old record or the new.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import Any, Final, Literal

import redis
from redis.client import Pipeline
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.executions import Execution, ExecutionRegistry
from rq.job import JobStatus
from rq.utils import now
from rq.worker import BaseWorker, WorkerStatus

from agentrq.rq_commands import RESULT_TTL_S, SERIALIZER, delete_end, delete_job, start_job
from agentrq.wire.keys import Keys
from agentrq.wire.state import State, to_wire
from agentrq.wire.status import Status
from agentrq_worker.ownership.ownership import SessionSnapshot
from agentrq_worker.rq.fenced_pipeline import FencedPipeline, SessionIdentity, only
from agentrq_worker.rq.job import SessionJob, read_data

log = logging.getLogger(__name__)

RQ_LEASE_S: Final = 90
"""How long RQ believes in an execution without a heartbeat. agentrq's own lease is seconds; this one is only there
so that RQ's registries never call a living session abandoned."""

RECORD_TRIES: Final = 5
"""How often a failure that RQ could not record is tried again as it is: something in the job may be the cause."""


class NotPersisted(redis.ConnectionError):
    """RQ only logged that Redis was away when a job was to be closed."""


def identity_of(look: SessionSnapshot) -> SessionIdentity:
    """A session as it was looked at."""
    return SessionIdentity(look.state.session_id, look.inner.nonce, look.state.status)


class JobRecords:
    """RQ's records of the jobs that one worker handles."""

    def __init__(self, worker: BaseWorker, starts: Queue, keys: Keys) -> None:
        self._worker = worker
        self._connection: redis.Redis = worker.connection
        self._starts = starts
        self._keys = keys
        self._unrecorded: dict[str, int] = {}
        """How often the failure of a job could not be recorded, by the jobs that this happens to now."""

    def queue(self, name: str | None) -> Queue:
        """The queue of that name; none: this worker's queue of starts."""
        if not name or name == self._starts.name:
            return self._starts
        return Queue(name, self._connection, job_class=SessionJob, serializer=SERIALIZER)

    # -- the life of a job here

    def prepare(self, job: SessionJob) -> Execution | None:
        """Mark the job ``started``, here alone; its data may be unreadable. None if the job has another session."""
        known = set(self._worker.executions)
        try:
            with self.only(job.whose) as only, self._connection.pipeline() as pipeline:
                self._delete_executions(job, pipeline)
                execution = Execution.create(job, RQ_LEASE_S, pipeline, worker_name=self._worker.name)
                self._worker.executions[execution.id] = execution
                self._worker.set_state(WorkerStatus.BUSY, pipeline=pipeline)
                job.prepare_for_execution(self._worker.name, pipeline)
                pipeline.persist(job.key)
                pipeline.lrem(self.queue(job.origin).intermediate_queue_key, 1, job.id)
                pipeline.execute()
        except BaseException:
            for fresh in set(self._worker.executions) - known:
                del self._worker.executions[fresh]
            raise
        if only.refused:
            self._forget(execution)
            return None
        return execution

    def succeed(self, job: SessionJob, queue: Queue, execution: Execution, result: Any) -> None:
        """``finished``, with a result, if it is `SessionIdentity` it was."""
        if job.result_ttl is None:
            job.result_ttl = RESULT_TTL_S
        with self.only(job.whose) as only:
            self._worker._finalize_success(job, queue, execution, result)
        if only.refused:
            self.let_go(job, execution)
            return
        # Where a second start by this id, RQ's own upkeep, or a cancel of what ran may have put it.
        queue.failed_job_registry.remove(job)
        queue.canceled_job_registry.remove(job)
        self._forget(execution)

    def fail(
        self,
        job: SessionJob,
        queue: Queue,
        execution: Execution,
        error: str,
        *,
        stopped: bool = False,
        retry: bool = False,
    ) -> None:
        """``failed`` with the error as exc_info, or ``stopped`` as RQ was asked to; retried only if ``retry``."""
        self._worker._stopped_job_id = job.id if stopped else None
        if not retry:
            job.retries_left = 0
        job._status = JobStatus.FAILED
        with self.only(job.whose) as only:
            self._worker.handle_execution_ended(job, queue, RQ_LEASE_S)
            self._worker.handle_job_failure(job, queue, exc_string=error, execution=execution)
        if only.refused:
            self.let_go(job, execution)
            return
        if self._connection.hget(job.key, "status") == b"started":
            self._unrecorded[job.id] = tries = self._unrecorded.get(job.id, 0) + 1
            if tries < RECORD_TRIES:
                raise NotPersisted(f"job {job.id}: its failure is not recorded yet")
            log.error("job %s: its failure cannot be recorded as it is", job.id)
            del self._unrecorded[job.id]
            self._forget(execution)
            self.refuse_unreadable(queue, job.id, error)
            return
        self._unrecorded.pop(job.id, None)
        queue.canceled_job_registry.remove(job)
        self._forget(execution)

    def let_go(self, job: SessionJob, execution: Execution) -> None:
        """The session goes on elsewhere: this execution is over, the job is not."""
        with self._connection.pipeline() as pipeline:
            execution.delete(job, pipeline)
            pipeline.execute()
        self._forget(execution)

    def hand_over(self, job: SessionJob) -> None:
        """The job of a session that goes on elsewhere, let go here, is in its queue again, if it waits for a worker."""
        assert job.whose is not None
        with self.only(job.whose._replace(status=Status.RECOVERING)), self._connection.pipeline() as pipeline:
            self._requeue(job, self._starts, pipeline)
            pipeline.execute()

    def forget(self, job: SessionJob, queue: Queue, session_id: str, look: SessionSnapshot | None) -> bool:
        """What was written of a job after its session had been removed, goes; False where ``look`` holds no more.

        ``look`` is what has the session's id now: nothing, and the job goes too; or another session, whose job stays
        and is set right, if it lives.
        """
        if look is None:
            commands, whose = delete_job(queue.name, job.id), SessionIdentity(session_id, None)
        elif look.state.ended or job.id != session_id:  # what is there is its own
            return True
        else:
            commands, whose = delete_end(queue.name, job.id), identity_of(look)
            commands.append(("PERSIST", job.key))
            if look.owned:
                worker = look.state.worker or ""
                commands.append(("HSET", job.key, "status", JobStatus.STARTED.value, "worker_name", worker))
                commands.append(("HDEL", job.key, "ended_at"))
        with self.only(whose) as only, self._connection.pipeline() as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            pipeline.execute()
        return not only.refused

    def set_right(self, job_id: str, session_id: str, look: SessionSnapshot | None, gone: bool) -> None:
        """After `let_go` of a session that others took: what `prepare` wrote may be later than what they wrote."""
        key = SessionJob.key_for(job_id)
        if self._connection.hget(key, "worker_name") != self._worker.name.encode():
            return
        if gone:
            with self.only(SessionIdentity(session_id, None)), self._connection.pipeline() as pipeline:
                pipeline.delete(key)
                pipeline.execute()
        elif look is None:  # it cannot be read
            if not self._connection.hexists(key, "created_at"):
                self._connection.delete(key)
        elif look.state.ended:
            self.conclude(job_id, look, "it was marked started here after its end")
        elif look.owned and look.state.worker:
            with self.only(identity_of(look)), self._connection.pipeline() as pipeline:
                pipeline.hset(key, "worker_name", look.state.worker)
                pipeline.execute()

    def only(self, whose: SessionIdentity | None) -> AbstractContextManager[FencedPipeline]:
        """What is written of a job within holds only if its session is ``whose``; None: in any case."""
        return only(self._connection, self._keys, whose)

    def _requeue(self, job: SessionJob, queue: Queue, pipeline: Pipeline) -> None:
        """In front; nobody runs it meanwhile, so that RQ refuses a stop instead of sending it to who is gone."""
        job.worker_name = None
        queue._enqueue_job(job, pipeline=pipeline, at_front=True)

    def drop_copy(self, job: SessionJob, queue: Queue) -> None:
        """A second copy of a job that runs elsewhere was dequeued: it is forgotten, the job untouched."""
        queue.intermediate_queue.remove(job.id)

    def close(self, job: SessionJob, queue: Queue, look: SessionSnapshot) -> None:
        """What its session's end makes of a job that nobody runs: canceled, finished or failed."""
        state, job.whose = look.state, identity_of(look)
        if state.started_at is None and state.status is Status.DONE:
            self._cancel(job, queue)
            return
        execution = self.prepare(job)
        if execution is None:
            return
        if state.status is Status.ERROR:
            self.fail(job, queue, execution, state.error or "failed")
        else:
            self.succeed(job, queue, execution, to_wire(state))

    def _cancel(self, job: SessionJob, queue: Queue) -> None:
        with self.only(job.whose), self._connection.pipeline() as pipeline:
            pipeline.lrem(queue.key, 0, job.id)
            pipeline.lrem(queue.intermediate_queue_key, 0, job.id)
            job.set_status(JobStatus.CANCELED, pipeline=pipeline)
            pipeline.expire(job.key, RESULT_TTL_S)
            queue.canceled_job_registry.add(job, ttl=RESULT_TTL_S, pipeline=pipeline)
            pipeline.execute()

    def put_back(self, job: SessionJob, queue: Queue) -> None:
        """A job that is not to be taken now goes back to where it was."""
        with self._connection.pipeline() as pipeline:
            pipeline.lpush(queue.key, job.id)
            pipeline.lrem(queue.intermediate_queue_key, 1, job.id)
            pipeline.execute()

    def move_to_starts(self, job: SessionJob, queue: Queue) -> None:
        """A start in the queue of the other commands goes where starts are counted."""
        with self._connection.pipeline() as pipeline:
            pipeline.sadd(Queue.redis_queues_keys, self._starts.key)
            pipeline.lrem(queue.intermediate_queue_key, 1, job.id)
            self._starts._enqueue_job(job, pipeline=pipeline)
            pipeline.execute()

    def refuse_unreadable(self, queue: Queue, job_id: str, error: str) -> None:
        """A job whose hash RQ cannot read is made readable and fails; an id that RQ does not allow is dropped."""
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
        self.fail(job, queue, self.prepared(job), error)

    def prepared(self, job: SessionJob) -> Execution:
        """As `prepare`, of a job that is no session's."""
        execution = self.prepare(job)
        assert execution is not None
        return execution

    def _forget(self, execution: Execution) -> None:
        self._worker.executions.pop(execution.id, None)
        self._worker._executions = []
        if not self._worker.executions:
            self._worker.set_state(WorkerStatus.IDLE)

    # -- for maintenance

    def enqueue_again(self, job_id: str, look: SessionSnapshot) -> Literal["enqueued", "there", "changed", "canceled"]:
        """Put the job of a session without an owner into its queue, in front.

        Answers ``there`` where it is on its way already, ``changed`` where the session is not as it was seen any more,
        ``canceled`` where a user of RQ canceled its job.
        """
        queue, state = self.queue(look.inner.queue), look.state
        job = self.fetch(job_id)
        status = job.get_status(refresh=False) if job is not None else None
        if status is JobStatus.CANCELED:
            return "canceled"
        if status in (JobStatus.SCHEDULED, JobStatus.DEFERRED) and state.status is Status.QUEUED:
            return "there"
        for key in (queue.key, queue.intermediate_queue_key):
            if self._connection.lpos(key, job_id) is not None:
                return "there"
        with self.only(identity_of(look)) as only, self._connection.pipeline() as pipeline:
            pipeline.sadd(Queue.redis_queues_keys, queue.key)
            if job is None:
                arguments = [state.session_id, state.provider, look.inner.prompt, {}]
                for command in start_job(queue.name, job_id, arguments, at_front=True):
                    pipeline.execute_command(*command)
            else:
                self._delete_executions(job, pipeline)
                queue.failed_job_registry.remove(job, pipeline)
                queue.scheduled_job_registry.remove(job, pipeline)
                self._requeue(job, queue, pipeline)
            pipeline.execute()
        return "changed" if only.refused else "enqueued"

    def conclude(self, job_id: str, look: SessionSnapshot, why: str = "its worker did not close it") -> None:
        """Close the job of an ended session that was left ``started``, or still waits in its queue."""
        job = self.fetch(job_id)
        if job is None or is_later(job, look.state):
            return
        queue, status = self.queue(job.origin), job.get_status(refresh=False)
        if status is JobStatus.STARTED:
            log.warning("job %s: %s", job_id, why)
        elif status is not JobStatus.QUEUED:
            return
        with self.only(identity_of(look)), self._connection.pipeline() as pipeline:
            pipeline.lrem(queue.key, 0, job_id)
            pipeline.execute()
        self.close(job, queue, look)

    def fetch(self, job_id: str) -> SessionJob | None:
        """The job, or None: there is none, or it cannot be read."""
        try:
            found: Any = SessionJob.fetch(job_id, self._connection, SERIALIZER)
            return found  # type: ignore[no-any-return]
        except NoSuchJobError:
            return None
        except (redis.ConnectionError, redis.TimeoutError):
            raise
        except Exception as error:  # noqa: BLE001 - a job hash may hold anything, RQ's reading of it raise anything
            log.error("job %s cannot be read: %.500r", job_id, error)
            return None

    def _delete_executions(self, job: SessionJob, pipeline: Pipeline) -> None:
        """What older executions of a job left behind: RQ's upkeep would take the job for abandoned."""
        registry = ExecutionRegistry(job.id, connection=self._connection)
        ids: Any = self._connection.zrange(registry.key, 0, -1)
        for raw in ids:
            old = Execution(raw.decode(), job.id, self._connection)
            owner: Any = self._connection.hget(old.key, "worker_name")
            old.worker_name = owner.decode() if owner else ""
            old.delete(job, pipeline)


def is_later(job: SessionJob, state: State) -> bool:
    """Whether a job was made after its session had ended: a new start by an id that exists."""
    return state.ended_at is not None and job.created_at.timestamp() * 1000 > state.ended_at
