"""How jobs are taken: one queue a dequeue, each on a thread of its own, starts only while there is room.

Owns the slots and the share between workers. Does not own what becomes of a job (job_handler.py).
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeAlias

import redis
from rq import Queue
from rq.exceptions import DequeueTimeout
from rq.suspension import WORKERS_SUSPENDED
from rq.timeouts import TimerDeathPenalty

from agentrq.rq_commands import SERIALIZER
from agentrq.wire import script_calls, scripts
from agentrq.wire.keys import Keys
from agentrq.wire.script_calls import ScriptCall
from agentrq_worker.rq.executor import RqThread
from agentrq_worker.rq.job import SessionJob
from agentrq_worker.rq.job_handler import JobHandler
from agentrq_worker.rq.job_records import JobRecords
from agentrq_worker.rq.registry_maintenance import RegistryMaintenance
from agentrq_worker.rq.worker_record import WorkerRecord

log = logging.getLogger(__name__)

DEQUEUE_S: Final = 1
"""How long one BLMOVE waits: the longest that a worker which is to end goes on dequeueing."""
YIELD_S: Final = 0.2
"""How long a start is left to workers that have more room than this one."""
MOST_AT_ONCE: Final = 100
"""Starts that are taken by one dequeue: each takes a slot first, whether it comes or not."""
_FETCH: Final = hashlib.sha1(scripts.SOURCES["fetch_session"].encode(), usedforsecurity=False).hexdigest()
"""How Redis names a script that anybody has run before."""


class DequeuedJob(NamedTuple):
    """A job that was dequeued; ``seen`` is the state hash of a start's session, None if not known."""

    job: SessionJob
    queue: Queue
    seen: dict[bytes, bytes] | None = None


Taken: TypeAlias = tuple[list[DequeuedJob], Exception | None]
"""What a dequeue brought, and what ended it."""


def _read_state(call: ScriptCall[dict[bytes, bytes]], answer: Any) -> dict[bytes, bytes] | None:
    """The state hash, None where it was refused or is too large: then it is read by itself (job_handler.py)."""
    try:
        return None if isinstance(answer, Exception) else call.read(answer)
    except ValueError:
        return None


