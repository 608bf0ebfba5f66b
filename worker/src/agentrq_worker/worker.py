"""The worker process: started, stopped, drained, ended.

Owns the task group, the signals and the order of start and end. Does not own the sessions (session_host.py) nor RQ's
side (rq/service.py).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from typing import Final

from agentrq_worker import metrics, status_server
from agentrq_worker.logs import event
from agentrq_worker.ownership.lease import NameTaken
from agentrq_worker.ownership.recovery_scanner import OrphanedJobs
from agentrq_worker.rq.service import RqService
from agentrq_worker.service_manager import ServiceManager
from agentrq_worker.session_host import SessionHost
from agentrq_worker.settings import Settings

log = logging.getLogger(__name__)

LAST_WRITE_S: Final = 20.0
"""How long a worker that ends waits for Redis to take its sessions' last events."""
DRAIN_TOLD_S: Final = 30.0
"""How often a worker that ends says what it waits for."""
DRAIN_NAMED: Final = 10
"""How many sessions it names then."""
LEAVE_S: Final = 5.0
"""How long it then waits for Redis to leave RQ's list and to give its lease back."""


class Worker:
    """One worker process, from its start to its end."""

    def __init__(self, settings: Settings, url: str, metrics_socket: socket.socket | None = None) -> None:
        """Connect to RQ's side. Raises `agentrq.connection.BadUrl`, `redis.RedisError`, OSError.

        ``metrics_socket``: where metrics and health are asked for, bound already.
        """
        self._settings = settings
        self._url = url
        self._rq = RqService(settings, url)
        self._stop_requested = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._metrics_socket = metrics_socket
        self._manager = ServiceManager()
        self._begun = False

    def run(self) -> None:
        """Serve until stopped by SIGTERM, SIGINT or RQ's shutdown. Raises `NameTaken`."""
        try:
            asyncio.run(self._serve())
        except BaseExceptionGroup as errors:
            taken, others = errors.split(NameTaken)
            if taken is None or others is not None:
                raise
            raise NameTaken(str(_first(taken))) from None
        finally:
            self._rq.close()

    async def _serve(self) -> None:
        self._host = SessionHost(self._settings, self._url)
        jobs = self._rq.open(self._host, self._on_signal)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        async with asyncio.TaskGroup() as group:
            serving = self._serve_metrics(group)
            watchdog = group.create_task(self._manager.keep_alive(), name="watchdog")
            # Redis may be away while the worker starts: a signal ends that wait too.
            starting = group.create_task(self._start(group, jobs), name="start")
            stop_requested = group.create_task(self._stop_requested.wait(), name="stop requested")
            await asyncio.wait([starting, stop_requested], return_when=asyncio.FIRST_COMPLETED)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await stop_requested
            await self._rq.fetching_stopped()
            await self._drain()
            await self._leave()
            watchdog.cancel()
            if serving is not None:
                serving.cancel()
        log.info("worker %s has stopped", self._settings.worker_name, extra=event("worker_stopped"))

    async def _start(self, group: asyncio.TaskGroup, jobs: OrphanedJobs) -> None:
        await self._host.ownership.take_lease()
        await self._rq.register()
        await self._host.start(group, jobs)
        await self._rq.begin(group)
        self._begun = True
        settings = self._settings
        self._manager.notify("READY=1", f"STATUS=queue {settings.queue}, up to {settings.max_sessions} sessions")
        log.info("worker %s is ready: queue %s, up to %d sessions", self._settings.worker_name, self._settings.queue,
                 self._settings.max_sessions, extra=event("worker_ready", queue=self._settings.queue,
                                                          slots=self._settings.max_sessions))  # fmt: skip

    def _serve_metrics(self, group: asyncio.TaskGroup) -> asyncio.Task[None] | None:
        """Answer from the first moment on: a worker that waits for Redis is not ready, and says so."""
        if self._metrics_socket is None:
            return None
        routes = metrics.routes(self._host, self._not_ready_reason)
        return group.create_task(status_server.serve(self._metrics_socket, routes), name="metrics")

    def _not_ready_reason(self) -> str | None:
        reason = metrics.not_ready_reason(self._host)
        return "the worker is starting" if reason is None and not self._begun else reason

    def _on_signal(self) -> None:
        if self._stop_requested.is_set():
            log.warning("stopping now: handing all sessions over")
            self._stop_now.set()
            return
        log.info("stopping: fetching no more jobs; turns have %g s to finish, a second signal hands them over at once",
                 self._settings.drain_s, extra=event("worker_stopping", seconds=self._settings.drain_s))  # fmt: skip
        self._manager.notify("STOPPING=1", "STATUS=turns finish, then all sessions are handed over")
        self._stop_requested.set()
        self._rq.stop_fetching()
        self._host.drain(at_once=False)

    async def _drain(self) -> None:
        """Hand the sessions over: each when its turn is over, all of them when the drain time is."""
        running = self._rq.running
        try:
            async with asyncio.timeout(self._settings.drain_s), asyncio.TaskGroup() as waits:
                all_gone = waits.create_task(self._all_gone(), name="all sessions gone")
                stop_now = waits.create_task(self._stop_now.wait(), name="stop now")
                telling = waits.create_task(self._tell_drain(), name="tell the drain")
                await asyncio.wait([all_gone, stop_now], return_when=asyncio.FIRST_COMPLETED)
                for task in (all_gone, stop_now, telling):
                    task.cancel()
        except TimeoutError:
            log.warning("%d sessions still run after %g s: handing them over now", len(running), self._settings.drain_s)
        self._host.drain(at_once=True)
        if running:
            await asyncio.wait(running, timeout=self._settings.stop_grace_s + LAST_WRITE_S)
        if running:
            log.error("%d sessions could not be handed over; other workers will recover them", len(running))
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _all_gone(self) -> None:
        while self._rq.running:
            await asyncio.wait(self._rq.running)

    async def _tell_drain(self) -> None:
        """Say what the drain waits for, at once and every `DRAIN_TOLD_S`."""
        began = time.monotonic()
        while sessions := self._host.waiting_for():
            left = max(0.0, self._settings.drain_s - (time.monotonic() - began))
            more = f" and {len(sessions) - DRAIN_NAMED} more" if len(sessions) > DRAIN_NAMED else ""
            log.info("draining: waiting for %d sessions, %.0f s left: %s%s", len(sessions), left,
                     ", ".join(sessions[:DRAIN_NAMED]), more,
                     extra=event("worker_draining", sessions=len(sessions), seconds=round(left)))  # fmt: skip
            await asyncio.sleep(DRAIN_TOLD_S)

    async def _leave(self) -> None:
        """Leave RQ's list, give the lease back, end what all sessions needed."""
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._rq.unregister()
                await self._host.ownership.lease.end()
        except TimeoutError:
            log.error("Redis does not answer: this worker's lease and records there will expire by themselves")
        await self._host.close()


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
