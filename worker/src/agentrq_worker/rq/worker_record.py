"""This worker as others see it in RQ: its record, its heartbeats, its share of the starts. Synchronous RQ calls.

Owns what keeps RQ from taking the worker or its jobs for dead, and finds jobs that were canceled in RQ. All of it runs
on the one RQ thread (executor.py). Does not own RQ's queues (registry_maintenance.py) nor what becomes of a job.
"""

from __future__ import annotations

import importlib.metadata
import logging
import math
import time
from collections.abc import Callable
from typing import Any, Final

import redis
from rq import worker_registration
from rq.job import JobStatus
from rq.utils import now, utcformat
from rq.worker import BaseWorker, WorkerStatus

from agentrq.rq_commands import CLOCK_AHEAD_MS, FREE_SLOTS, SERIALIZER, WORKER_DRAINING, WORKER_SLOTS, WORKER_VERSION
from agentrq_worker.rq import scripts
from agentrq_worker.rq.job_records import JobRecords
from agentrq_worker.rq.job_run import JobRun

log = logging.getLogger(__name__)

VERSION: Final = importlib.metadata.version("agentrq-worker")

WORKER_TTL_S: Final = 90
"""How long RQ lists a worker that sends no heartbeat."""
_BEAT_JOBS: Final = scripts.load("beat_jobs")
_FIND_CANCELED: Final = scripts.load("find_canceled")


class WorkerRecord:
    """One worker's record in RQ. ``lease_key`` names the key that says whether a worker lives."""

    def __init__(
        self, worker: BaseWorker, records: JobRecords, lease_key: Callable[[str], str], lease_s: float
    ) -> None:
        self.most_free = 0
        """The most sessions that another worker of this queue would take."""
        self._worker = worker
        self._records = records
        self._lease_key = lease_key
        self._lease_s = lease_s
        self._connection: redis.Redis = worker.connection
        self._without_lease: dict[str, float] = {}
        self._shared_at = -math.inf
        """Workers in RQ's list that have no lease, and since when (monotonic)."""

    def register(self) -> None:
        """Enter RQ's list of workers, in place of a dead worker of this name: the lease says that it is dead."""
        self._connection.delete(self._worker.key)
        self._worker.register_birth()

    def unregister(self) -> None:
        """Leave RQ's list of workers."""
        self._worker.register_death()

    def beat(self) -> None:
        """Tell RQ that the worker and its executions live; repair what others made of its jobs meanwhile."""
        worker, runs = self._worker, list(self._records.started.values())
        with self._connection.pipeline() as pipeline:
            worker.last_heartbeat = now()
            pipeline.hset(worker.key, mapping=worker.serialize())
            pipeline.hdel(worker.key, "death")  # RQ took it for dead while it stood still
            worker.set_state(WorkerStatus.BUSY if runs else WorkerStatus.IDLE, pipeline=pipeline)
            worker_registration.register(worker, pipeline)
            for run in runs:
                self._records.write_execution(run, pipeline)
            worker.heartbeat(WORKER_TTL_S, pipeline=pipeline)
            # A key that somebody has put another kind of value into is its job's matter alone.
            pipeline.execute(raise_on_error=False)
        if not runs:
            return
        keys = [run.job.key for run in runs]
        statuses: Any = self._connection.eval(_BEAT_JOBS, len(keys), *keys, utcformat(now()))
        for run, status in zip(runs, statuses, strict=True):
            if status == b"started":
                continue
            try:
                self._repair(run)
            except redis.ResponseError as error:
                log.error("job %s: cannot tell RQ that it runs here: %s", run.job.id, error)

    def _repair(self, run: JobRun) -> None:
        """RQ lost a living job, or its upkeep took it for abandoned, while Redis was away or the worker frozen."""
        job = run.job
        with self._records.fence(run, run.owned_identity) as step:
            job.worker_name = self._worker.name
            job.set_status(JobStatus.STARTED, pipeline=step.rq)
            job.save(pipeline=step.rq, include_meta=False)
            step.add(("PERSIST", job.key), ("ZREM", run.queue.failed_job_registry.key, job.id))
            if step.execute() == "written":
                log.warning("job %s: RQ's record no longer said that this worker runs it; repaired", job.id)

    def find_canceled(self) -> list[str]:
        """The ids of jobs that run here and that somebody has canceled in RQ."""
        by_registry: dict[str, list[JobRun]] = {}
        for run in self._records.started.values():
            by_registry.setdefault(run.queue.canceled_job_registry.key, []).append(run)
        canceled: list[str] = []
        for registry, runs in by_registry.items():
            keys, ids = (registry, *(run.job.key for run in runs)), [run.job.id for run in runs]
            found: Any = self._connection.eval(_FIND_CANCELED, len(keys), *keys, *ids)
            canceled += [job_id.decode() for job_id in found]
        return canceled

    def share(self, free: int, slots: int, draining: bool) -> None:
        """Say how many more sessions this worker would take, and learn it of the others; take out the dead."""
        worker = self._worker
        with self._connection.pipeline(transaction=False) as pipeline:
            told: dict[Any, Any] = {
                FREE_SLOTS: free,
                WORKER_SLOTS: slots,
                WORKER_DRAINING: int(draining),
                WORKER_VERSION: VERSION,
                CLOCK_AHEAD_MS: self._records.machine_ahead_ms,
            }
            pipeline.hset(worker.key, mapping=told)
            pipeline.smembers(worker_registration.WORKERS_BY_QUEUE_KEY % worker.queues[0].name)
            members = pipeline.execute()[1]
        names = [key.decode().removeprefix(worker.redis_worker_namespace_prefix) for key in members]
        others = [name for name in names if name != worker.name]
        with self._connection.pipeline(transaction=False) as pipeline:
            for name in others:
                pipeline.hget(worker.redis_worker_namespace_prefix + name, FREE_SLOTS)
                pipeline.exists(self._lease_key(name))
            answers = pipeline.execute()
        now = time.monotonic()
        # After a gap (Redis was away, this process stood still) the others have not renewed their leases either.
        before = self._without_lease if now - self._shared_at < self._lease_s / 2 else {}
        self.most_free, self._shared_at = 0, now
        self._without_lease = {}
        for name, given, alive in zip(others, answers[::2], answers[1::2], strict=True):
            if given is None:
                continue  # not a worker of agentrq's
            since = before.get(name, time.monotonic())
            if alive:
                self.most_free = max(self.most_free, int(given))
            elif time.monotonic() - since > self._lease_s:
                self._unregister_dead(name)
            else:
                self._without_lease[name] = since

    def _unregister_dead(self, name: str) -> None:
        """Take a worker that is gone out of RQ's list."""
        key = self._worker.redis_worker_namespace_prefix + name
        dead = BaseWorker.find_by_key(key, self._connection, serializer=SERIALIZER)
        if dead is not None:
            log.warning("worker %s has no lease for %g s: taken out of RQ's list", name, self._lease_s)
            dead.register_death()