class JobFetcher:
    """Takes and hands on jobs until told to stop. ``running`` are the starts whose sessions live here."""

    def __init__(
        self,
        connection: redis.Redis,
        jobs: JobHandler,
        records: JobRecords,
        record: WorkerRecord,
        maintenance: RegistryMaintenance,
        call: RqThread,
        stopping: asyncio.Event,
        keys: Keys,
        most: int,
    ) -> None:
        """``connection`` is for blocking reads, ``most`` how many sessions may run at once."""
        self.running: set[asyncio.Task[None]] = set()
        self._connection = connection
        self._jobs = jobs
        self._records = records
        self._record = record
        self._maintenance = maintenance
        self._call = call
        self._stopping = stopping
        self._keys = keys
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
            slots = 1
            try:
                # As many at once as leave this worker among those with the most room: a burst is shared out.
                most = math.floor(self.free - (self._record.most_free * 0.9 - 1))
                if most < 0:
                    await asyncio.sleep(YIELD_S)
                while slots < min(most, MOST_AT_ONCE) and not self._slots.locked():
                    await self._slots.acquire()
                    slots += 1
                for taken in await self._take(queue, functools.partial(self._take_starts, slots), most >= 0):
                    task = group.create_task(self._handle(taken), name=f"job {taken.job.id}")
                    self.running.add(task)
                    task.add_done_callback(self._done)
                    slots -= 1
            finally:
                for _ in range(slots):
                    self._slots.release()

    async def commands(self, queue: Queue) -> None:
        """Take the other commands, full or not, one after the other: that keeps their order in one worker."""
        while not self._stopping.is_set():
            for taken in await self._take(queue, self._take_one, True):
                await self._handle(taken)

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

    async def _handle(self, taken: DequeuedJob) -> None:
        self._maintenance.in_hand.add(taken.job.id)
        try:
            await self._jobs.handle(*taken)
        finally:
            self._maintenance.in_hand.discard(taken.job.id)

    async def _take(self, queue: Queue, dequeue: Callable[[Queue, bool], Taken], wait: bool) -> list[DequeuedJob]:
        """One dequeue; empty when nothing came or it was dealt with. An outage costs a log line."""
        try:
            taken, error = await asyncio.get_running_loop().run_in_executor(self._threads, dequeue, queue, wait)
        except Exception as failure:  # noqa: BLE001 - a job hash may hold anything, RQ's reading of it raise anything
            taken, error = [], failure
        if error is not None:
            await self._failed(queue, error)
        else:
            self._troubled.discard(queue.name)
        if self._stopping.is_set():
            for job, origin, _ in reversed(taken):
                await self._call(self._records.put_back, job, origin)
            return []
        return taken

    async def _failed(self, queue: Queue, error: Exception) -> None:
        job_id = getattr(error, "job_id", None)
        if job_id is not None and not isinstance(error, redis.ConnectionError | redis.TimeoutError):
            await self._jobs.fail_unreadable(queue, job_id, error)
            return
        if queue.name not in self._troubled:
            log.warning("dequeue on %s, until it succeeds: %s", queue.name, error)
        self._troubled.add(queue.name)
        await asyncio.sleep(DEQUEUE_S)

    def _take_starts(self, most: int, queue: Queue, wait: bool) -> Taken:
        """``rq suspend`` holds starts, those too that come while a dequeue waits for one."""
        held, _, _ = self._standing(queue, [])
        if held:
            time.sleep(DEQUEUE_S)
            return [], None
        taken, error = self._take_one(queue, wait)
        if not taken:
            return taken, error
        held, more, taken = self._standing(queue, taken)
        if more and not held and most > 1:
            others: list[DequeuedJob] = []
            while len(taken) + len(others) < most and error is None:
                another, error = self._take_one(queue, False)
                if not another:
                    break
                others += another
            held, _, others = self._standing(queue, others)
            taken += others
        if held:
            for job, origin, _ in reversed(taken):
                self._records.put_back(job, origin)
            return [], error
        return taken, error

    def _standing(self, queue: Queue, taken: list[DequeuedJob]) -> tuple[bool, bool, list[DequeuedJob]]:
        """Whether `rq suspend` holds, whether more waits in the queue, and the sessions of the jobs, in one round trip.

        A session that is not seen here, as one whose job has another id, is looked at by itself (job_handler.py).
        """
        calls = [script_calls.fetch_session(self._keys, each.job.id) for each in taken]
        with self._connection.pipeline(transaction=False) as pipeline:
            pipeline.exists(WORKERS_SUSPENDED)
            pipeline.llen(queue.key)
            for call in calls:
                pipeline.evalsha(_FETCH, len(call.keys), *call.keys, *call.args)
            held, waiting, *answers = pipeline.execute(raise_on_error=False)
        for answer in (held, waiting):
            if isinstance(answer, Exception):
                raise answer
        seen = [_read_state(call, answer) for call, answer in zip(calls, answers, strict=True)]
        return held > 0, waiting > 0, [each._replace(seen=it) for each, it in zip(taken, seen, strict=True)]

    def _take_one(self, queue: Queue, wait: bool) -> Taken:
        try:
            taken = self._dequeue(queue, wait)
        except DequeueTimeout:
            return [], None
        except Exception as error:  # noqa: BLE001 - told on the loop, with what was taken before it
            return [], error
        return [] if taken is None else [DequeuedJob(*taken)], None

    def _dequeue(self, queue: Queue, wait: bool) -> tuple[SessionJob, Queue] | None:
        """On the queue's own thread. One queue means BLMOVE, which cannot lose a job."""
        timeout = DEQUEUE_S if wait else None
        taken: Any = Queue.dequeue_any([queue], timeout, self._connection, SessionJob, SERIALIZER, TimerDeathPenalty)
        return taken  # type: ignore[no-any-return]
