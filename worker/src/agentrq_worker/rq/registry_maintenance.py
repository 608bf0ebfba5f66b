"""What one worker does for RQ's queues: jobs dequeued and never begun, scheduled jobs, registries. Synchronous calls.

All of it runs on the one RQ thread (executor.py), and times are Redis's: workers whose clocks differ agree on what has
expired. Does not own the worker's own record (worker_record.py), what becomes of a job (job_records.py) nor sessions
(ownership/recovery_scanner.py).
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

import redis
from rq import Queue, worker_registration
from rq.group import Group
from rq.job import JobStatus
from rq.rate_limit import RateLimitRegistry
from rq.worker import BaseWorker

from agentrq.wire.keys import Keys
from agentrq_worker.rq import scripts
from agentrq_worker.rq.fenced_pipeline import FencedPipeline
from agentrq_worker.rq.job import SessionJob, fetch_job
from agentrq_worker.rq.job_records import JobRecords

log = logging.getLogger(__name__)

CLEAN_S: Final = 30
"""How often RQ's registries are cleaned, by one worker a queue."""
STRANDED: Final = 0.4
"""A job that was dequeued and not begun for this part of a lease goes back into its queue. Dequeued twice it runs once:
a claim compares tokens, a command is known by its id."""
UNREADABLE: Final = "ForeignFunction: The job cannot be read"
PAGE: Final = 1000
"""Jobs of one kind that are handled in a round."""
_PUT_BACK: Final = scripts.load("put_back")


class RegistryMaintenance:
    """The maintenance of the queues of one worker."""

    def __init__(self, worker: BaseWorker, records: JobRecords, keys: Keys, lease_s: float) -> None:
        self.in_hand: set[str] = set()
        """Ids of jobs that this worker has dequeued and works on."""
        self._queues: list[Queue] = worker.queues
        self._records = records
        self._keys = keys
        self._lease_s = lease_s
        self._connection: redis.Redis = worker.connection
        self._stranded: dict[tuple[str, str], float] = {}

    # -- jobs that were dequeued and never begun

    def put_back_stranded(self) -> None:
        """Put jobs back into their queue that were dequeued and not begun: their worker died in between."""
        seen: dict[tuple[str, str], float] = {}
        with self._connection.pipeline(transaction=False) as pipeline:
            for queue in self._queues:
                pipeline.lrange(queue.intermediate_queue_key, 0, PAGE - 1)
            found = pipeline.execute()
        for queue, ids in zip(self._queues, found, strict=True):
            for raw in ids:
                job_id = raw.decode("utf-8", "replace")
                if job_id.encode() != raw:
                    log.warning("queue %s: %r is not a valid job id and is dropped", queue.name, raw)
                    self._connection.lrem(queue.intermediate_queue_key, 0, raw)
                if job_id in self.in_hand:
                    continue
                place = (queue.name, job_id)
                seen[place] = self._stranded.get(place, time.monotonic())
                if time.monotonic() - seen[place] > STRANDED * self._lease_s:
                    del seen[place]
                    self._put_back(queue, job_id)
        self._stranded = seen

    def _put_back(self, queue: Queue, job_id: str) -> None:
        fields = self._connection.hlen(SessionJob.key_for(job_id))
        if fields and fetch_job(self._connection, job_id) is not None:
            noted = queue.intermediate_queue.get_first_seen_key(job_id)
            self._connection.eval(_PUT_BACK, 3, queue.intermediate_queue_key, queue.key, noted, job_id)
            log.warning("job %s: dequeued but never started; requeued in %s", job_id, queue.name)
            return
        # RQ passes over a job that is gone, or has no data, and leaves its id here.
        queue.intermediate_queue.remove(job_id)
        if fields:
            log.warning("job %s of queue %s has no data, marked as failed", job_id, queue.name)
            self._records.fail_unreadable(queue, job_id, UNREADABLE)

    # -- scheduled jobs

    def enqueue_due(self) -> None:
        """Enqueue what ``enqueue_at`` and retries with an interval have due; several workers may do so at once."""
        due = int(self._records.now())
        with self._connection.pipeline(transaction=False) as pipeline:
            for queue in self._queues:
                pipeline.zcount(queue.scheduled_job_registry.key, 0, due)
            counts = pipeline.execute()
        for queue, count in zip(self._queues, counts, strict=True):
            ids: Any = (
                self._connection.zrange(queue.scheduled_job_registry.key, 0, min(count, PAGE) - 1) if count else ()
            )
            for raw in ids:
                self._enqueue_due(queue, raw)

    def _enqueue_due(self, queue: Queue, raw: bytes) -> None:
        registry, job_id = queue.scheduled_job_registry, raw.decode("utf-8", "replace")
        if job_id.encode() != raw:
            log.warning("queue %s: %r is not a valid job id and is dropped", queue.name, raw)
            self._connection.zrem(registry.key, raw)
            return
        job = fetch_job(self._connection, job_id)
        if job is None:  # a job hash may hold anything; the others are not to wait for it
            registry.remove(job_id)
            if self._connection.exists(SessionJob.key_for(job_id)):
                self._records.fail_unreadable(queue, job_id, UNREADABLE)
            return
        status = job.get_status(refresh=False)
        if status not in (JobStatus.SCHEDULED, JobStatus.CREATED):  # canceled, or enqueued by somebody else
            registry.remove(job_id)
            return
        limit = RateLimitRegistry.from_job(job) if job.has_rate_limit else None
        guard = status.value if status is JobStatus.SCHEDULED else ""
        with FencedPipeline(self._connection, self._keys, job.key, job_status=guard) as step:
            step.add(("ZREM", registry.key, job_id))
            if limit is None:
                self._records.write_queued(job, queue, step, at_front=bool(job.should_enqueue_at_front()))
            else:
                job.set_status(JobStatus.RATE_LIMITED, pipeline=step.rq)
                job.save(pipeline=step.rq, include_meta=False)
                limit.register(job.rate_limit_concurrency or 1, step.rq)
                limit.add_to_rate_limited(job_id, step.rq)
            step.execute()
        if limit is not None:
            limit.acquire_and_enqueue(job.rate_limit_concurrency or 1)

    # -- registries

    def clean(self) -> None:
        """RQ's own upkeep of its registries, by Redis's clock."""
        for queue in self._queues:
            if self._connection.set(queue.registry_cleaning_key, 1, nx=True, ex=CLEAN_S - 1):
                now = self._records.now()
                for registry in (queue.finished_job_registry, queue.started_job_registry, queue.failed_job_registry):
                    registry.cleanup(now)
                queue.ready_job_registry.cleanup()
                worker_registration.clean_worker_registry(queue)
        for limit in RateLimitRegistry.all(self._connection):
            limit.cleanup()
        if Group.acquire_maintenance_lock(self._connection, CLEAN_S - 1):
            Group.clean_registries(self._connection)
