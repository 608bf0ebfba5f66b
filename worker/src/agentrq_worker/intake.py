"""The RQ worker: dequeues, RQ's heartbeats and registries, the truth about a job's end.

The only file that knows RQ's worker.

A start is a job held open for the session's life. asyncio runs on the main thread; every synchronous RQ call runs
on one thread ("rq"), so RQ's own state is never raced; each queue blocks on a thread of its own, one queue a dequeue
(BLMOVE, which cannot lose a job). Functions are looked up by name in an allow-list: nothing is imported because
Redis said so. RQ's subclass interface is not promised by RQ: ``rq~=3.0`` is pinned and the tests run on each change.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import msgspec
import redis
from rq import Queue
from rq.exceptions import DequeueTimeout, DeserializationError
from rq.executions import Execution
from rq.job import Job
from rq.suspension import is_suspended
from rq.timeouts import TimerDeathPenalty
from rq.utils import now
from rq.worker import BaseWorker

from agentrq.connection import connect, is_outage
from agentrq.errors import AgentRQError, InvalidOption, SessionExists
from agentrq.rq_commands import SERIALIZER
from agentrq.wire.commands import FUNCTIONS, START, Command, Options, check_text, make_command, make_options
from agentrq.wire.ids import check_session_id
from agentrq.wire.keys import control_queue
from agentrq.wire.status import Status
from agentrq.wire.steps import now_ms
from agentrq_worker.bookkeeping import RQ_LEASE_S, Bookkeeping
from agentrq_worker.claimed import Outcome
from agentrq_worker.host import Host
from agentrq_worker.ownership import Claim, Look, NameTaken
from agentrq_worker.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

DEQUEUE_S: Final = 1
"""How long one BLMOVE waits: the longest that a worker which is to end goes on dequeueing."""
RQ_BEAT_S: Final = 20.0
BEATS: Final = 20
"""RQ's schedule is looked at this often for each heartbeat."""
RETRY_S: Final = 0.5


class ForeignFunction(AgentRQError):
    """A job in agentrq's queues names a function that is not agentrq's."""


