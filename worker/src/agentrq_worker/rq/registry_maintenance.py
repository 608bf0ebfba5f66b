"""A worker's own record in RQ, and what it does for RQ's queues on its beats. Synchronous RQ calls.

Owns heartbeats, the share of starts between workers, jobs that a dead worker had taken but not begun, the scheduler,
RQ's registries and its list of workers. All of it runs on the one RQ thread (executor.py). Does not own what becomes
of a job (job_records.py) nor sessions (recovery_scanner.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

import redis
from rq import Queue, worker_registration
from rq.executions import ExecutionRegistry
from rq.job import Job, JobStatus
from rq.registry import ScheduledJobRegistry, StartedJobRegistry, clean_registries
from rq.scheduler import RQScheduler
from rq.utils import current_timestamp, now
from rq.worker import BaseWorker, WorkerStatus

from agentrq.rq_commands import SERIALIZER
from agentrq_worker.rq.job import SessionJob
from agentrq_worker.rq.job_records import RQ_LEASE_S, JobRecords

log = logging.getLogger(__name__)

CLEAN_S: Final = 30
"""RQ's registries are cleaned so often, by one worker a queue."""
STRANDED: Final = 0.4
"""A job that somebody took and did not begin for this part of a lease goes back into its queue. Taken twice it runs
once: a claim compares tokens, a command is known by its id."""
UNREADABLE: Final = "ForeignFunction: The job cannot be read"
PAGE: Final = 1000
"""Dequeued jobs that are looked at in a round."""
FREE: Final = "agentrq_free"
"""Field of a worker's RQ record: how many more sessions it would take."""

_PUT_BACK: Final = """
-- KEYS intermediate list, queue, RQ's note of when the job was first seen there; ARGV job id
local found = redis.call('LREM', KEYS[1], 0, ARGV[1])
if found > 0 then redis.call('LPUSH', KEYS[2], ARGV[1]) end
redis.call('DEL', KEYS[3])
return found
"""


