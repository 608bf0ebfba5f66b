"""The RQ worker: what RQ asks of one, its commands, the life of the process and its beats.

A start is a job held open for its session's life. asyncio runs on the main thread; every synchronous RQ call runs on
one thread (executor.py). Jobs are taken by fetcher.py, what becomes of one is job_handler.py's. RQ's subclass interface
is not promised by RQ: ``rq~=3.0`` is pinned and the tests run on each change.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
from rq.job import Job
from rq.timeouts import TimerDeathPenalty
from rq.utils import now
from rq.worker import BaseWorker

from agentrq.connection import connect
from agentrq.rq_commands import SERIALIZER
from agentrq.wire.keys import control_queue
from agentrq_worker.ownership.lease import NameTaken
from agentrq_worker.rq.executor import RqThread
from agentrq_worker.rq.fetcher import DEQUEUE_S, JobFetcher
from agentrq_worker.rq.job import SessionJob
from agentrq_worker.rq.job_handler import JobHandler
from agentrq_worker.rq.job_records import RQ_LEASE_S, JobRecords
from agentrq_worker.rq.registry_maintenance import CLEAN_S, RegistryMaintenance
from agentrq_worker.settings import Settings
from agentrq_worker.worker import LAST_WRITE_S, Host

log = logging.getLogger(__name__)

RQ_BEAT_S: Final = 30.0
"""As often as RQ's own workers say that they and their jobs live."""
FROZEN_S: Final = 15.0
UPKEEP_S: Final = 1.0
_SERVER_VERSION: Final = "__rq_redis_server_version"
"""Where RQ keeps the server's version. Told 7 (agentrq needs it), RQ spares the INFO, and where that is forbidden
does not take to BLPOP, which loses jobs."""