class SessionWorker(BaseWorker):
    """Hosts many sessions in one process; see the module's head."""

    death_penalty_class = TimerDeathPenalty  # SIGALRM belongs to the main thread

    def __init__(self, settings: Settings, url: str) -> None:
        self.settings = settings
        self._connection_for_queues = connect(url, blocking=True)
        super().__init__(
            [settings.queue, control_queue(settings.queue)],
            name=settings.worker_name,
            connection=connect(url),
            serializer=SERIALIZER,
        )
        self._url = url
        self._loop: asyncio.AbstractEventLoop | None = None
        self._books = Bookkeeping(self, self.queues[0])
        self._stopping = asyncio.Event()
        self._cold = False
        self._running: dict[str, str] = {}  # execution id → session id

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
        self.maintenance_interval = 30
        self._rq_thread = ThreadPoolExecutor(1, "rq")
        self._dequeue_threads = ThreadPoolExecutor(len(self.queues), "dequeue")
        try:
            self.register_birth()  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise NameTaken(str(error)) from None
        self.subscribe()  # type: ignore[no-untyped-call]
        try:
            asyncio.run(self._serve())
        finally:
            self._dequeue_threads.shutdown()
            self._rq_thread.shutdown()
            self.teardown()  # type: ignore[no-untyped-call]
        return self.successful_job_count + self.failed_job_count > 0

    def handle_payload(self, message: Any) -> None:
        """RQ's commands; a malformed one costs a log line, not RQ's command thread."""
        try:
            payload = msgspec.json.decode(message["data"])
            command = payload["command"]
            if command == "shutdown":
                self._call_soon(self._on_signal)
            elif command == "stop-job":
                self._call_soon(self._stop_job, str(payload["job_id"]))
            elif command == "stop-execution":
                self._call_soon(self._stop_execution, str(payload["execution_id"]))
            elif command == "kill-horse":
                self._call_soon(self._stop_all)
            else:
                log.warning("RQ command %r is not known", command)
        except (msgspec.MsgspecError, KeyError, TypeError, UnicodeError) as error:
            log.warning("malformed RQ command %.200r: %r", message, error)

    def _call_soon(self, what: Callable[..., None], *args: Any) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(what, *args)

    def _stop_job(self, job_id: str) -> None:
        for execution_id, execution in list(self.executions.items()):
            if execution.job_id == job_id:
                self._stop_execution(execution_id)

    def _stop_all(self) -> None:
        for execution_id in list(self.executions):
            self._stop_execution(execution_id)

    def _stop_execution(self, execution_id: str) -> None:
        session = self._host.ownership.sessions.get(self._running.get(execution_id, ""))
        if session is None:
            log.warning("RQ asks to stop execution %s, which is not here", execution_id)
            return
        self._stopped_by_rq.add(execution_id)
        session.stop()

    # -- the life of the worker

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._host = Host(self.settings, self._url)
        self._slots = asyncio.Semaphore(self.settings.max_sessions)
        self._stopped_by_rq: set[str] = set()
        self._jobs: set[asyncio.Task[None]] = set()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._on_signal)
        await self._host.ownership.begin()
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._host.begin(group, self)
            log.info("worker %s is ready: queue %s, up to %d sessions", self.name, self.settings.queue,
                     self.settings.max_sessions)  # fmt: skip
            beats = group.create_task(self._heartbeats(), name="rq heartbeats")
            pumps = [group.create_task(self._pump(queue), name=f"queue {queue.name}") for queue in self.queues]
            await self._stopping.wait()
            await asyncio.gather(*pumps)
            await self._drain()
            beats.cancel()
            await asyncio.gather(beats, return_exceptions=True)
            await self._rq(self._books.end_schedule)
            await self._host.end()
        log.info("worker %s has ended", self.name)

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            if not self._cold:
                log.warning("told again to end: sessions are handed over now")
            self._cold = True
            self._host.drain(at_once=True)
            return
        log.info("told to end: nothing new is taken, turns have %g s to finish", self.settings.drain_s)
        self._shutdown_requested_date = now()
        self._stopping.set()
        self._host.drain(at_once=self._cold)

    async def _drain(self) -> None:
        """Wait for the sessions to leave: turns finish within the drain time, then all are handed over."""
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=self.settings.drain_s)
        if self._jobs:
            log.warning("%d sessions still run after %g s: handed over now", len(self._jobs), self.settings.drain_s)
            self._host.drain(at_once=True)
            await asyncio.gather(*self._jobs, return_exceptions=True)

    async def _rq(self, call: Callable[..., T], *args: Any) -> T:
        """One synchronous RQ call on the rq thread, again until Redis answers."""
        assert self._loop is not None
        while True:
            try:
                return await self._loop.run_in_executor(self._rq_thread, call, *args)
            except (redis.RedisError, OSError) as error:
                if not is_outage(error):
                    raise
                await asyncio.sleep(RETRY_S)

    # -- jobs

    async def _pump(self, queue: Queue) -> None:
        """Dequeue while there is room: a full worker takes no start, but goes on taking the other commands."""
        assert self._loop is not None
        gated = queue.name == self.settings.queue
        while not self._stopping.is_set():
            if gated and not await self._slot():
                continue
            taken = await self._loop.run_in_executor(self._dequeue_threads, self._dequeue, queue, gated)
            if taken is None:
                if gated:
                    self._slots.release()
                continue
            if self._stopping.is_set():
                await self._rq(self._books.put_back, *taken)
                if gated:
                    self._slots.release()
                continue
            task = self._group.create_task(self._handle(*taken), name=f"job {taken[0].id}")
            self._jobs.add(task)
            task.add_done_callback(lambda done, gated=gated: self._job_done(done, gated))  # type: ignore[misc]

    def _job_done(self, task: asyncio.Task[None], gated: bool) -> None:
        self._jobs.discard(task)
        if gated:
            self._slots.release()

    async def _slot(self) -> bool:
        try:
            async with asyncio.timeout(DEQUEUE_S):
                await self._slots.acquire()
        except TimeoutError:
            return False
        return True

    def _dequeue(self, queue: Queue, gated: bool) -> tuple[Job, Queue] | None:
        """One blocking dequeue; an outage or a malformed job costs a log line."""
        try:
            if gated and is_suspended(self._connection_for_queues):
                time.sleep(DEQUEUE_S)
                return None
            return Queue.dequeue_any(
                [queue], DEQUEUE_S, self._connection_for_queues, Job, self.serializer, self.death_penalty_class
            )
        except DequeueTimeout:
            return None
        except Exception as error:  # noqa: BLE001 - a job hash may hold anything, RQ's reading of it raise anything
            job_id = getattr(error, "job_id", None)
            if job_id is not None:
                log.error("job %s of queue %s cannot be read and is dropped: %r", job_id, queue.name, error)
                queue.intermediate_queue.remove(job_id)
                return None
            log.warning("dequeue on %s: %s", queue.name, error)
            time.sleep(DEQUEUE_S)
            return None

    def _put_back(self, job: Job, queue: Queue) -> None:
        """A job that came while the worker was told to end goes back to where it was."""
        with self.connection.pipeline() as pipeline:
            pipeline.lpush(queue.key, job.id)
            pipeline.lrem(queue.intermediate_queue_key, 1, job.id)
            pipeline.execute()

    async def _handle(self, job: Job, queue: Queue) -> None:
        """One job, whatever it holds: what goes wrong is the job's failure, never the worker's."""
        try:
            await self._perform(job, queue)
        except AgentRQError as error:
            log.warning("job %s: %s", job.id, error)
            await self._fail(job, queue, str(error))
        except Exception as error:
            log.exception("job %s: internal error", job.id)
            await self._fail(job, queue, f"Internal error: {error!r}")

    async def _perform(self, job: Job, queue: Queue) -> None:
        name, arguments = self._read(job)
        if name == START:
            if queue.name != self.settings.queue:
                await self._rq(self._books.move_to_starts, job, queue)
                return
            claim = await self._claim(job, queue, arguments)
            if claim is not None:
                await self._run(job, queue, claim)
            return
        command = self._command(job, name, arguments)
        await self._host.command(check_session_id(arguments.get("session_id")), command)
        execution = await self._rq(self._books.prepare, job)
        await self._rq(self._books.succeed, job, queue, execution, {"commandId": command.command_id})

    def _read(self, job: Job) -> tuple[str, dict[str, Any]]:
        """A job's function and arguments by name; raises for what is not agentrq's."""
        for callback in ("_success_callback_name", "_failure_callback_name", "_stopped_callback_name"):
            if getattr(job, callback, None):
                log.warning("job %s: its callback %s is not run here", job.id, getattr(job, callback))
                setattr(job, callback, None)  # RQ would import it
        try:
            name, args, kwargs = str(job.func_name), list(job.args or ()), dict(job.kwargs or {})
        except (DeserializationError, TypeError, ValueError) as error:
            raise ForeignFunction(f"The job's data cannot be read as JSON: {error}") from None
        parameters = ("session_id", "provider", "prompt", "options") if name == START else FUNCTIONS.get(name)
        if parameters is None:
            raise ForeignFunction(f"{name!r} is not run here: agentrq runs {', '.join([START, *FUNCTIONS])}")
        if len(args) > len(parameters) or any(key not in parameters for key in kwargs):
            raise InvalidOption(name, f"takes {', '.join(parameters)}")
        return name, dict(zip(parameters, args, strict=False)) | kwargs

    def _command(self, job: Job, name: str, arguments: dict[str, Any]) -> Command:
        kind = name.removeprefix("agentrq.")
        return make_command(
            Command(
                command_id=job.id,
                command=kind,  # type: ignore[arg-type]
                timestamp=now_ms(),
                text=arguments.get("prompt"),
                mode=arguments.get("mode") or "queue",
                request_id=arguments.get("request_id"),
                answer=arguments.get("answer"),
            )
        )

    async def _claim(self, job: Job, queue: Queue, arguments: dict[str, Any]) -> Claim | None:
        """Become the owner of the session a start names; None when there is nothing to run here."""
        given = arguments.get("session_id")
        sid = check_session_id(job.id if given is None else given)
        look = await self._host.ownership.look(sid)
        if look is None:
            provider, prompt, options = self._start_arguments(arguments)
            await self._host.ownership.open(sid, provider, prompt, options, job.id)
            look = await self._host.ownership.look(sid)
            if look is None:
                raise AgentRQError(f"Session {sid}: its state cannot be read")
        elif job.id != (look.inner.job_id or sid):
            raise SessionExists(sid)
        elif look.state.ended:
            if look.state.started_at is None:  # stopped while it was queued
                await self._rq(self._books.cancel, job, queue)
                return None
            raise SessionExists(sid)
        claim = None if look.owned else await self._host.ownership.claim(look)
        if claim is None:
            await self._rq(self._books.drop_copy, job, queue)
        return claim

    def _start_arguments(self, arguments: dict[str, Any]) -> tuple[str, str, Options]:
        provider, prompt = (check_text(name, arguments.get(name)) for name in ("provider", "prompt"))
        options = arguments.get("options")
        if options is not None and not isinstance(options, dict):
            raise InvalidOption("options", "Expected an object")
        return provider, prompt, make_options(options or {})

    async def _run(self, job: Job, queue: Queue, claim: Claim) -> None:
        """The session's life, with RQ's bookkeeping beside it."""
        sid = claim.claimed.session_id
        preparing = self._group.create_task(self._rq(self._books.prepare, job), name=f"prepare {job.id}")
        preparing.add_done_callback(lambda done: self._prepared(done, sid))
        try:
            outcome = await self._host.run_session(claim)
        finally:
            execution = await preparing
            self._running.pop(execution.id, None)
        await self._conclude(job, queue, execution, sid, outcome)

    def _prepared(self, done: asyncio.Task[Execution], session_id: str) -> None:
        if not done.cancelled() and done.exception() is None:
            self._running[done.result().id] = session_id

    async def _conclude(self, job: Job, queue: Queue, execution: Execution, sid: str, outcome: Outcome) -> None:
        stopped_by_rq = execution.id in self._stopped_by_rq
        self._stopped_by_rq.discard(execution.id)
        if outcome.status is None:
            await self._rq(self._books.let_go, job, execution, outcome.handed_over)
        elif outcome.status is Status.ERROR:
            await self._rq(self._books.fail, job, queue, execution, outcome.error or "failed")
        elif stopped_by_rq:
            stopped = functools.partial(self._books.fail, stopped=True)
            await self._rq(stopped, job, queue, execution, "Job stopped by user")
        else:
            await self._rq(self._books.succeed, job, queue, execution, await self._host.final_state(sid))

    async def _fail(self, job: Job, queue: Queue, error: str) -> None:
        """A job that could not be carried out."""

        def fail() -> None:
            execution = self._books.prepare(job)
            job.retries_left = 0
            self._books.fail(job, queue, execution, error)

        try:
            await self._rq(fail)
        except Exception:
            log.exception("job %s: its failure cannot be recorded", job.id)

    # -- what maintenance asks of RQ's side

    async def enqueue(self, job_id: str, look: Look) -> None:
        """As `maintenance.Jobs.enqueue`."""
        if await self._rq(self._books.enqueue_again, job_id, look):
            log.warning("session %s: put back into the queue", look.state.session_id)

    async def conclude(self, job_id: str, look: Look) -> None:
        """As `maintenance.Jobs.conclude`."""
        await self._rq(self._books.conclude, job_id, look)

    async def bury(self, worker: str) -> None:
        """As `maintenance.Jobs.bury`."""
        await self._rq(self._books.bury, worker)

    async def _heartbeats(self) -> None:
        beats = 0
        while True:
            if beats % BEATS == 0:
                await self._rq(self._books.beat)
            await self._rq(self._maintain)
            beats += 1
            await asyncio.sleep(RQ_BEAT_S / BEATS)

    def _maintain(self) -> None:
        """RQ's own upkeep: what is scheduled, its registries; one malformed job hash must not stop the worker."""
        try:
            self._books.schedule()
            if self.should_run_maintenance_tasks:
                self.run_maintenance_tasks()  # type: ignore[no-untyped-call]
        except (redis.RedisError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - a job hash may hold anything
            log.warning("RQ's maintenance: %r", error)
