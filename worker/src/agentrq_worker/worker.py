"""The worker process: started, told to end, drained; and the host of its sessions.

Owns the task group, the signals, the order of start and end, and the live sessions. Does not own RQ's side
(rq/service.py), what a session does (session/) nor who may own it (ownership/).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
from collections import Counter
from typing import Final

import redis

from agentrq.connection import connect_async
from agentrq.errors import InboxFull, SessionEnded, SessionNotFound
from agentrq.wire.commands import MAX_INBOX, Command
from agentrq.wire.status import Reason, Status
from agentrq_worker.metrics import serve
from agentrq_worker.ownership.hosting_audit import HostingAudit
from agentrq_worker.ownership.lease import NameTaken
from agentrq_worker.ownership.ownership import SPOILT, Claim, Ownership, SessionEnd, SessionSnapshot
from agentrq_worker.ownership.recovery_scanner import OrphanedJobs, RecoveryScanner
from agentrq_worker.process import procfs
from agentrq_worker.process.guardian import Guardian, sweep
from agentrq_worker.rq.service import RqService
from agentrq_worker.session.shell import SessionShell
from agentrq_worker.session_types import Outcome
from agentrq_worker.settings import Settings
from agentrq_worker.stream.publisher import Publisher

log = logging.getLogger(__name__)

LAST_WRITE_S: Final = 20.0
"""How long a worker that ends waits for Redis to take what its sessions said last, and the worker's leave."""
WATCH_S: Final = 1.0
"""How often the dead are reaped and the guardian is looked at."""


