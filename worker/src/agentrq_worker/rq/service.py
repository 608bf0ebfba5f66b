"""All that a worker does with RQ: registration, fetching and handling jobs, heartbeats, maintenance.

Owns the connections to RQ, the one thread of its synchronous calls, and when each part runs. Does not own the process,
its signals nor the sessions (worker.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from agentrq_worker.rq.connection import connect_rq
from agentrq_worker.rq.executor import RqThread
from agentrq_worker.rq.fetcher import JobFetcher
from agentrq_worker.rq.job_handler import JobHandler, JobHost
from agentrq_worker.rq.job_records import JobRecords
from agentrq_worker.rq.orphan_jobs import OrphanJobRecords
from agentrq_worker.rq.queue_reader import QueueReader
from agentrq_worker.rq.registry_maintenance import CLEAN_S, RegistryMaintenance
from agentrq_worker.rq.worker import RqWorker
from agentrq_worker.rq.worker_record import WorkerRecord
from agentrq_worker.settings import Settings

T = TypeVar("T")

log = logging.getLogger(__name__)

BEAT_S: Final = 30.0
"""Seconds between heartbeats to RQ: as often as RQ's own workers send them."""
MAINTAIN_S: Final = 1.0
FROZEN_S: Final = 15.0
"""After a gap as long as this, a heartbeat comes before anything else is done to RQ's records."""


class RqService:
    """One worker's part in RQ, from `register` to `unregister`."""

    def __init__(self, settings: Settings, url: str) -> None:
        """Connect. Raises `agentrq.connection.BadUrl`, `redis.RedisError`, OSError."""
        self._settings = settings
        self._worker = RqWorker(settings, connect_rq(url), self._receive)
        self._starts, self._commands = (QueueReader(url, queue, settings.keys) for queue in self._worker.queues)
        self._call = RqThread()
        self._registered = False
        self._failing: set[str] = set()
        """Parts of the maintenance whose last run failed; logged once."""
        self._tasks: list[asyncio.Task[None]] = []

    def open(self, host: JobHost, on_shutdown: Callable[[], None]) -> JobHandler:
        """Serve this host's sessions; ``on_shutdown`` is called when RQ asks the worker to shut down."""
        self._loop = asyncio.get_running_loop()
        self._on_shutdown = on_shutdown
        settings, worker = self._settings, self._worker
        records = JobRecords(worker, worker.queues[0], settings.keys, host.ownership.clock)
        orphans = OrphanJobRecords(worker.connection, settings.keys, records)
        self._record = WorkerRecord(worker, records, settings.keys.worker, settings.lease_s)
        self._maintenance = RegistryMaintenance(worker, records, settings.keys, settings.lease_s)
        self._jobs = JobHandler(records, orphans, self._call, host, settings.queue)
        self._fetcher = JobFetcher(
            self._starts, self._commands, worker.connection, self._jobs, self._record, self._maintenance, self._call,
            settings.max_sessions,
        )  # fmt: skip
        return self._jobs

    async def register(self) -> None:
        """Enter the worker in RQ's list; its lease says that no other has its name."""
        self._registered = True
        await self._call(self._record.register)

    async def begin(self, group: asyncio.TaskGroup) -> None:
        """Fetch jobs and obey RQ's commands from now on."""
        await self._call(self._record.beat)
        await self._call(self._worker.subscribe)
        self._tasks = [
            group.create_task(self._beat(), name="rq heartbeats"),
            group.create_task(self._maintain(), name="rq maintenance"),
        ]
        self._fetcher.begin(group)

    @property
    def running(self) -> set[asyncio.Task[None]]:
        """The starts whose sessions run here."""
        return self._fetcher.running

    def stop_fetching(self) -> None:
        """Fetch no more jobs."""
        self._fetcher.stop()

    async def fetching_stopped(self) -> None:
        """Wait for the dequeues that run, at most `fetcher.STOP_S`."""
        await self._fetcher.stopped()

    async def unregister(self) -> None:
        """End the beats and leave RQ's list. Waits for Redis: callers bound it.

        A worker that never had its name leaves nothing: another may have it.
        """
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._registered:
            await self._call(self._record.unregister)
            await self._call(self._worker.unsubscribe)

    def close(self) -> None:
        """Wait for the call that runs, and make no other."""
        self._call.close()

    # -- RQ's commands

    def _receive(self, command: dict[str, Any]) -> None:
        """On RQ's command thread."""
        self._loop.call_soon_threadsafe(self._obey, command)

    def _obey(self, command: dict[str, Any]) -> None:
        match command:
            case {"command": "shutdown"}:
                self._on_shutdown()
            case {"command": "stop-job", "job_id": str(job_id)}:
                self._jobs.stop_job(job_id)
            case {"command": "stop-execution", "execution_id": str(execution_id)}:
                self._jobs.stop_execution(execution_id)
            case {"command": "kill-horse"}:
                self._jobs.stop_all()
            case _:
                log.warning("RQ command not known: %.200r", command)

    # -- beats and maintenance

    async def _beat(self) -> None:
        while True:
            await self._attempt(self._record.beat)
            await asyncio.sleep(BEAT_S)

    async def _maintain(self) -> None:
        cleaned = beaten = time.monotonic()
        while True:
            gap, beaten = time.monotonic() - beaten, time.monotonic()
            if gap > FROZEN_S:  # the process was frozen, or Redis away
                await self._attempt(self._record.beat)
                cleaned = time.monotonic()
            await self._attempt(
                self._record.share, self._fetcher.free, self._settings.max_sessions, self._fetcher.stopping
            )
            for job_id in await self._attempt(self._record.find_canceled) or ():
                self._jobs.stop_canceled(job_id)
            await self._attempt(self._maintenance.put_back_stranded)
            await self._attempt(self._maintenance.enqueue_due)
            if time.monotonic() - cleaned > CLEAN_S:
                cleaned = time.monotonic()
                await self._attempt(self._maintenance.clean)
            await asyncio.sleep(MAINTAIN_S)

    async def _attempt(self, call: Callable[..., T], *args: Any) -> T | None:
        """Run one part of the maintenance; a malformed record that RQ cannot read must not stop the worker."""
        name = getattr(call, "__name__", str(call))
        try:
            answer = await self._call(call, *args)
        except Exception as error:  # noqa: BLE001 - a job hash may hold anything
            if name not in self._failing:
                log.warning("RQ maintenance: %s failed, trying again: %s: %s", name, type(error).__name__, error)
            self._failing.add(name)
            return None
        self._failing.discard(name)
        return answer
