"""One job of agentrq's queues: read, checked, carried out, closed. A start is held open for its session's life.

Functions are looked up by name in an allow-list: nothing is imported because Redis said so. What goes wrong is the
job's failure, never the worker's. Does not own how jobs are dequeued (rq/worker.py) nor RQ's records (job_records.py).
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
import redis
from rq import Queue
from rq.exceptions import DeserializationError
from rq.executions import Execution
from rq.worker import BaseWorker

from agentrq.errors import AgentRQError, InvalidOption, SessionExists, SessionNotFound
from agentrq.wire.codec import encode
from agentrq.wire.commands import FUNCTIONS, START, Command, Options, check_text, make_command, make_options
from agentrq.wire.ids import check_session_id
from agentrq.wire.script_calls import now_ms
from agentrq.wire.state import to_wire
from agentrq.wire.status import Reason, Status
from agentrq_worker.ownership.ownership import Claim, Ownership, SessionSnapshot
from agentrq_worker.rq.executor import RqThread
from agentrq_worker.rq.fenced_pipeline import SessionIdentity
from agentrq_worker.rq.job import SessionJob
from agentrq_worker.rq.job_records import JobRecords, identity_of, is_later
from agentrq_worker.session_types import Outcome

log = logging.getLogger(__name__)

MOST_PARTS: Final = 1_000_000
"""Lists, objects and their members in the data of one job."""
_TEXT: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)

STOPPED: Final = "Job stopped by user"
"""What RQ has as the error of a job that was stopped on request."""


class ForeignFunction(AgentRQError):
    """A job in agentrq's queues names a function that is not agentrq's, or its data is not agentrq's JSON."""


class SessionHost(Protocol):
    """What jobs need of the worker that hosts their sessions."""

    @property
    def ownership(self) -> Ownership:
        """Sessions as they stand in Redis, and what this worker owns of them."""

    async def claim(self, look: SessionSnapshot) -> Claim | None:
        """Become a session's owner; None where another was first, or it ended."""

    async def run_session(self, claim: Claim) -> Outcome:
        """Host a claimed session until it ends or leaves."""

    async def command(self, session_id: str, command: Command) -> None:
        """Carry out a command. Raises `SessionNotFound`, `SessionEnded`, `InboxFull`."""

    async def stop_ownerless(self, session_id: str) -> bool:
        """End a session that no live worker owns; True where it was ended here."""

    def stop_hosted(self, session_id: str) -> None:
        """Stop a session if it is hosted here."""


@dataclass(slots=True)
class _Live:
    """A start whose session runs here."""

    whose: SessionIdentity
    stopped: bool = False
    """RQ was asked to stop it."""

    @property
    def session_id(self) -> str:
        return self.whose.session_id