class RegistryMaintenance:
    """What one worker does for RQ besides its jobs. ``lease_key`` names the key that says whether a worker lives."""

    def __init__(self, worker: BaseWorker, books: JobRecords, lease_key: Callable[[str], str], lease_s: float) -> None:
        self.most_free = 0
        """The most sessions that another worker of this queue would take."""
        self.in_hand: set[str] = set()
        """Ids of jobs that this worker has taken and works on."""
        self._worker = worker
        self._books = books
        self._lease_key = lease_key
        self._lease_s = lease_s
        self._connection: redis.Redis = worker.connection
        self._scheduler: RQScheduler | None = None
        self._stranded: dict[tuple[str, str], float] = {}
        self._leaseless: dict[str, float] = {}

    # -- the worker's record

    def register(self) -> None:
        """Into RQ's list of workers, in place of a dead worker of this name: the lease says that it is dead."""
        self._connection.delete(self._worker.key)
        self._worker.register_birth()

    def beat(self) -> None:
        """Tell RQ that the worker and its executions live; put right what others made of them meanwhile."""
        worker, executions = self._worker, list(self._worker.executions.values())
        with self._connection.pipeline() as pipeline:
            worker.last_heartbeat = now()
            pipeline.hset(worker.key, mapping=worker.serialize())
            pipeline.hdel(worker.key, "death")  # a worker that stood still for long was taken for dead
            worker.set_state(WorkerStatus.BUSY if executions else WorkerStatus.IDLE, pipeline=pipeline)
            worker_registration.register(worker, pipeline)
            expiry, registries = current_timestamp() + RQ_LEASE_S, dict[str, dict[str, int]]()
            for execution in executions:
                # In full and not only what changes: it may have expired while Redis was away.
                execution.last_heartbeat = worker.last_heartbeat
                execution.save(RQ_LEASE_S, pipeline)
                ExecutionRegistry(execution.job_id, self._connection).add(execution, RQ_LEASE_S, pipeline)
                registries.setdefault(execution.job.origin, {})[execution.composite_key] = expiry
                execution.job.heartbeat(worker.last_heartbeat, RQ_LEASE_S, pipeline=pipeline, xx=True)
            for name, members in registries.items():
                pipeline.zadd(StartedJobRegistry(name, self._connection).key, members)
                pipeline.sadd(worker.executions_key, *members)
            worker.heartbeat(RQ_LEASE_S, pipeline=pipeline)
            done = len(pipeline)
            for execution in executions:
                pipeline.hget(execution.job.key, "status")
            # A key that somebody has put another kind of value into is its job's matter alone.
            statuses = pipeline.execute(raise_on_error=False)[done:]
        for execution, status in zip(executions, statuses, strict=True):
            if status == b"started":
                continue
            try:
                self._put_right(execution.job)
            except redis.ResponseError as error:
                log.error("job %s: RQ cannot be told that it runs here: %s", execution.job.id, error)

    def _put_right(self, job: Job) -> None:
        """RQ lost a living job, or its upkeep took it for abandoned, while Redis was away or the worker frozen."""
        log.warning("job %s: RQ did not know any more that it runs here", job.id)
        job._status, job.worker_name = JobStatus.STARTED, self._worker.name
        whose = job.whose if isinstance(job, SessionJob) else None
        with self._books.only(whose), self._connection.pipeline() as pipeline:
            job.save(pipeline=pipeline)
            pipeline.persist(job.key)
            job.failed_job_registry.remove(job, pipeline)
            pipeline.execute()

    def share(self, free: int) -> None:
        """Say how many more sessions this worker would take, and learn it of the others; take out the dead."""
        worker = self._worker
        with self._connection.pipeline(transaction=False) as pipeline:
            pipeline.hset(worker.key, FREE, free)
            pipeline.smembers(worker_registration.WORKERS_BY_QUEUE_KEY % worker.queues[0].name)
            members = pipeline.execute()[1]
        names = [key.decode().removeprefix(worker.redis_worker_namespace_prefix) for key in members]
        others = [name for name in names if name != worker.name]
        with self._connection.pipeline(transaction=False) as pipeline:
            for name in others:
                pipeline.hget(worker.redis_worker_namespace_prefix + name, FREE)
                pipeline.exists(self._lease_key(name))
            answers = pipeline.execute()
        self.most_free, missed = 0, self._leaseless
        self._leaseless = {}
        for name, given, alive in zip(others, answers[::2], answers[1::2], strict=True):
            if given is None:
                continue  # no worker of agentrq's
            if alive:
                self.most_free = max(self.most_free, int(given))
            elif time.monotonic() - missed.get(name, time.monotonic()) > self._lease_s:
                self._bury(name)
            else:
                self._leaseless[name] = missed.get(name, time.monotonic())

    def _bury(self, name: str) -> None:
        """Take a worker that is gone out of RQ's list."""
        key = self._worker.redis_worker_namespace_prefix + name
        dead = BaseWorker.find_by_key(key, self._connection, serializer=SERIALIZER)
        if dead is not None:
            log.warning("worker %s is gone", name)
            dead.register_death()

    # -- its queues

    def put_back_stranded(self) -> None:
        """Back into their queue with jobs that were dequeued and not begun: their worker died in between."""
        seen: dict[tuple[str, str], float] = {}
        with self._connection.pipeline(transaction=False) as pipeline:
            for queue in self._worker.queues:
                pipeline.lrange(queue.intermediate_queue_key, 0, PAGE - 1)
            found = pipeline.execute()
        for queue, ids in zip(self._worker.queues, found, strict=True):
            for raw in ids:
                job_id = raw.decode("utf-8", "replace")
                if job_id.encode() != raw:
                    log.warning("queue %s: %r is no job's id and is dropped", queue.name, raw)
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
        fields = self._connection.hlen(self._worker.job_class.key_for(job_id))
        if fields and self._books.fetch(job_id) is not None:
            noted = queue.intermediate_queue.get_first_seen_key(job_id)
            self._connection.eval(_PUT_BACK, 3, queue.intermediate_queue_key, queue.key, noted, job_id)
            log.warning("job %s: taken and not begun, back into queue %s", job_id, queue.name)
            return
        # RQ passes over a job that is gone, or has no data, and leaves its id here.
        queue.intermediate_queue.remove(job_id)
        if fields:
            log.warning("job %s of queue %s cannot be read and fails: it has no data", job_id, queue.name)
            self._books.refuse_unreadable(queue, job_id, UNREADABLE)

    def clean(self) -> None:
        """RQ's own upkeep of the registries."""
        for queue in self._worker.queues:
            if self._connection.set(queue.registry_cleaning_key, 1, nx=True, ex=CLEAN_S - 1):
                clean_registries(queue)
                worker_registration.clean_worker_registry(queue)
        self._worker.maintenance_interval = CLEAN_S
        self._worker.clean_group_registries()

    def schedule(self) -> None:
        """Enqueue what ``enqueue_at`` and retries with an interval have due, if no other scheduler has the lock."""
        queues = self._worker.queues
        with self._connection.pipeline(transaction=False) as pipeline:
            for queue in queues:
                pipeline.zcard(queue.scheduled_job_registry.key)
            if not any(pipeline.execute()):
                return
        if self._scheduler is None:
            self._scheduler = RQScheduler(
                [queue.name for queue in queues], self._connection, logging_level=logging.WARNING, serializer=SERIALIZER
            )
            self._scheduler._connection = self._connection  # type: ignore[assignment]  # its own copy would not know TLS nor Sentinel
        scheduler = self._scheduler
        scheduler.acquire_locks()
        if not scheduler.acquired_locks:
            return
        for queue in queues:  # a job hash may hold anything; the others are not to wait for it
            self._unschedule_unreadable(queue.scheduled_job_registry)
        scheduler.enqueue_scheduled_jobs()

    def _unschedule_unreadable(self, registry: ScheduledJobRegistry) -> None:
        for job_id in registry.get_jobs_to_schedule(current_timestamp()):
            if self._connection.exists(self._worker.job_class.key_for(job_id)) and self._books.fetch(job_id) is None:
                registry.remove(job_id)
                self._books.refuse_unreadable(self._books.queue(registry.name), job_id, UNREADABLE)

    def end(self) -> None:
        """Give the scheduler's locks back and leave RQ's list."""
        if self._scheduler is not None:
            self._scheduler.release_locks()
        self._worker.register_death()
