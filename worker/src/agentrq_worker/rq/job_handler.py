"""One dequeued job: carried out and closed. A start is held open for its session's life.

What goes wrong is the job's failure, never the worker's. Does not own how jobs are dequeued (fetcher.py), what they ask
for (job_payload.py) nor RQ's records of it (job_records.py).
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Protocol

import redis
from rq import Queue

from agentrq.errors import AgentRQError, SessionExists, SessionNotFound
from agentrq.rq_commands import format_time
from agentrq.wire.commands import Command
from agentrq.wire.script_calls import now_ms
from agentrq.wire.state import to_wire
from agentrq.wire.status import Reason, Status
from agentrq_worker.logs import event
from agentrq_worker.ownership.ownership import Claim, Ownership, SessionSnapshot
from agentrq_worker.rq.executor import RqThread
from agentrq_worker.rq.fenced_pipeline import SessionIdentity, Written
from agentrq_worker.rq.job import SessionJob
from agentrq_worker.rq.job_identity import is_own_job
from agentrq_worker.rq.job_payload import StartRequest, read_request, start_arguments
from agentrq_worker.rq.job_records import STOPPED, JobRecords
from agentrq_worker.rq.job_run import JobRun
from agentrq_worker.rq.orphan_jobs import OrphanJobRecords
from agentrq_worker.session_types import Outcome

log = logging.getLogger(__name__)


class JobHost(Protocol):
    """What jobs need of who hosts their sessions."""

    @property
    def ownership(self) -> Ownership:
        """Sessions as they stand in Redis, and what this worker owns of them."""

    async def claim(self, session: SessionSnapshot) -> Claim | None:
        """Become a session's owner; None where another was first, it ended, or its job was canceled."""

    async def run_session(self, claim: Claim) -> Outcome:
        """Host a claimed session until it ends or leaves."""

    async def send_command(self, session_id: str, command: Command) -> bool:
        """Carry out a job's command; False: the job was canceled. Raises `AgentRQError` where it cannot be sent."""

    async def stop_ownerless(self, session_id: str) -> bool:
        """End a session that no live worker owns; True where it was ended here."""

    def stop_hosted(self, session_id: str) -> None:
        """Stop a session if it is hosted here."""


@dataclass(slots=True)
class _LiveJob:
    """A start job whose session this worker hosts."""

    run: JobRun
    session_id: str
    stopped: bool = False
    """RQ was asked to stop it."""


