"""Hosts the sessions of one worker: claimed, run, stopped, handed over, with all that they share.

Owns the live sessions, the publisher, the lease's renewal and the guardian process. Does not own what a session does
(session/), who may own it (ownership/), nor when the worker starts and ends (worker.py).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import select
import time
from typing import Final

import redis

from agentrq.connection import connect_async
from agentrq.errors import InboxFull, SessionEnded, SessionNotFound
from agentrq.wire.commands import MAX_INBOX, Command
from agentrq.wire.status import Reason, Status
from agentrq_worker.garbage import GarbageCollection
from agentrq_worker.logs import event
from agentrq_worker.measurements import Measurements
from agentrq_worker.ownership.hosting_audit import HostingAudit
from agentrq_worker.ownership.ownership import SPOILT, Claim, Ownership, SessionEnd, SessionSnapshot
from agentrq_worker.ownership.recovery_scanner import OrphanedJobs, RecoveryScanner
from agentrq_worker.process import descendants, marks, prctl
from agentrq_worker.process.guardian import Guardian, sweep
from agentrq_worker.process.output_poller import OutputPoller
from agentrq_worker.session.shell import SessionShell
from agentrq_worker.session_types import Outcome
from agentrq_worker.settings import Settings
from agentrq_worker.stream.publisher import Publisher

log = logging.getLogger(__name__)

WATCH_S: Final = 1.0
"""Between two checks of the guardian and of dead children."""


class SessionHost:
    """Hosts the sessions of one worker, with all that they share."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.settings = settings
        self._client = connect_async(url)
        self._live = connect_async(url, blocking=True)
        self.ownership = Ownership(self._client, self._live, settings)
        self.measurements = Measurements()
        self.publisher = Publisher(self._client, settings, self.ownership.clock, self.measurements)
        self._outputs: OutputPoller | None = None
        self._guardian: Guardian | None = None
        self._garbage: GarbageCollection | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._repaired_ends: asyncio.Queue[str] = asyncio.Queue()
        """Ids of sessions whose ends were written again in a Redis that had lost them."""
        self._draining = False
        self.sessions: dict[str, SessionShell] = {}
        """The hosted sessions, by id."""

    async def start(self, group: asyncio.TaskGroup, jobs: OrphanedJobs) -> None:
        """Start what all sessions need. The worker has its lease."""
        prctl.become_subreaper()
        prctl.deny_inspection()
        left = sweep()
        if left:
            log.warning(
                "ended %d processes that dead workers left behind", left, extra=event("orphans_ended", processes=left)
            )
            self.measurements.orphans.add(amount=left)
        self._guardian = Guardian()
        if hasattr(select, "epoll"):
            self._outputs = OutputPoller(asyncio.get_running_loop())
        self._garbage = GarbageCollection(time.monotonic())
        neighbours = self.ownership.lease.neighbours
        scanner = RecoveryScanner(self._client, self.ownership, self.settings, jobs)
        neighbours.on_release = scanner.recover_released
        self._tasks = [
            group.create_task(self.publisher.run(), name="publisher"),
            group.create_task(self.ownership.renew_lease(), name="lease"),
            group.create_task(self.ownership.inboxes.deliver(), name="inboxes"),
            group.create_task(self.ownership.inboxes.listen(), name="wakes"),
            group.create_task(self.ownership.inboxes.repeat_open_texts(), name="texts under way"),
            group.create_task(self._watch(), name="watch"),
            group.create_task(self._conclude_repaired(jobs), name="repaired ends"),
            group.create_task(scanner.run(), name="recovery scanner"),
            group.create_task(neighbours.watch(), name="neighbours"),
            group.create_task(HostingAudit(self._client, self.ownership, self.settings).run(), name="hosting audit"),
        ]

    async def close(self) -> None:
        """End what all sessions needed, the connections and the guardian. The worker has given its lease back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()
        await self._live.aclose()
        if self._outputs is not None:
            self._outputs.close()
        if self._guardian is not None:
            self._guardian.close()

    async def _watch(self) -> None:
        """Reap the orphans that the kernel gave to this process, replace a guardian that died, collect garbage."""
        while True:
            descendants.reap_orphans()
            if self._garbage is not None:
                self._garbage.collect_if_due(time.monotonic())
            if self._guardian is not None and not self._guardian.alive:
                log.warning("the guardian process died: starting another", extra=event("guardian_died"))
                try:
                    self._guardian = Guardian()
                except OSError as error:
                    log.error("cannot start a guardian process: %s", error)
            began = time.monotonic()
            await asyncio.sleep(WATCH_S)
            self.measurements.loop_lag.add(time.monotonic() - began - WATCH_S)

    def _follow_repair(self, session_id: str) -> None:
        """A session's events were written again: read its inbox again, or if it has ended, close its job again."""
        if session_id in self.sessions:
            self.ownership.inboxes.reread(session_id)
        else:
            self._repaired_ends.put_nowait(session_id)

    async def _conclude_repaired(self, jobs: OrphanedJobs) -> None:
        while True:
            session_id = await self._repaired_ends.get()
            try:
                session = await self.ownership.fetch_session(session_id)
                if session is not None and session.state.ended:
                    await jobs.conclude(session.inner.job_id or session_id, session)
            except redis.ResponseError as error:
                log.error("session %s: its job cannot be closed: %s", session_id, error)

    async def run_session(self, claim: Claim) -> Outcome:
        """Host one claimed session until it ends or leaves."""
        claimed = claim.claimed
        lane = self.publisher.open_log(claimed.session_id, claim.cursor, claim.state)
        self._measure_claim(claim)
        mark = marks.make_mark(claimed.session_id)
        session = SessionShell(claimed, lane, self.settings, mark, self.measurements, self._outputs)
        self.sessions[session.id] = session
        self.ownership.inboxes.add(session, lane, claim.claimed_at)
        lane.on_repaired = functools.partial(self._follow_repair, session.id)
        if self._draining:
            session.leave(at_once=True)
        try:
            outcome = await session.run()
        except Exception as error:
            log.exception("session %s: internal error", session.id, extra=event("internal_error"))
            outcome = Outcome(Status.ERROR, Reason.FAILED, f"Internal error: {error!r}")
            await self._end_unserved(session.id, outcome.error or "")
        finally:
            self.ownership.inboxes.drop(session)
            if self._garbage is not None:
                self._garbage.session_ended()
            if self.sessions.get(session.id) is session:  # else it was claimed here anew, while this one was ending
                del self.sessions[session.id]
            lane.close()
        if lane.lost in ("refused", "unreadable"):  # no other worker owns it: it would seem to run for ever
            await self._end_unserved(session.id, f"{SPOILT}: {lane.lost}")
        if outcome.handed_over:
            await self._stop_if_asked(session.id)
        if outcome.status is not None and outcome.reason is not None:
            end = SessionEnd(outcome.status, outcome.reason, outcome.error or "")
            self.ownership.remember_end(session.id, claim.state.get("nonce", ""), end)
        if outcome.status is not None:
            self.measurements.ended.add(claimed.provider, outcome.status, outcome.reason or "")
            said = event("session_ended", status=outcome.status, reason=outcome.reason, epoch=lane.epoch)
            log.info("session %s: %s (%s)%s", session.id, outcome.status, outcome.reason,
                     f": {outcome.error}" if outcome.error else "", extra=said)  # fmt: skip
        elif outcome.handed_over:
            log.info("session %s: handed over", session.id, extra=event("session_handed_over", epoch=lane.epoch))
        return outcome

    def _measure_claim(self, claim: Claim) -> None:
        claimed, figures = claim.claimed, self.measurements
        waited_s = (claim.claimed_at - claim.free_since) / 1000
        if claimed.takeover:
            figures.recovered.add(claimed.provider, claimed.takeover)
            figures.takeover.add(waited_s, claimed.takeover)
        else:
            figures.started.add(claimed.provider)
            figures.start_to_claim.add(waited_s, claimed.provider)

    async def claim(self, session: SessionSnapshot) -> Claim | None:
        """Like `Ownership.claim_session`; a session that is claimed and cannot begin ends: no worker would serve it."""
        try:
            return await self.ownership.claim_session(session)
        except Exception as error:
            await self._end_unserved(session.state.session_id, f"Internal error: {error!r}")
            raise

    async def _end_unserved(self, session_id: str, error: str) -> None:
        """End a session that this worker owns and cannot serve."""
        try:
            session = await self.ownership.fetch_session(session_id)
            if session is not None and session.inner.token == self.ownership.token:
                await self.ownership.end_session(session, Status.ERROR, Reason.FAILED, error)
        except redis.ResponseError as refused:
            log.error("session %s: its end cannot be written: %s", session_id, refused)

    @property
    def guardian_pid(self) -> int | None:
        """The guardian's process id; None before the worker has begun."""
        return None if self._guardian is None else self._guardian.pid

    @property
    def draining(self) -> bool:
        """The worker ends: it takes no session any more."""
        return self._draining

    def waiting_for(self) -> list[str]:
        """What a drain waits for: each session that is still here, with its status, the oldest first."""
        return [f"{session.id} {session.status}" for session in self.sessions.values()]

    def drain(self, *, at_once: bool) -> None:
        """Hand all sessions over: idle ones now, busy ones when their turn is over, or all of them at once."""
        self._draining = True
        for session in list(self.sessions.values()):
            session.leave(at_once=at_once)

    async def send_command(self, session_id: str, command: Command) -> bool:
        """Carry out an RQ job's command, whose id is the job's; False: the job was canceled.

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
            session = await self.ownership.fetch_session(session_id)
            raise SessionEnded(session_id, session.state.status if session else "ended")
        return True

    def stop_hosted(self, session_id: str) -> None:
        """Stop a session if it is hosted here."""
        if (session := self.sessions.get(session_id)) is not None:
            session.stop()

    async def stop_ownerless(self, session_id: str) -> bool:
        """End a session that no live worker owns, as stopped; True where it was ended here."""
        outcome = "changed"
        while outcome == "changed":
            session = await self.ownership.fetch_session(session_id)
            if session is None or session.owned or session.state.ended:
                return False
            outcome = await self.ownership.end_session(session, Status.DONE, Reason.STOPPED, "")
        return outcome == "ok"

    async def _stop_if_asked(self, session_id: str) -> None:
        """Carry out a stop that arrived during the handover; otherwise it would wait for the next owner."""
        session = await self.ownership.fetch_session(session_id)
        if session is not None and session.inner.stop:
            await self.stop_ownerless(session_id)