class Host:
    """All that the sessions of one worker share."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.settings = settings
        self._client = connect_async(url)
        self._live = connect_async(url, blocking=True)
        self.ownership = Ownership(self._client, self._live, settings)
        self.publisher = Publisher(self._client, settings, self.ownership.clock)
        self._guardian: Guardian | None = None
        self._residents: list[asyncio.Task[None]] = []
        self._repaired_ends: asyncio.Queue[str] = asyncio.Queue()
        """Ids of sessions whose ends were written again in a Redis that had lost them."""
        self._draining = False
        self.sessions: dict[str, SessionShell] = {}
        """The hosted sessions, by id."""
        self.ended: Counter[tuple[str, str]] = Counter()
        """Sessions that ended here, by status and reason."""

    async def begin(self, group: asyncio.TaskGroup, jobs: OrphanedJobs) -> None:
        """Start what all sessions need; the lease has been taken."""
        procfs.become_subreaper()
        procfs.keep_to_itself()
        left = sweep()
        if left:
            log.warning("%d processes of workers that are gone were ended", left)
        self._guardian = Guardian()
        neighbors, scanner = (
            self.ownership.lease.neighbors,
            RecoveryScanner(self._client, self.ownership, self.settings, jobs),
        )
        neighbors.on_release = scanner.recover_released
        self._residents = [
            group.create_task(self.publisher.run(), name="publisher"),
            group.create_task(self.ownership.renew_lease(), name="lease"),
            group.create_task(self.ownership.inboxes.deliver(), name="inboxes"),
            group.create_task(self.ownership.inboxes.listen(), name="wakes"),
            group.create_task(self._watch(), name="watch"),
            group.create_task(self._conclude_repaired(jobs), name="repaired ends"),
            group.create_task(scanner.run(), name="recovery scanner"),
            group.create_task(neighbors.watch(), name="neighbors"),
            group.create_task(HostingAudit(self._client, self.ownership, self.settings).run(), name="hosting audit"),
        ]

        if self.settings.metrics_port is not None:
            self._residents.append(group.create_task(serve(self, self.settings.metrics_port), name="metrics"))

    async def end(self) -> None:
        """End the residents, the connections and the guardian; the lease has been given back."""
        for resident in self._residents:
            resident.cancel()
        await asyncio.gather(*self._residents, return_exceptions=True)
        await self._client.aclose()
        await self._live.aclose()
        if self._guardian is not None:
            self._guardian.close()

    async def _watch(self) -> None:
        """Reap what orphans left to this sub-reaper; a guardian that died is replaced."""
        while True:
            procfs.reap_strays()
            if self._guardian is not None and not self._guardian.alive:
                log.warning("the guardian process is gone: another is started")
                try:
                    self._guardian = Guardian()
                except OSError as error:
                    log.error("no guardian can be started: %s", error)
            await asyncio.sleep(WATCH_S)

    def _follow_repair(self, session_id: str) -> None:
        """A session's events were written again: its inbox, or where it has ended its job, is as old as Redis was."""
        if session_id in self.sessions:
            self.ownership.inboxes.reread(session_id)
        else:
            self._repaired_ends.put_nowait(session_id)

    async def _conclude_repaired(self, jobs: OrphanedJobs) -> None:
        while True:
            session_id = await self._repaired_ends.get()
            try:
                snapshot = await self.ownership.fetch_session(session_id)
                if snapshot is not None and snapshot.state.ended:
                    await jobs.conclude(snapshot.inner.job_id or session_id, snapshot)
            except redis.ResponseError as error:
                log.error("session %s: its job cannot be closed: %s", session_id, error)

    async def run_session(self, claim: Claim) -> Outcome:
        """Host one claimed session until it ends or leaves."""
        claimed = claim.claimed
        lane = self.publisher.open_log(claimed.session_id, claim.cursor, claim.state)
        session = SessionShell(claimed, lane, self.settings, procfs.make_mark(claimed.session_id))
        self.sessions[session.id] = session
        self.ownership.inboxes.add(session, lane)
        lane.on_repaired = functools.partial(self._follow_repair, session.id)
        if self._draining:
            session.leave(at_once=True)
        try:
            outcome = await session.run()
        except Exception as error:
            log.exception("session %s: internal error", session.id)
            outcome = Outcome(Status.ERROR, Reason.FAILED, f"Internal error: {error!r}")
            await self._abandon(session.id, outcome.error or "")
        finally:
            self.ownership.inboxes.drop(session)
            if self.sessions.get(session.id) is session:  # else it was claimed here anew, while this one was ending
                del self.sessions[session.id]
            lane.close()
        if lane.lost in ("refused", "unreadable"):  # nobody else has it, and it would seem to run for ever
            await self._abandon(session.id, f"{SPOILT}: {lane.lost}")
        if outcome.handed_over:
            await self._stop_if_asked(session.id)
        if outcome.status is not None and outcome.reason is not None:
            end = SessionEnd(outcome.status, outcome.reason, outcome.error or "")
            self.ownership.remember_end(session.id, claim.state.get("nonce", ""), end)
        if outcome.status is not None:
            self.ended[outcome.status, outcome.reason or ""] += 1
            log.info("session %s: %s (%s)%s", session.id, outcome.status, outcome.reason,
                     f": {outcome.error}" if outcome.error else "")  # fmt: skip
        return outcome

    async def claim(self, session: SessionSnapshot) -> Claim | None:
        """As `Ownership.claim`; a session that was claimed and cannot be begun ends, lest nobody serve it for ever."""
        try:
            return await self.ownership.claim_session(session)
        except Exception as error:
            await self._abandon(session.state.session_id, f"Internal error: {error!r}")
            raise

    async def _abandon(self, session_id: str, error: str) -> None:
        try:
            look = await self.ownership.fetch_session(session_id)
            if look is not None and look.inner.token == self.ownership.token:
                await self.ownership.end_session(look, Status.ERROR, Reason.FAILED, error)
        except redis.ResponseError as refused:
            log.error("session %s: its end cannot be written: %s", session_id, refused)

    def drain(self, *, at_once: bool) -> None:
        """Hand all sessions over: idle ones now, busy ones when their turn is over, or all of them at once."""
        self._draining = True
        for session in list(self.sessions.values()):
            session.leave(at_once=at_once)

    async def command(self, session_id: str, command: Command) -> bool:
        """Carry out a command that RQ brought; False: its job was canceled.

        Raises `SessionNotFound`, `SessionEnded`, `InboxFull`.
        """
        outcome = await self.ownership.send_command(session_id, command, command.command_id)
        if outcome == "canceled":
            return False
        if outcome == "missing":
            raise SessionNotFound(session_id)
        if outcome == "full":
            raise InboxFull(session_id, MAX_INBOX)
        if command.command == "stop":
            await self.stop_ownerless(session_id)
        elif outcome == "ended":
            look = await self.ownership.fetch_session(session_id)
            raise SessionEnded(session_id, look.state.status if look else "ended")
        return True

    def stop_hosted(self, session_id: str) -> None:
        """Stop a session if it is hosted here."""
        if (session := self.sessions.get(session_id)) is not None:
            session.stop()

    async def stop_ownerless(self, session_id: str) -> bool:
        """Carry out a stop where no live worker does; whether it was carried out here."""
        outcome = "changed"
        while outcome == "changed":
            look = await self.ownership.fetch_session(session_id)
            if look is None or look.owned or look.state.ended:
                return False
            outcome = await self.ownership.end_session(look, Status.DONE, Reason.STOPPED, "")
        return outcome == "ok"

    async def _stop_if_asked(self, session_id: str) -> None:
        """A stop that came while its session was handed over: nobody would see it before the next owner."""
        look = await self.ownership.fetch_session(session_id)
        if look is not None and look.inner.stop:
            await self.stop_ownerless(session_id)