class JobHandler:
    """Handles the jobs that one worker dequeues, and does RQ's part of maintenance (`maintenance.JobHandler`)."""

    def __init__(self, worker: BaseWorker, books: JobRecords, rq: RqThread, host: SessionHost, queue: str) -> None:
        self._worker = worker
        self._books = books
        self._rq = rq
        self._host = host
        self._queue = queue
        self._live: dict[str, _Live] = {}

    async def handle(self, job: SessionJob, queue: Queue, seen: Any = None) -> None:
        """One job, whatever it holds; ``seen`` as in `taking.Job`."""
        job.origin = queue.name
        try:
            name, arguments = _read(job)
            if name != START:
                await self._command(job, queue, name, arguments)
            elif queue.name != self._queue:
                await self._rq(self._books.move_to_starts, job, queue)
            else:
                await self._start(job, queue, arguments, seen)
        except AgentRQError as error:
            log.warning("job %s: %s", job.id, error)
            await self._fail(job, queue, error)
        except Exception as error:
            log.exception("job %s: internal error", job.id)
            await self._fail(job, queue, error)

    async def refuse_unreadable(self, queue: Queue, job_id: str, error: Exception) -> None:
        """A job whose hash RQ cannot read."""
        log.warning("job %s of queue %s cannot be read and fails: %.500r", job_id, queue.name, error)
        text = f"ForeignFunction: The job cannot be read: {error!r:.500}"
        try:
            await self._rq(self._books.refuse_unreadable, queue, job_id, text)
        except Exception:
            log.exception("job %s: its failure cannot be recorded", job_id)

    async def _fail(self, job: SessionJob, queue: Queue, error: Exception) -> None:
        """A job that could not be carried out. Trying again helps only a command that came before its session."""

        def fail() -> None:
            self._books.fail(job, queue, self._books.prepared(job), text, retry=isinstance(error, SessionNotFound))

        known = isinstance(error, AgentRQError)
        text = f"{type(error).__name__}: {error}" if known else f"Internal error: {error!r}"
        try:
            await self._rq(fail)
        except Exception:
            log.exception("job %s: its failure cannot be recorded", job.id)

    # -- commands

    async def _command(self, job: SessionJob, queue: Queue, name: str, arguments: dict[str, Any]) -> None:
        session_id = check_session_id(arguments.get("session_id"))
        command = make_command(
            Command(
                command_id=job.id,
                command=name.removeprefix("agentrq."),  # type: ignore[arg-type]
                timestamp=now_ms(),
                text=arguments.get("prompt"),
                mode=arguments.get("mode") or "queue",
                request_id=arguments.get("request_id"),
                answer=arguments.get("answer"),
            )
        )
        await self._host.command(session_id, command)

        def succeed() -> None:
            self._books.succeed(job, queue, self._books.prepared(job), {"commandId": command.command_id})

        await self._rq(succeed)

    # -- starts

    async def _start(self, job: SessionJob, queue: Queue, arguments: dict[str, Any], seen: Any) -> None:
        given = arguments.get("session_id")
        sid = check_session_id(job.id if given is None else given)
        look = self._host.ownership.read_unowned(sid, seen) if sid == job.id and seen is not None else None
        if look is None:
            look = await self._host.ownership.fetch_session(sid)
        if look is None:
            provider, prompt, options = _start_arguments(arguments, job)
            if await self._host.ownership.open_session(sid, provider, prompt, options, job.id) == "gone":
                log.info("job %s: it was removed after it had been taken", job.id)
                await self._rq(self._books.drop_copy, job, queue)
                return
            look = await self._host.ownership.fetch_session(sid)
            if look is None:
                raise AgentRQError(f"Session {sid}: its state cannot be read")
        if job.id != (look.inner.job_id or sid) or is_later(job, look.state) or _is_second(job, look):
            raise SessionExists(sid)
        claim = None
        if not (look.owned or look.state.ended):
            claim = await self._host.claim(look)
            look = look if claim is not None else await self._host.ownership.fetch_session(sid)
        if claim is not None:
            await self._run(job, queue, claim)
        elif look is not None and look.state.ended:  # stopped while its job waited
            await self._rq(self._books.close, job, queue, look)
            await self._forget_removed(job, queue, identity_of(look))
        else:
            await self._rq(self._books.drop_copy, job, queue)

    async def _run(self, job: SessionJob, queue: Queue, claim: Claim) -> None:
        """The session's life, with RQ's bookkeeping beside it."""
        sid = claim.claimed.session_id
        job.whose = SessionIdentity(sid, claim.state.get("nonce", ""))
        live = self._live[job.id] = _Live(job.whose)
        try:
            async with asyncio.TaskGroup() as group:
                preparing = group.create_task(self._prepare(job), name=f"prepare {job.id}")
                outcome = await self._host.run_session(claim)
            execution = preparing.result()
            if execution is None:
                execution = await self._rq(self._books.prepare, job)
            if execution is not None:
                await self._conclude(job, queue, execution, live, outcome)
        finally:
            if self._live.get(job.id) is live:  # superseded here, it may be claimed here again before it has ended
                del self._live[job.id]

    async def _prepare(self, job: SessionJob) -> Execution | None:
        """``started``, while the session begins; RQ's trouble with it is no reason to end the session."""
        try:
            return await self._rq(self._books.prepare, job)
        except redis.RedisError as error:
            log.error("job %s: RQ cannot record that it runs here: %s", job.id, error)
            return None

    async def _conclude(
        self, job: SessionJob, queue: Queue, execution: Execution, live: _Live, outcome: Outcome
    ) -> None:
        books = self._books
        if outcome.handed_over and live.stopped and await self._host.stop_ownerless(live.session_id):
            outcome = Outcome(Status.DONE, Reason.STOPPED)
        if outcome.status is None:
            await self._rq(books.let_go, job, execution)
            if not outcome.handed_over:
                gone, look = await self._host.ownership.check_session(live.session_id)
                await self._rq(books.set_right, job.id, live.session_id, look, gone)
                return
            await self._rq(books.hand_over, job)
            if live.stopped:  # meanwhile: until then RQ took a stop
                await self._host.stop_ownerless(live.session_id)
            return
        gone, look = await self._host.ownership.check_session(live.session_id)
        if gone or _is_anothers(look, live.whose):
            await self._rq(books.let_go, job, execution)
        elif outcome.status is Status.ERROR:
            await self._rq(books.fail, job, queue, execution, outcome.error or "failed")
        elif live.stopped and outcome.reason is Reason.STOPPED:
            await self._rq(books.fail, job, queue, execution, STOPPED, stopped=True)
        else:
            result = to_wire(look.state) if look is not None else {"sessionId": live.session_id}
            await self._rq(books.succeed, job, queue, execution, result)
        await self._forget_removed(job, queue, live.whose)

    async def _forget_removed(self, job: SessionJob, queue: Queue, whose: SessionIdentity) -> None:
        """What was written of a job after its session had been removed, goes too; what another by its id has, stays."""
        done = False
        while not done:
            gone, look = await self._host.ownership.check_session(whose.session_id)
            if not (gone or _is_anothers(look, whose)):
                return
            done = await self._rq(self._books.forget, job, queue, whose.session_id, look)

    # -- what RQ's commands ask

    def stop_job(self, job_id: str) -> None:
        """RQ's stop-job: the session ends, its job is ``stopped``."""
        live = self._live.get(job_id)
        if live is None:
            log.warning("RQ asks to stop job %s, which does not run here", job_id)
            return
        live.stopped = True
        self._host.stop_hosted(live.session_id)

    def stop_execution(self, execution_id: str) -> None:
        """RQ's stop-execution, as `stop_job`."""
        execution = self._worker.executions.get(execution_id)
        self.stop_job(execution.job_id if execution is not None else f"of execution {execution_id}")

    def stop_all(self) -> None:
        """RQ's kill-horse: all sessions here."""
        for job_id in list(self._live):
            self.stop_job(job_id)

    # -- what maintenance asks of RQ's side

    async def enqueue(self, job_id: str, look: SessionSnapshot) -> bool:
        """As `maintenance.JobHandler.enqueue`."""
        outcome = await self._rq(self._books.enqueue_again, job_id, look)
        if outcome == "enqueued":
            log.warning("session %s: put back into the queue", look.state.session_id)
        return outcome != "canceled"

    async def conclude(self, job_id: str, look: SessionSnapshot) -> None:
        """As `maintenance.JobHandler.conclude`."""
        await self._rq(self._books.conclude, job_id, look)


