"""How jobs are taken: one queue a dequeue, each on a thread of its own, starts only while there is room.

Owns the slots and the share between workers. Does not own what becomes of a job (jobs.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import redis
from rq import Queue
from rq.exceptions import DequeueTimeout
from rq.suspension import is_suspended
from rq.timeouts import TimerDeathPenalty

from agentrq.rq_commands import SERIALIZER
from agentrq_worker.bookkeeping import Bookkeeping
from agentrq_worker.jobs import Jobs
from agentrq_worker.rq_job import SessionJob
from agentrq_worker.rq_thread import RqThread
from agentrq_worker.upkeep import Upkeep

log = logging.getLogger(__name__)

DEQUEUE_S: Final = 1
"""How long one BLMOVE waits: the longest that a worker which is to end goes on dequeueing."""
YIELD_S: Final = 0.2
"""How long a start is left to workers that have more room than this one."""


class Taking:
    """Takes and hands on jobs until told to stop. ``running`` are the starts whose sessions live here."""

    def __init__(
        self,
        connection: redis.Redis,
        jobs: Jobs,
        books: Bookkeeping,
        upkeep: Upkeep,
        rq: RqThread,
        stopping: asyncio.Event,
        most: int,
    ) -> None:
        """``connection`` is for blocking reads, ``most`` how many sessions may run at once."""
        self.running: set[asyncio.Task[None]] = set()
        self._connection = connection
        self._jobs = jobs
        self._books = books
        self._upkeep = upkeep
        self._rq = rq
        self._stopping = stopping
        self._most = most
        self._slots = asyncio.Semaphore(most)
        self._troubled: set[str] = set()
        """Names of queues whose last dequeue failed; told once."""
        self._threads = ThreadPoolExecutor(2, "dequeue")

    @property
    def free(self) -> int:
        """How many more sessions would be taken."""
        return 0 if self._stopping.is_set() else self._most - len(self.running)

    def close(self) -> None:
        """Wait for the dequeue that runs."""
        self._threads.shutdown()

    async def starts(self, queue: Queue, group: asyncio.TaskGroup) -> None:
        """Take starts while there is room. Of several workers those with the most room are the first to take."""
        while not self._stopping.is_set():
            if not await self._slot():
                continue
            task: asyncio.Task[None] | None = None
            try:
                wait = self.free >= self._upkeep.most_free * 0.9 - 1
                if not wait:
                    await asyncio.sleep(YIELD_S)
                taken = await self._take(queue, self._take_start, wait)
                if taken is not None:
                    task = group.create_task(self._handle(*taken), name=f"job {taken[0].id}")
                    self.running.add(task)
                    task.add_done_callback(self._done)
            finally:
                if task is None:
                    self._slots.release()

    async def commands(self, queue: Queue) -> None:
        """Take the other commands, full or not, one after the other: that keeps their order in one worker."""
        while not self._stopping.is_set():
            taken = await self._take(queue, self._dequeue, True)
            if taken is not None:
                await self._handle(*taken)

    async def _slot(self) -> bool:
        try:
            async with asyncio.timeout(DEQUEUE_S):
                await self._slots.acquire()
        except TimeoutError:
            return False
        return True

    def _done(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        self._slots.release()

    async def _handle(self, job: SessionJob, queue: Queue) -> None:
        self._upkeep.in_hand.add(job.id)
        try:
            await self._jobs.handle(job, queue)
        finally:
            self._upkeep.in_hand.discard(job.id)

    async def _take(
        self, queue: Queue, dequeue: Callable[[Queue, bool], tuple[SessionJob, Queue] | None], wait: bool
    ) -> tuple[SessionJob, Queue] | None:
        """One dequeue; None when nothing came or it was dealt with. An outage costs a log line."""
        try:
            taken = await asyncio.get_running_loop().run_in_executor(self._threads, dequeue, queue, wait)
        except DequeueTimeout:
            self._troubled.discard(queue.name)
            return None
        except Exception as error:  # noqa: BLE001 - a job hash may hold anything, RQ's reading of it raise anything
            job_id = getattr(error, "job_id", None)
            if job_id is not None and not isinstance(error, redis.ConnectionError | redis.TimeoutError):
                await self._jobs.refuse_unreadable(queue, job_id, error)
            else:
                if queue.name not in self._troubled:
                    log.warning("dequeue on %s, until it succeeds: %s", queue.name, error)
                self._troubled.add(queue.name)
                await asyncio.sleep(DEQUEUE_S)
            return None
        self._troubled.discard(queue.name)
        if taken is not None and self._stopping.is_set():
            await self._rq(self._books.put_back, *taken)
            return None
        return taken

    def _take_start(self, queue: Queue, wait: bool) -> tuple[SessionJob, Queue] | None:
        """``rq suspend`` holds starts, those too that come while a dequeue waits for one."""
        if is_suspended(self._connection):
            time.sleep(DEQUEUE_S)
            return None
        taken = self._dequeue(queue, wait)
        if taken is not None and is_suspended(self._connection):
            self._books.put_back(*taken)
            return None
        return taken

    def _dequeue(self, queue: Queue, wait: bool) -> tuple[SessionJob, Queue] | None:
        """On the queue's own thread. One queue means BLMOVE, which cannot lose a job."""
        timeout = DEQUEUE_S if wait else None
        taken: Any = Queue.dequeue_any([queue], timeout, self._connection, SessionJob, SERIALIZER, TimerDeathPenalty)
        return taken  # type: ignore[no-any-return]