class JobHandler:
    """Handles the jobs that one worker dequeues, and those of orphaned sessions (`recovery_scanner.OrphanedJobs`)."""

    def __init__(
        self, records: JobRecords, orphans: OrphanJobRecords, call: RqThread, host: JobHost, starts: str
    ) -> None:
        """``starts``: the name of the queue of start jobs."""
        self._records = records
        self._orphans = orphans
        self._call = call
        self._host = host
        self._starts = starts
        self._live: dict[str, _LiveJob] = {}

    async def handle(self, job: SessionJob, queue: Queue, seen: Any = None) -> None:
        """Handle one job, whatever it holds; ``seen`` as in `fetcher.DequeuedJob`."""
        job.origin = queue.name
        run = JobRun(job, queue)
        try:
            if job.callbacks:
                log.warning("job %s: its callbacks are not run here: %.500r", job.id, job.callbacks)
            request = read_request(job, now_ms())
            if not isinstance(request, StartRequest):
                await self._send(run, request.session_id, request.command)
            elif queue.name != self._starts:
                await self._call(self._records.move_to_starts, run)
            else:
                await self._start(run, request, seen)
        except AgentRQError as error:
            log.warning("job %s: %s", job.id, error, extra=event("job_failed"))
            await self._fail(run, f"{type(error).__name__}: {error}", retry=isinstance(error, SessionNotFound))
        except Exception as error:
            log.exception("job %s: internal error", job.id, extra=event("internal_error"))
            await self._fail(run, f"Internal error: {error!r}")

    async def fail_unreadable(self, queue: Queue, job_id: str, error: Exception) -> None:
        """Fail a job whose hash RQ cannot read."""
        log.warning("job %s of queue %s cannot be read, marked as failed: %.500r", job_id, queue.name, error)
        text = f"ForeignFunction: The job cannot be read: {error!r:.500}"
        try:
            await self._call(self._records.fail_unreadable, queue, job_id, text)
        except Exception:
            log.exception("job %s: its failure cannot be recorded", job_id)

    async def _fail(self, run: JobRun, text: str, *, retry: bool = False) -> None:
        """Fail a job that could not be carried out. ``retry``: trying again may help, it came before its session."""
        try:
            await self._call(self._records.fail, run, text, retry=retry)
        except redis.ResponseError as error:  # something in the job is not as RQ writes it
            log.error("job %s: its failure cannot be recorded as it is: %s", run.job.id, error)
            try:
                await self._call(self._records.fail_unreadable, run.queue, run.job.id, text)
            except Exception:
                log.exception("job %s: its failure cannot be recorded", run.job.id)
        except Exception:
            log.exception("job %s: its failure cannot be recorded", run.job.id)

    # -- commands

    async def _send(self, run: JobRun, session_id: str, command: Command) -> None:
        if await self._host.send_command(session_id, command):
            await self._call(self._records.finish, run, {"commandId": command.command_id})
        else:
            await self._call(self._records.drop_copy, run.job.id, run.queue)

    # -- starts

    async def _start(self, run: JobRun, request: StartRequest, seen: Any) -> None:
        ownership, job, sid = self._host.ownership, run.job, request.session_id
        session = ownership.read_unowned(sid, seen) if sid == job.id and seen is not None else None
        if session is None:
            session = await ownership.fetch_session(sid)
        if session is None:
            session = await self._open(run, request)
            if session is None:
                await self._call(self._records.drop_copy, job.id, run.queue)
                return
        if not is_own_job(job, session):
            raise SessionExists(sid)
        claim = None
        if not (session.owned or session.state.ended):
            claim = await self._host.claim(session)
            session = session if claim is not None else await ownership.fetch_session(sid)
        if claim is not None:
            await self._run(run, claim)
        elif session is not None and session.state.ended:  # stopped, or its job canceled, while the job waited
            await self._call(self._orphans.close, run, session)
        else:
            await self._call(self._records.drop_copy, job.id, run.queue)

    async def _open(self, run: JobRun, request: StartRequest) -> SessionSnapshot | None:
        """Give a start that came without a state one; None: the job was removed or canceled after it was dequeued."""
        provider, prompt, options = start_arguments(request, run.job)
        outcome = await self._host.ownership.open_session(
            request.session_id, provider, prompt, options, run.job.id, format_time(run.job.created_at)
        )
        if outcome in ("gone", "canceled"):
            log.info("job %s: %s after it was dequeued", run.job.id, "removed" if outcome == "gone" else outcome)
            return None
        session = await self._host.ownership.fetch_session(request.session_id)
        if session is None:
            raise AgentRQError(f"Session {request.session_id}: its state cannot be read")
        return session

    async def _run(self, run: JobRun, claim: Claim) -> None:
        """The session's life, with RQ's records beside it."""
        sid = claim.claimed.session_id
        run.identity = SessionIdentity(sid, claim.state.get("nonce", ""))
        run.claim = claim.state.get("claim", "")
        live = self._live[run.job.id] = _LiveJob(run, sid)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._mark_started(live), name=f"mark job {run.job.id} started")
                outcome = await self._host.run_session(claim)
            await self._conclude(live, outcome)
        finally:
            if self._live.get(run.job.id) is live:  # superseded here, it may be claimed here again before it has ended
                del self._live[run.job.id]

    async def _mark_started(self, live: _LiveJob) -> None:
        """Tell RQ that the job runs here, while the session begins; RQ's trouble with it does not end the session."""
        try:
            if await self._call(self._records.mark_started, live.run) == "canceled":
                self.stop_canceled(live.run.job.id)
        except redis.RedisError as error:
            log.error("job %s: RQ cannot record that it runs here: %s", live.run.job.id, error)

    async def _conclude(self, live: _LiveJob, outcome: Outcome) -> None:
        records, run, sid = self._records, live.run, live.session_id
        if outcome.handed_over and live.stopped and await self._host.stop_ownerless(sid):
            outcome = Outcome(Status.DONE, Reason.STOPPED)
        if outcome.status is None:
            await self._call(records.end_execution, run)
            if outcome.handed_over:
                written: Written = await self._call(records.hand_over, run)
                if live.stopped or written == "canceled":
                    await self._host.stop_ownerless(sid)
        elif outcome.status is Status.ERROR:
            await self._call(records.fail, run, outcome.error or "failed")
        elif live.stopped and outcome.reason is Reason.STOPPED:
            await self._call(records.fail, run, STOPPED, stopped=True)
        else:
            session = await self._host.ownership.fetch_session(sid)
            result = to_wire(session.state) if session is not None else {"sessionId": sid}
            await self._call(records.finish, run, result)

    # -- what RQ's commands ask

    def stop_job(self, job_id: str) -> None:
        """Stop a job's session as RQ's stop-job asks: the job will be ``stopped``."""
        live = self._live.get(job_id)
        if live is None:
            log.warning("job %s: RQ asked to stop it, and this worker does not run it", job_id)
            return
        live.stopped = True
        self._host.stop_hosted(live.session_id)

    def stop_execution(self, execution_id: str) -> None:
        """Like `stop_job`, for RQ's stop-execution."""
        run = self._records.started.get(execution_id)
        self.stop_job(run.job.id if run is not None else f"of execution {execution_id}")

    def stop_canceled(self, job_id: str) -> None:
        """Stop the session of a job that was canceled in RQ; the job stays canceled."""
        live = self._live.get(job_id)
        if live is not None:
            log.info("session %s: its job was canceled in RQ: stopping", live.session_id)
            self._host.stop_hosted(live.session_id)

    def stop_all(self) -> None:
        """Stop all sessions here, as RQ's kill-horse asks."""
        for job_id in list(self._live):
            self.stop_job(job_id)

    # -- what the recovery scanner asks

    async def enqueue(self, job_id: str, session: SessionSnapshot) -> bool:
        """Put the job of a session without an owner into its queue; False where a user of RQ canceled it."""
        outcome = await self._call(self._orphans.enqueue_orphan, job_id, session)
        if outcome == "enqueued":
            log.warning("session %s: requeued", session.state.session_id, extra=event("session_requeued"))
        return outcome != "canceled"

    async def conclude(self, job_id: str, session: SessionSnapshot) -> None:
        """Close the job of a session that has ended, if its worker did not."""
        await self._call(self._orphans.close_job, job_id, session)