def _is_anothers(look: SessionSnapshot | None, whose: SessionIdentity) -> bool:
    """Whether a session that was removed meanwhile has left its id to another, which is what was seen."""
    return look is not None and look.inner.nonce != whose.nonce


def _is_second(job: SessionJob, look: SessionSnapshot) -> bool:
    """Whether a job is a new start by the id of a session that runs, and no copy of that session's own job."""
    state = look.state
    if not look.owned or job.worker_name or state.started_at is None:
        return False
    return job.created_at.timestamp() * 1000 > state.started_at


def _read(job: SessionJob) -> tuple[str, dict[str, Any]]:
    """A job's function and arguments by name; raises for what is not agentrq's."""
    if job.callbacks:
        log.warning("job %s: its callbacks are not run here: %.500r", job.id, job.callbacks)
    try:
        if _is_of_too_many_parts(job.data):
            raise ForeignFunction(f"The job's data has more than {MOST_PARTS} parts")
        name = str(job.func_name)
        args: Any = job.args
        kwargs: Any = job.kwargs
    except (DeserializationError, TypeError, ValueError) as error:
        raise ForeignFunction(f"The job's data cannot be read as JSON: {error.__cause__ or error}") from None
    parameters = ("session_id", "provider", "prompt", "options") if name == START else FUNCTIONS.get(name)
    if parameters is None:
        raise ForeignFunction(f"{name[:200]!r} is not run here: agentrq runs {', '.join([START, *FUNCTIONS])}")
    takes = f"takes {', '.join(parameters)}"
    args, kwargs = () if args is None else args, {} if kwargs is None else kwargs
    if not isinstance(args, list | tuple) or len(args) > len(parameters) or not isinstance(kwargs, dict):
        raise InvalidOption(name, takes)
    arguments = dict(zip(parameters, args, strict=False))
    for key, value in kwargs.items():
        if key not in parameters or key in arguments:
            raise InvalidOption(f"{name}({key[:80]})", f"given twice; {name} {takes}" if key in arguments else takes)
        arguments[key] = value
    for key, value in arguments.items():
        try:
            arguments[key] = msgspec.json.decode(encode(value))  # lone surrogates are replaced
        except (UnicodeError, RecursionError, msgspec.MsgspecError, TypeError, OverflowError) as error:
            raise InvalidOption(key, f"cannot be written as JSON: {error}") from None
    return name, arguments


def _is_of_too_many_parts(data: bytes) -> bool:
    """Whether JSON in so many bytes would take a hundred times as many of memory. What a text holds is one part."""
    if _parts(data) <= MOST_PARTS:
        return False
    if data.count(b'"') - data.count(b'\\"') > 2 * MOST_PARTS:
        return True
    return _parts(_TEXT.sub(b"", data)) > MOST_PARTS


def _parts(data: bytes) -> int:
    return sum(map(data.count, (b"[", b"{", b",")))


def _start_arguments(arguments: dict[str, Any], job: SessionJob) -> tuple[str, str, Options]:
    """Provider, prompt and options of a start that came without a state; RQ's job timeout is its longest life."""
    provider, prompt = (check_text(name, arguments.get(name)) for name in ("provider", "prompt"))
    given = arguments.get("options")
    if given is not None and not isinstance(given, dict):
        raise InvalidOption("options", "Expected an object")
    options = make_options(given or {})
    timeout: Any = job.timeout  # in seconds; -1 for ever, absent in a job that was written by hand
    if timeout is not None and timeout > 0:
        options = msgspec.structs.replace(options, timeout_s=min(timeout, options.timeout_s or timeout))
    return provider, prompt, options
