"""How many jobs a worker fetches: starts only while there is room, shared out between workers; commands always.

Owns the slots and the share between workers. Does not own how a queue is read (queue_reader.py) nor what becomes of a
job (job_handler.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable
from typing import Final

import redis
from rq import Queue

from agentrq_worker.rq.executor import RqThread
from agentrq_worker.rq.job_handler import JobHandler
from agentrq_worker.rq.queue_reader import DEQUEUE_S, Dequeued, DequeuedJob, QueueReader, put_back
from agentrq_worker.rq.registry_maintenance import RegistryMaintenance
from agentrq_worker.rq.worker_record import WorkerRecord

log = logging.getLogger(__name__)

STOP_S: Final = 5.0
"""How long a worker that ends waits for a command that it carries out, and for Redis."""
YIELD_S: Final = 0.2
"""How long a start is left to workers that have more room than this one."""
MOST_AT_ONCE: Final = 100
"""Starts that one dequeue may bring: each takes a slot first, whether it comes or not."""


class JobFetcher:
    """Fetches jobs and has them handled, until stopped. ``running`` are the starts whose sessions run here."""

    def __init__(
        self,
        starts: QueueReader,
        commands: QueueReader,
        connection: redis.Redis,
        jobs: JobHandler,
        record: WorkerRecord,
        maintenance: RegistryMaintenance,
        call: RqThread,
        most: int,
    ) -> None:
        """``most``: how many sessions may run at once."""
        self.running: set[asyncio.Task[None]] = set()
        self._starts = starts
        self._commands = commands
        self._connection = connection
        self._jobs = jobs
        self._record = record
        self._maintenance = maintenance
        self._call = call
        self._most = most
        self._slots = asyncio.Semaphore(most)
        self._stopping = asyncio.Event()
        self._pumps: list[asyncio.Task[None]] = []
        self._troubled: set[str] = set()
        """Names of queues whose last dequeue failed; logged once."""

    @property
    def stopping(self) -> bool:
        """Whether it takes no more."""
        return self._stopping.is_set()

    @property
    def free(self) -> int:
        """How many more sessions this worker would take."""
        return 0 if self._stopping.is_set() else self._most - len(self.running)

    def begin(self, group: asyncio.TaskGroup) -> None:
        """Fetch jobs from now on; their tasks are the group's."""
        self._pumps = [
            group.create_task(self._fetch_starts(group), name=f"queue {self._starts.queue.name}"),
            group.create_task(self._fetch_commands(), name=f"queue {self._commands.queue.name}"),
        ]

    def stop(self) -> None:
        """Fetch no more jobs."""
        self._stopping.set()

    async def stopped(self) -> None:
        """Wait, after `stop`, until no dequeue runs and what the last ones brought is back in its queue.

        At most `STOP_S`, for Redis may be away: what was dequeued by then another worker puts back.
        """
        readers = (self._starts, self._commands)
        async with asyncio.TaskGroup() as group:
            unblocking = [group.create_task(reader.end_wait(), name="unblock a dequeue") for reader in readers]
            if self._pumps:
                await asyncio.wait(self._pumps, timeout=STOP_S)
            for task in (*self._pumps, *unblocking):
                task.cancel()
            await asyncio.gather(*self._pumps, return_exceptions=True)
        for reader in readers:
            reader.close()

    async def _fetch_starts(self, group: asyncio.TaskGroup) -> None:
        """Fetch starts while there is room. Of several workers those with the most room are the first to take."""
        while not self._stopping.is_set():
            if not await self._acquire_slot():
                continue
            slots = 1
            try:
                # As many at once as leave this worker among those with the most room: a burst is shared out.
                most = math.floor(self.free - (self._record.most_free * 0.9 - 1))
                if most < 0:
                    await self._pause(YIELD_S)
                while slots < min(most, MOST_AT_ONCE) and not self._slots.locked():
                    await self._slots.acquire()
                    slots += 1
                for fetched in await self._dequeue(self._starts.queue, self._starts.read_starts(slots, wait=most >= 0)):
                    task = group.create_task(self._handle(fetched), name=f"job {fetched.job.id}")
                    self.running.add(task)
                    task.add_done_callback(self._release_slot)
                    slots -= 1
            finally:
                for _ in range(slots):
                    self._slots.release()

    async def _fetch_commands(self) -> None:
        """Fetch the other commands, full or not, one after the other: that keeps their order in one worker."""
        while not self._stopping.is_set():
            for fetched in await self._dequeue(self._commands.queue, self._commands.read_one()):
                await self._handle(fetched)

    async def _acquire_slot(self) -> bool:
        """Wait for room for one more session; False: none came in time, or the worker is to end."""
        if not self._slots.locked():
            return await self._slots.acquire()
        async with asyncio.TaskGroup() as group:
            slot = group.create_task(self._slots.acquire(), name="slot")
            stopping = group.create_task(self._stopping.wait(), name="stopping")
            await asyncio.wait([slot, stopping], timeout=DEQUEUE_S, return_when=asyncio.FIRST_COMPLETED)
            slot.cancel()
            stopping.cancel()
        return not slot.cancelled()

    async def _pause(self, seconds: float) -> None:
        """Sleep, not longer than until the worker is to end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _release_slot(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        self._slots.release()

    async def _handle(self, fetched: DequeuedJob) -> None:
        self._maintenance.in_hand.add(fetched.job.id)
        try:
            await self._jobs.handle(*fetched)
        finally:
            self._maintenance.in_hand.discard(fetched.job.id)

    async def _dequeue(self, queue: Queue, dequeue: Awaitable[Dequeued]) -> list[DequeuedJob]:
        """What one dequeue brought; empty when nothing came or it was dealt with. An outage costs a log line."""
        try:
            jobs, error = await dequeue
        except Exception as failure:  # noqa: BLE001 - a job hash may hold anything, RQ's reading of it raise anything
            jobs, error = [], failure
        if error is not None:
            await self._handle_failure(queue, error)
        else:
            self._troubled.discard(queue.name)
        if self._stopping.is_set():
            for each in reversed(jobs):
                await self._call(put_back, self._connection, each.job.id, each.queue)
            return []
        return jobs

    async def _handle_failure(self, queue: Queue, error: Exception) -> None:
        job_id = getattr(error, "job_id", None)
        if job_id is not None and not isinstance(error, redis.ConnectionError | redis.TimeoutError):
            await self._jobs.fail_unreadable(queue, job_id, error)
            return
        if queue.name not in self._troubled:
            log.warning("dequeue on %s failed, trying again: %s", queue.name, error)
        self._troubled.add(queue.name)
        await self._pause(DEQUEUE_S)