class SessionWorker(BaseWorker):
    """Hosts many sessions in one process; see the module's head."""

    death_penalty_class = TimerDeathPenalty  # SIGALRM belongs to the main thread
    job_class = SessionJob

    def __init__(self, settings: Settings, url: str) -> None:
        self.settings = settings
        # No retries of redis-py's own: fetcher.py and executor.py try again, and nothing here is to outlast the end.
        self._connection_for_queues = connect(url, blocking=True, retries=0)
        connection = connect(url, retries=0)
        for client in (connection, self._connection_for_queues):
            setattr(client, _SERVER_VERSION, (7, 0, 0))
        super().__init__(
            [settings.queue, control_queue(settings.queue)],
            name=settings.worker_name,
            connection=connection,
            serializer=SERIALIZER,
        )
        self._url = url
        self._loop: asyncio.AbstractEventLoop | None = None
        self._books = JobRecords(self, self.queues[0], settings.keys)
        self._upkeep = RegistryMaintenance(self, self._books, settings.keys.worker, settings.lease_s)
        self._stopping = asyncio.Event()
        self._given_up = asyncio.Event()
        self._commands_lost = -math.inf

    # -- what RQ asks of a worker

    @property
    def dequeue_timeout(self) -> int:
        """Seconds a dequeue blocks."""
        return DEQUEUE_S

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """Seconds until RQ takes a silent execution for abandoned."""
        return RQ_LEASE_S

    def procline(self, message: str) -> None:
        """The process title stays what the operator started."""

    def _install_signal_handlers(self) -> None:
        """Signals are the loop's."""

    def work(self, *_: Any, **__: Any) -> bool:
        """Serve until told to stop; answers whether any job was done. RQ's own options have no meaning here.

        Raises `NameTaken`.
        """
        self._rq = RqThread()
        try:
            asyncio.run(self._serve())
        except BaseExceptionGroup as errors:
            taken, others = errors.split(NameTaken)
            if taken is None or others is not None:
                raise
            raise NameTaken(str(_first(taken))) from None
        finally:
            self._rq.close()
        return self.successful_job_count + self.failed_job_count > 0

    # -- RQ's commands

    def handle_payload(self, message: Any) -> None:
        """One of RQ's commands; a malformed one costs a log line, not RQ's command thread."""
        try:
            payload = msgspec.json.decode(message["data"])
            command = payload["command"]
            if command == "shutdown":
                self._call_soon(self._on_signal)
            elif command == "stop-job":
                self._call_soon(self._jobs.stop_job, str(payload["job_id"]))
            elif command == "stop-execution":
                self._call_soon(self._jobs.stop_execution, str(payload["execution_id"]))
            elif command == "kill-horse":
                self._call_soon(self._jobs.stop_all)
            else:
                log.warning("RQ command %.200r is not known", command)
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread has to hear the next command
            log.warning("malformed RQ command %.200r: %r", message, error)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        """RQ's thread ends on what is no `redis.ConnectionError`, a timeout for one; here it goes on."""
        if time.monotonic() - self._commands_lost > FROZEN_S:
            log.info("RQ's commands: connection lost, made anew: %s", exc)
        self._commands_lost = time.monotonic()
        time.sleep(0.5)

    def _call_soon(self, what: Callable[..., None], *args: Any) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(what, *args)

    # -- the life of the worker

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._host = Host(self.settings, self._url)
        self._jobs = JobHandler(self, self._books, self._rq, self._host, self.settings.queue)
        self._taking = JobFetcher(
            self._connection_for_queues, self._jobs, self._books, self._upkeep, self._rq, self._stopping,
            self.settings.keys, self.settings.max_sessions,
        )  # fmt: skip
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._on_signal)
        await self._host.ownership.lease.begin()
        await self._rq(self._upkeep.register)
        async with asyncio.TaskGroup() as group:
            await self._host.begin(group, self._jobs)
            await self._rq(self._upkeep.beat)
            await self._rq(self.subscribe)
            log.info("worker %s is ready: queue %s, up to %d sessions", self.name, self.settings.queue,
                     self.settings.max_sessions)  # fmt: skip
            beats = [
                group.create_task(self._heartbeats(), name="rq heartbeats"),
                group.create_task(self._keep_up(), name="rq upkeep"),
            ]
            starts, commands = self.queues
            pumps = [
                group.create_task(self._taking.starts(starts, group), name=f"queue {starts.name}"),
                group.create_task(self._taking.commands(commands), name=f"queue {commands.name}"),
            ]
            await self._stopping.wait()
            await asyncio.gather(*pumps)
            self._taking.close()
            leave_by = await self._drain()
            for beat in beats:
                beat.cancel()
            await asyncio.gather(*beats, return_exceptions=True)
            await self._leave(leave_by)
        log.info("worker %s has ended", self.name)

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            log.warning("told again to end: sessions are handed over now")
            self._given_up.set()
            return
        log.info("told to end: nothing new is taken, turns have %g s to finish", self.settings.drain_s)
        self._shutdown_requested_date = now()
        self._stopping.set()
        self._host.drain(at_once=False)

    async def _drain(self) -> float:
        """Wait for the sessions to leave: turns finish within the drain time, then all are handed over.

        Answers until when (the loop's time) Redis is waited for, should it be away.
        """
        try:
            async with asyncio.timeout(self.settings.drain_s), asyncio.TaskGroup() as waits:
                all_gone = waits.create_task(self._all_gone(), name="all sessions gone")
                told = waits.create_task(self._given_up.wait(), name="told again to end")
                await asyncio.wait([all_gone, told], return_when=asyncio.FIRST_COMPLETED)
                all_gone.cancel()
                told.cancel()
        except TimeoutError:
            log.warning(
                "%d sessions still run after %g s: handed over now", len(self._taking.running), self.settings.drain_s
            )
        self._host.drain(at_once=True)
        leave_by = asyncio.get_running_loop().time() + self.settings.stop_grace_s + LAST_WRITE_S
        if self._taking.running:
            await asyncio.wait(self._taking.running, timeout=self.settings.stop_grace_s + LAST_WRITE_S)
        if self._taking.running:
            log.error("%d sessions could not be handed over, Redis may be away: others will recover them",
                      len(self._taking.running))  # fmt: skip
            for task in self._taking.running:
                task.cancel()
            await asyncio.gather(*self._taking.running, return_exceptions=True)
        return leave_by

    async def _all_gone(self) -> None:
        while self._taking.running:
            await asyncio.wait(self._taking.running)

    async def _leave(self, leave_by: float) -> None:
        """Out of RQ's list, the lease given back, and away."""
        try:
            async with asyncio.timeout_at(leave_by):
                await self._rq(self._upkeep.end)
                await self._rq(self.unsubscribe)
                await self._host.ownership.lease.end()
        except TimeoutError:
            log.error("Redis does not answer: what it has of this worker runs out by itself")
        await self._host.end()

    # -- beats

    async def _heartbeats(self) -> None:
        while True:
            await self._upkept(self._upkeep.beat)
            await asyncio.sleep(RQ_BEAT_S)

    async def _keep_up(self) -> None:
        cleaned = beaten = time.monotonic()
        while True:
            gap, beaten = time.monotonic() - beaten, time.monotonic()
            if gap > FROZEN_S:  # frozen, or Redis away: first of all RQ is told what lives
                await self._upkept(self._upkeep.beat)
                cleaned = time.monotonic()
            await self._upkept(self._upkeep.share, self._taking.free)
            await self._upkept(self._upkeep.put_back_stranded)
            await self._upkept(self._upkeep.schedule)
            if time.monotonic() - cleaned > CLEAN_S:
                cleaned = time.monotonic()
                await self._upkept(self._upkeep.clean)
            await asyncio.sleep(UPKEEP_S)

    async def _upkept(self, call: Callable[..., None], *args: Any) -> None:
        """One part of the upkeep; what RQ makes of a malformed record must not stop the worker."""
        try:
            await self._rq(call, *args)
        except Exception as error:  # noqa: BLE001 - a job hash may hold anything
            log.warning("RQ's upkeep (%s): %r", getattr(call, "__name__", call), error)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
