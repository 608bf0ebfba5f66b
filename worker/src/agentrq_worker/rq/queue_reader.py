"""Dequeues jobs from one queue, on a thread and a connection of its own; a wait for a job can be ended.

Owns what RQ and Redis are asked when jobs are dequeued. Does not own how many are taken (fetcher.py) nor what becomes
of them (job_handler.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import redis
from rq import Queue
from rq.exceptions import DequeueTimeout
from rq.suspension import WORKERS_SUSPENDED
from rq.timeouts import TimerDeathPenalty

from agentrq.rq_commands import SERIALIZER
from agentrq.wire import script_calls, scripts
from agentrq.wire.keys import Keys
from agentrq.wire.script_calls import ScriptCall
from agentrq_worker.rq.connection import connect_rq
from agentrq_worker.rq.job import SessionJob

T = TypeVar("T")

DEQUEUE_S: Final = 1
"""How long one BLMOVE waits. Where it cannot be unblocked, a worker that ends waits as long."""
UNBLOCK_S: Final = 0.02
"""Between two tries to unblock a BLMOVE, which may not have begun yet."""
_FETCH: Final = hashlib.sha1(scripts.SOURCES["fetch_session"].encode(), usedforsecurity=False).hexdigest()
"""The digest by which Redis knows a script that some client has run before."""


class DequeuedJob(NamedTuple):
    """A job that was dequeued; ``seen`` is the state hash of a start's session, None if not known."""

    job: SessionJob
    queue: Queue
    seen: dict[bytes, bytes] | None = None


Dequeued: TypeAlias = tuple[list[DequeuedJob], Exception | None]
"""What a dequeue brought, and what ended it."""


class QueueReader:
    """Reads one queue; one read at a time."""

    def __init__(self, url: str, queue: Queue, keys: Keys) -> None:
        self.queue = queue
        self._keys = keys
        self._client = connect_rq(url, blocking=True)
        self._client.connection_pool.connection_kwargs["redis_connect_func"] = self._connect
        self._others = connect_rq(url)
        self._client_id: int | None = None
        """Redis's id of the connection that waits; None until it is made."""
        self._may_unblock = True
        """False where Redis's ACL forbids it: waits run out by themselves."""
        self._ended = threading.Event()
        self._thread = ThreadPoolExecutor(1, f"dequeue {queue.name}")

    # -- on the loop

    async def read_one(self) -> Dequeued:
        """Wait for one job, at most `DEQUEUE_S`."""
        return await self._run(self._read_one, True)

    async def read_starts(self, most: int, *, wait: bool) -> Dequeued:
        """Dequeue up to ``most`` starts with their sessions' states; none while ``rq suspend`` holds all workers."""
        return await self._run(self._read_starts, most, wait)

    async def _run(self, call: Any, *args: Any) -> Dequeued:
        dequeued: Dequeued = await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)
        return dequeued

    async def end_wait(self) -> None:
        """End the waits of a read that runs, until cancelled; where Redis does not let us, they run out."""
        self._ended.set()
        while True:
            if not await asyncio.to_thread(self._unblock):
                return
            await asyncio.sleep(UNBLOCK_S)

    def close(self) -> None:
        """End the connections, and with them a read that still runs."""
        self._thread.shutdown(wait=False)
        for client in (self._client, self._others):
            client.close()

    # -- on threads

    def _connect(self, connection: Any) -> None:
        """redis-py's own way to begin a connection, and its id."""
        connection.on_connect()
        try:
            connection.send_command("CLIENT", "ID")
            self._client_id = connection.read_response()
        except redis.ResponseError:
            self._may_unblock = False

    def _unblock(self) -> bool:
        """Whether trying again may help."""
        if self._client_id is not None and self._may_unblock:
            try:
                self._others.client_unblock(self._client_id)
            except (redis.RedisError, OSError):  # away, or forbidden
                return False
        return self._may_unblock

    def _read_starts(self, most: int, wait: bool) -> Dequeued:
        """``rq suspend`` holds starts, those too that come while a dequeue waits for one."""
        suspended, _, _ = self._check([])
        if suspended:
            self._ended.wait(DEQUEUE_S)
            return [], None
        jobs, error = self._read_one(wait)
        if not jobs:
            return jobs, error
        suspended, more, jobs = self._check(jobs)
        if more and not suspended and most > 1:
            others: list[DequeuedJob] = []
            while len(jobs) + len(others) < most and error is None:
                another, error = self._read_one(False)
                if not another:
                    break
                others += another
            suspended, _, others = self._check(others)
            jobs += others
        if suspended:
            for each in reversed(jobs):
                put_back(self._client, each.job.id, each.queue)
            return [], error
        return jobs, error

    def _check(self, jobs: list[DequeuedJob]) -> tuple[bool, bool, list[DequeuedJob]]:
        """Whether `rq suspend` holds, whether more waits in the queue, and the sessions of the jobs, in one round trip.

        A session that is not found here, as one whose job has another id, is fetched by itself (job_handler.py).
        """
        calls = [script_calls.fetch_session(self._keys, each.job.id) for each in jobs]
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.exists(WORKERS_SUSPENDED)
            pipeline.llen(self.queue.key)
            for call in calls:
                pipeline.evalsha(_FETCH, len(call.keys), *call.keys, *call.args)
            suspended, waiting, *answers = pipeline.execute(raise_on_error=False)
        for answer in (suspended, waiting):
            if isinstance(answer, Exception):
                raise answer
        seen = [_read_state(call, answer) for call, answer in zip(calls, answers, strict=True)]
        return suspended > 0, waiting > 0, [each._replace(seen=it) for each, it in zip(jobs, seen, strict=True)]

    def _read_one(self, wait: bool) -> Dequeued:
        timeout = DEQUEUE_S if wait and not self._ended.is_set() else None
        try:  # one queue means BLMOVE, which cannot lose a job
            found: Any = Queue.dequeue_any(
                [self.queue], timeout, self._client, SessionJob, SERIALIZER, TimerDeathPenalty
            )
        except DequeueTimeout:
            return [], None
        except Exception as error:  # noqa: BLE001 - handled on the loop, with what was dequeued before it
            return [], error
        return [] if found is None else [DequeuedJob(*found)], None


def put_back(client: redis.Redis, job_id: str, queue: Queue) -> None:
    """Put a dequeued job that is not to be handled now back to where it was."""
    with client.pipeline() as pipeline:
        pipeline.lpush(queue.key, job_id)
        pipeline.lrem(queue.intermediate_queue_key, 1, job_id)
        pipeline.execute()


def _read_state(call: ScriptCall[dict[bytes, bytes]], answer: Any) -> dict[bytes, bytes] | None:
    """The state hash, None where it was refused or is too large: then it is read by itself (job_handler.py)."""
    try:
        return None if isinstance(answer, Exception) else call.read(answer)
    except ValueError:
        return None