class Worker:
    """One worker process, from its start to its end."""

    def __init__(self, settings: Settings, url: str) -> None:
        """Connect to RQ's side. Raises `agentrq.connection.BadUrl`, `redis.RedisError`, OSError."""
        self._settings = settings
        self._url = url
        self._rq = RqService(settings, url)
        self._told_to_end = asyncio.Event()
        self._told_again = asyncio.Event()

    def run(self) -> None:
        """Serve until told to end by SIGTERM, SIGINT or RQ's shutdown. Raises `NameTaken`."""
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
        self._host = Host(self._settings, self._url)
        jobs = self._rq.open(self._host, self._on_signal)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        async with asyncio.TaskGroup() as group:
            # Redis may be away while the worker starts: a signal ends that wait too.
            starting = group.create_task(self._start(group, jobs), name="start")
            told = group.create_task(self._told_to_end.wait(), name="told to end")
            await asyncio.wait([starting, told], return_when=asyncio.FIRST_COMPLETED)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await told
            await self._rq.fetching_stopped()
            leave_by = await self._drain()
            await self._leave(leave_by)
        log.info("worker %s has ended", self._settings.worker_name)

    async def _start(self, group: asyncio.TaskGroup, jobs: OrphanedJobs) -> None:
        await self._host.ownership.take_lease()
        await self._rq.register()
        await self._host.begin(group, jobs)
        await self._rq.begin(group)
        log.info("worker %s is ready: queue %s, up to %d sessions", self._settings.worker_name, self._settings.queue,
                 self._settings.max_sessions)  # fmt: skip

    def _on_signal(self) -> None:
        if self._told_to_end.is_set():
            log.warning("told again to end: sessions are handed over now")
            self._told_again.set()
            return
        log.info("told to end: nothing new is taken, turns have %g s to finish", self._settings.drain_s)
        self._told_to_end.set()
        self._rq.stop_fetching()
        self._host.drain(at_once=False)

    async def _drain(self) -> float:
        """Wait for the sessions to leave: turns finish within the drain time, then all are handed over.

        Answers until when (the loop's time) Redis is waited for, should it be away.
        """
        running, loop = self._rq.running, asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._settings.drain_s), asyncio.TaskGroup() as waits:
                all_gone = waits.create_task(self._all_gone(), name="all sessions gone")
                told_again = waits.create_task(self._told_again.wait(), name="told again to end")
                await asyncio.wait([all_gone, told_again], return_when=asyncio.FIRST_COMPLETED)
                all_gone.cancel()
                told_again.cancel()
        except TimeoutError:
            log.warning("%d sessions still run after %g s: handed over now", len(running), self._settings.drain_s)
        self._host.drain(at_once=True)
        leave_by = loop.time() + LAST_WRITE_S + (self._settings.stop_grace_s if running else 0.0)
        if running:
            await asyncio.wait(running, timeout=leave_by - loop.time())
        if running:
            log.error("%d sessions could not be handed over, Redis may be away: others will recover them", len(running))
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        return leave_by

    async def _all_gone(self) -> None:
        while self._rq.running:
            await asyncio.wait(self._rq.running)

    async def _leave(self, leave_by: float) -> None:
        """Leave RQ's list, give the lease back, end what all sessions needed."""
        try:
            async with asyncio.timeout_at(leave_by):
                await self._rq.unregister()
                await self._host.ownership.lease.end()
        except TimeoutError:
            log.error("Redis does not answer: what it has of this worker runs out by itself")
        await self._host.end()


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
