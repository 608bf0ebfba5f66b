"""RQ's jobs of sessions that no worker serves: put back into their queue, or closed. Synchronous RQ calls.

Owns what is done to such a job's records; all of it runs on the one RQ thread (executor.py). Does not own which
sessions these are (ownership/recovery_scanner.py).
"""

from __future__ import annotations

import logging
from typing import Literal

import redis
from rq import Queue
from rq.job import JobStatus
from rq.utils import now

from agentrq.rq_commands import RESULT_TTL_S, format_time, start_job
from agentrq.wire.keys import Keys
from agentrq.wire.state import to_wire
from agentrq.wire.status import Status
from agentrq_worker.ownership.ownership import SessionSnapshot
from agentrq_worker.rq.fenced_pipeline import FencedPipeline
from agentrq_worker.rq.job import SessionJob, fetch_job
from agentrq_worker.rq.job_identity import identity_of, is_own_job
from agentrq_worker.rq.job_records import JobRecords
from agentrq_worker.rq.job_run import JobRun

log = logging.getLogger(__name__)

Enqueued = Literal["enqueued", "waiting", "changed", "canceled"]
"""``waiting``: the job is on its way already; ``changed``: the session is not as it was read."""


class OrphanJobRecords:
    """Repairs RQ's records of jobs that no worker has in hand."""

    def __init__(self, connection: redis.Redis, keys: Keys, records: JobRecords) -> None:
        self._connection = connection
        self._keys = keys
        self._records = records

    def enqueue_orphan(self, job_id: str, session: SessionSnapshot) -> Enqueued:
        """Put the job of a session without an owner into its queue, in front; ``canceled`` where RQ's user did that."""
        queue, state = self._records.queue(session.inner.queue), session.state
        job = fetch_job(self._connection, job_id)
        status = job.get_status(refresh=False) if job is not None else None
        if job is not None and status is JobStatus.CANCELED:
            self._connection.expire(job.key, RESULT_TTL_S)  # as long as the job of any session that was stopped
            return "canceled"
        if status in (JobStatus.SCHEDULED, JobStatus.DEFERRED) and state.status is Status.QUEUED:
            return "waiting"
        for key in (queue.key, queue.intermediate_queue_key):
            if self._connection.lpos(key, job_id) is not None:
                return "waiting"
        with FencedPipeline(self._connection, self._keys, SessionJob.key_for(job_id), identity_of(session)) as step:
            if job is None:
                arguments, created_at = [state.session_id, state.provider, session.inner.prompt, {}], now()
                step.add(("SADD", Queue.redis_queues_keys, queue.key))
                step.add(*start_job(queue.name, job_id, arguments, created_at, at_front=True))
            else:
                created_at = job.created_at
                self._records.delete_executions(job, step.rq)
                for registry in (queue.failed_job_registry, queue.scheduled_job_registry):
                    step.add(("ZREM", registry.key, job_id))
                self._records.write_queued(job, queue, step, at_front=True)
            # Whichever job this is, it is the session's own from now on.
            key = self._keys.state(state.session_id)
            step.add(("HSET", key, "jobCreatedAt", format_time(created_at), "lostAt", int(self._records.now() * 1000)))
            written = step.execute()
        return "enqueued" if written == "written" else written

    def close_job(self, job_id: str, session: SessionSnapshot) -> None:
        """Close the job of an ended session that was left ``started``, or still waits in its queue."""
        job = fetch_job(self._connection, job_id)
        if job is None or not is_own_job(job, session):
            return
        status = job.get_status(refresh=False)
        if status is JobStatus.STARTED:
            log.warning("job %s: its worker did not close it; closed now", job_id)
        elif status is not JobStatus.QUEUED:
            return
        self.close(JobRun(job, self._records.queue(job.origin)), session)

    def close(self, run: JobRun, session: SessionSnapshot) -> None:
        """Record what the end of its session makes of a job that no worker runs: canceled, finished or failed."""
        state, run.identity = session.state, identity_of(session)
        if state.started_at is None and state.status is Status.DONE:
            self._records.cancel(run)
            return
        with self._records.fence(run, run.identity) as step:
            self._records.delete_executions(run.job, step.rq)
            step.add(("LREM", run.queue.key, 0, run.job.id))
            step.execute()
        if state.status is Status.ERROR:
            self._records.fail(run, state.error or "failed")
        else:
            self._records.finish(run, to_wire(state))
