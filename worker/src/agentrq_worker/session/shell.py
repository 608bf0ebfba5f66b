"""One session in this process: its runner is spawned, read, written to and ended, from the claim to the last event.

Owns the process, its pipes, the one timer, and the order of ending: it performs what the session machine wants done.
Does not own any decision (session/machine.py), how events reach Redis (stream/publisher.py), nor who may own the
session (ownership/).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Final

from agentrq.wire.status import Reason, Status
from agentrq_worker.logs import event
from agentrq_worker.measurements import Measurements
from agentrq_worker.process.framing import LineFramer
from agentrq_worker.process.output_poller import Watcher
from agentrq_worker.process.runner_process import RunnerProcess
from agentrq_worker.process.stderr_tail import last_lines
from agentrq_worker.session import effects, inputs
from agentrq_worker.session.command_handler import MOST_UNSENT
from agentrq_worker.session.event_writer import EventWriter
from agentrq_worker.session.inputs import Input
from agentrq_worker.session.launch_plan import CannotLaunch, Launch, prepare, why_not_spawned, with_defaults
from agentrq_worker.session.machine import SessionMachine
from agentrq_worker.session.session_observer import SessionObserver
from agentrq_worker.session.stderr_log import StderrLog
from agentrq_worker.session.workspace_keeper import WorkspaceKeeper
from agentrq_worker.session_types import ClaimedSession, InboxCommand, Outcome
from agentrq_worker.settings import Settings
from agentrq_worker.stream.event_log import EventLog
from agentrq_worker.stream.message_redactor import MessageRedactor

log = logging.getLogger(__name__)

DRAIN_OUTPUT_S: Final = 2.0
"""How long a survivor may hold the runner's stdout open after the runner's end before it is closed here."""


class SessionShell:
    """The life of one claimed session; `run` is all of it."""

    def __init__(
        self,
        claimed: ClaimedSession,
        lane: EventLog,
        settings: Settings,
        mark: str,
        measurements: Measurements | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        """``watcher``: tells when the runner's stdout can be read, in place of the loop."""
        self.id = claimed.session_id
        self._claimed = claimed
        self._lane = lane
        self._settings = settings
        self._mark = mark
        self._watcher = watcher
        self._options = with_defaults(claimed.provider, claimed.options, settings)
        self._machine = SessionMachine(
            claimed, self._options, lane.epoch, worker_policy=settings.approval_policy(),
            start_policy=settings.start_policy, handshake_s=settings.handshake_s, now=time.monotonic(),
            redis_ms=lane.now_ms(),
        )  # fmt: skip
        self._events = EventWriter(lane)
        self._observer = SessionObserver(measurements or Measurements(), claimed, lane.epoch, time.monotonic())
        self._inputs: deque[Input] = deque()
        self._feeding = False
        self._framer = LineFramer(settings.max_line)
        self._process: RunnerProcess | None = None
        self._launch: Launch | None = None
        self._redact: Callable[[bytes], bytes] | None = None
        """Takes secrets out of a line; None where there are none."""
        self._ending = asyncio.Event()
        self._farewell = b""
        self._timer: asyncio.TimerHandle | None = None
        self._stderr_log = StderrLog(self.id)
        self._files: WorkspaceKeeper | None = None
        if self._options.workspace is not None:
            self._files = WorkspaceKeeper(claimed, self._options, settings, mark, self._feed)
        lane.on_lost = self._superseded
        lane.on_full = self._hold_reading

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self._claimed.provider

    @property
    def status(self) -> Status:
        """Where the session stands."""
        return self._machine.status

    @property
    def outcome(self) -> Outcome | None:
        """How the session ends; None while it goes on."""
        return self._machine.outcome

    # -- the life

    async def run(self) -> Outcome:
        """Run the session from its claim to its end; returns once all its events are in Redis."""
        code: int | None = None
        explained: Outcome | None = None
        try:
            self._feed(inputs.Opened())
            if not self._ending.is_set():
                await self._spawn()
            if self._process is not None:
                await self._until_over(self._process)
                code, explained = await self._end_process(self._process)
        except asyncio.CancelledError:
            self._ending.set()
            raise
        except Exception as error:  # noqa: BLE001 - a bug here costs this session, not the worker, and is told to all three
            self._broken(error)
        finally:
            if self._process is not None:
                await self._process.aclose()
            if self._timer is not None:
                self._timer.cancel()
        self._feed(inputs.RunnerGone(code, explained, "" if self._process is None else last_lines(self._process)))
        await self._lane.flush()
        outcome = self._machine.outcome
        lost = outcome is None or self._lane.lost is not None
        await self._clean_up(ended=not lost and outcome is not None and outcome.status is not None)
        if outcome is None or lost:
            return Outcome(None)
        if outcome.error is not None and self._lane.redactor is not None:  # RQ keeps it, and the log
            return outcome._replace(error=self._lane.redactor.text(outcome.error))
        return outcome

    async def _spawn(self) -> None:
        """Start the runner and begin to speak with it."""
        claimed, options, files = self._claimed, self._options, self._files
        try:
            if files is not None:
                opened = await files.open(self._ending)
                if opened is None or self._ending.is_set():
                    return
                options = opened
            launch = self._launch = prepare(
                self.id, claimed.provider, claimed.options, options, claimed.total, self._lane.epoch,
                self._settings, None if files is None else files.files,
            )  # fmt: skip
            if launch.redactor:
                self._lane.redactor, self._redact = MessageRedactor(launch.redactor), launch.redactor.json
            with launch.spawning() as arguments:
                self._process = await RunnerProcess.spawn(
                    **arguments,
                    mark=self._mark,
                    on_chunk=self._read,
                    on_stdout_end=self._read_end,
                    on_stdin_broken=lambda: self._pipe_closed("stdin"),
                    on_stderr_line=self._log_stderr,
                    watcher=self._watcher,
                )
        except CannotLaunch as error:
            self._feed(inputs.Failed(Outcome(Status.ERROR, error.reason, str(error))))
        except (OSError, ValueError) as error:
            self._feed(inputs.Failed(Outcome(Status.ERROR, Reason.FAILED, why_not_spawned(launch, error))))
        else:
            self._feed(inputs.RunnerStarted(launch.protocol, self._process.pid, launch.enforced, launch.directories))

    async def _until_over(self, process: RunnerProcess) -> None:
        """Wait for the first of: the process ends, the session is over."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._watch_exit(process), name=f"exit {self.id}")]
            if self._files is not None:
                saving = self._files.run(lambda: self._machine.turn_number)
                tasks.append(group.create_task(saving, name=f"checkpoints {self.id}"))
            await self._ending.wait()
            for task in tasks:
                task.cancel()

    async def _watch_exit(self, process: RunnerProcess) -> None:
        await process.wait()
        self._feed(inputs.RunnerExited())
        await process.drain_output(DRAIN_OUTPUT_S)
        self._ending.set()

    async def _end_process(self, process: RunnerProcess) -> tuple[int | None, Outcome | None]:
        """The steps of an end: the runner is told, given time, then its whole tree is ended. Its exit, explained."""
        if process.returncode is None:
            self._write(self._farewell)
            process.close_stdin()
            await process.stop(grace=0 if self._lane.lost else self._settings.stop_grace_s)
        explained = None if self._launch is None else self._launch.explain_exit(process.returncode, process.stderr_tail)
        await process.end_tree()
        await process.drain_output(DRAIN_OUTPUT_S)
        if self._files is not None and self._lane.lost is None:
            await self._files.save(self._machine.turn_number)
            if self.outcome is None or not self.outcome.handed_over:
                await self._files.push()
        return process.returncode, explained

    async def _clean_up(self, *, ended: bool) -> None:
        """The home goes with its session; a session that goes on elsewhere leaves it to its next owner here."""
        if self._files is not None and ended:
            await self._files.remove()
        launch = self._launch
        if launch is None:
            return
        if launch.redactor.count:
            log.warning("session %s: %d times a known secret was taken out of what its runner printed", self.id,
                        launch.redactor.count, extra=event("secret_redacted", times=launch.redactor.count))  # fmt: skip
        if launch.home is not None and ended:
            await asyncio.to_thread(launch.home.remove)

    # -- the machine

    def _feed(self, given: Input) -> None:
        """Tell the machine, and perform what it wants; what is told meanwhile comes after."""
        if self._feeding:
            self._inputs.append(given)
            return
        self._feeding = True
        try:
            while True:
                now = time.monotonic()
                for effect in self._machine.handle(given, now):
                    if type(effect) is effects.PublishMessages:  # nearly every effect
                        if self._lane.add_messages(effect.drafts):
                            self._observer.tools(effect.drafts, now)
                    else:
                        if not self._events.write(effect):
                            self._performers[type(effect)](self, effect)
                        self._observer.effect(effect, now, self._lane.now_ms())
                if not self._inputs:
                    break
                given = self._inputs.popleft()
        except Exception as error:  # called by the loop and by the reader of all inboxes
            self._feeding = False
            if isinstance(given, inputs.Failed | inputs.RunnerGone):
                raise
            self._broken(error)
        finally:
            self._feeding = False

    def _broken(self, error: Exception) -> None:
        log.exception("session %s: internal error", self.id, exc_info=error, extra=event("internal_error"))
        self._feed(inputs.Failed(Outcome(Status.ERROR, Reason.FAILED, f"Internal error: {error!r}")))

    def _write_stdin(self, effect: effects.WriteStdin) -> None:
        self._write(effect.data)

    def _write_after_commit(self, effect: effects.WriteStdinAfterCommit) -> None:
        self._lane.after_commit(functools.partial(self._write, effect.data))

    def _end_runner(self, effect: effects.EndRunner) -> None:
        self._farewell = effect.farewell
        self._ending.set()

    def _save_checkpoint(self, effect: effects.SaveCheckpoint) -> None:
        if self._files is not None:
            self._files.ask(effect.turn)

    def _set_timer(self, effect: effects.SetTimer) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if effect.at is not None:
            delay = max(0.0, effect.at - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._fire)

    def _write_log(self, effect: effects.WriteLog) -> None:
        log.info("session %s: %s", self.id, effect.text, extra=event("runner_log"))

    _performers: ClassVar[dict[type, Any]] = {
        effects.WriteStdin: _write_stdin,
        effects.WriteStdinAfterCommit: _write_after_commit,
        effects.EndRunner: _end_runner,
        effects.SaveCheckpoint: _save_checkpoint,
        effects.SetTimer: _set_timer,
        effects.WriteLog: _write_log,
    }

    # -- from outside

    def deliver(self, waiting: InboxCommand) -> None:
        """One command from the inbox, in order. A stop overtakes everything; its receipt comes with the end."""
        if waiting.command.command == "stop":
            self.stop()
        else:
            self._feed(inputs.CommandReceived(waiting, 0 if self._process is None else self._process.unsent))

    def reject(self, entry: bytes, command_id: str, command: str, reason: str) -> None:
        """An inbox entry that is not a command, although its id can be read."""
        self._feed(inputs.EntryUnreadable(entry, command_id, command, reason))

    def stop(self) -> None:
        """End the session as asked: a state, not a message in flight."""
        self._feed(inputs.StopRequested())

    def leave(self, *, at_once: bool) -> None:
        """Hand the session over to another worker: at once, or when nothing is under way."""
        self._feed(inputs.LeaveRequested(at_once))

    # -- what it reacts to

    def _superseded(self, why: str) -> None:
        log.warning("session %s: superseded (%s), its runner is ended here", self.id, why,
                    extra=event("session_superseded", epoch=self._lane.epoch))  # fmt: skip
        self._feed(inputs.OwnershipLost())

    def _fire(self) -> None:
        self._timer = None
        self._feed(inputs.TimerFired(self._process is not None and self._process.reading_paused))

    def _write(self, data: bytes) -> None:
        if self._process is not None:
            self._process.write(data)
            if self._process.unsent > 2 * MOST_UNSENT:  # commands are rejected before; what an agent asks for is not
                self._feed(inputs.StdinOverfull())

    def _hold_reading(self, hold: bool) -> None:
        if self._process is not None:
            (self._process.pause_reading if hold else self._process.resume_reading)()

    def _read(self, chunk: bytes) -> None:
        if self._observer.awaits_output:
            self._observer.output_began(time.monotonic())
        if lines := self._framer.feed(chunk):
            self._lines(lines)
        self._lane.has_read()

    def _read_end(self) -> None:
        if lines := self._framer.close():
            self._lines(lines)
        self._pipe_closed("stdout")

    def _lines(self, lines: list[Any]) -> None:
        if (redact := self._redact) is not None:
            lines = [redact(line) if isinstance(line, bytes) else line for line in lines]
        self._feed(inputs.LinesRead(lines))

    def _pipe_closed(self, pipe: str) -> None:
        """The runner has closed one of its ends; its exit is seen apart, now or soon."""
        if self._process is not None and self._process.returncode is None:
            self._feed(inputs.PipeClosed(pipe))

    def _log_stderr(self, line: str) -> None:
        self._stderr_log.add(line, None if self._launch is None else self._launch.redactor)
