"""One session's life: its runner spawned, read, bounded in time, ended, from the claim to the last event.

Owns the process and the order of things. Does not own what is said and what it means (session/machine.py), how events
reach Redis (publisher.py), nor who may own the session (ownership.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from typing import Final

from agentrq.wire.status import Reason, Status
from agentrq_worker.process.framing import LineFramer, LineTooLong
from agentrq_worker.process.pipes import STDERR_LINE
from agentrq_worker.process.runner_process import RunnerProcess
from agentrq_worker.sandbox.plan import complaint
from agentrq_worker.session.launch_plan import CannotLaunch, Launch, prepare, why_not_spawned, with_defaults
from agentrq_worker.session.machine import SessionMachine
from agentrq_worker.session.prompt_queue import MOST_UNSENT
from agentrq_worker.session_types import ClaimedSession, InboxCommand, Outcome
from agentrq_worker.settings import Settings
from agentrq_worker.stream.event_log import EventLog
from agentrq_worker.stream.message_redactor import MessageRedactor

log = logging.getLogger(__name__)

DEFAULT_MAX_RECOVERIES: Final = 3
DRAIN_OUTPUT_S: Final = 2.0
"""How long a survivor may hold the runner's stdout open after the runner's end before it is closed here."""
MUTE_S: Final = 10.0
"""How long a runner that has closed its stdout may live on: it can say nothing more, not even that its turn is over.
So long, too, one that has closed its stdin, once something was to be written to it: a prompt then is lost."""
INTERRUPT_S: Final = 10.0
"""How long a turn that ran over its time may take to end once it is interrupted; then the session ends."""
LOOK_AT_TIME_S: Final = 0.5
STDERR_LINES: Final = 100
"""Lines of a runner's stderr that go into the log in a second; the rest is read, counted and left out."""


class SessionShell:
    """The life of one claimed session; `run` is all of it."""

    def __init__(self, claimed: ClaimedSession, lane: EventLog, settings: Settings, mark: str) -> None:
        self.id = claimed.session_id
        self.outcome: Outcome | None = None
        self._claimed = claimed
        self._lane = lane
        self._settings = settings
        self._mark = mark
        self._options = with_defaults(claimed.provider, claimed.options, settings)
        self._talk = SessionMachine(
            claimed, self._options, lane, settings.approval_policy(), self._write, self._finish, settings.start_policy
        )
        self._framer = LineFramer(settings.max_line)
        self._process: RunnerProcess | None = None
        self._launch: Launch | None = None
        self._over = asyncio.Event()
        self._stopping = False
        self._stderr_second, self._stderr_lines = 0.0, 0
        self._mute: asyncio.TimerHandle | None = None
        self._talk.deaf = self._deaf
        lane.on_lost = self._superseded
        lane.on_full = self._hold_reading

    @property
    def status(self) -> Status:
        """Where the session stands."""
        return self._talk.status

    # -- the life

    async def run(self) -> Outcome:
        """From the claim to the end; answers once all that the session said is in Redis."""
        try:
            if await self._spawn():
                await self._until_over()
                await self._end_process()
        except asyncio.CancelledError:
            self._over.set()
            raise
        except Exception as error:  # noqa: BLE001 - a bug here costs this session, not the worker, and is told to all three
            self._broken(error)
        finally:
            if self._process is not None:
                await self._process.aclose()
            if self._mute is not None:
                self._mute.cancel()
        if self.outcome is not None and self._lane.lost is None:
            self._talk.end(self.outcome, self._process.returncode if self._process else None)
            await self._lane.flush()
        await self._clean_up()
        return self.outcome if self.outcome is not None and self._lane.lost is None else Outcome(None)

    async def _spawn(self) -> bool:
        """Start the runner and begin to talk; False when there is nothing to run."""
        if self.outcome is not None or self._refused():
            return False
        claimed = self._claimed
        try:
            launch = self._launch = prepare(
                self.id, claimed.provider, claimed.options, self._options, claimed.total, self._lane.epoch,
                self._settings,
            )  # fmt: skip
            if launch.redactor:
                self._lane.redactor = MessageRedactor(launch.redactor)
            with launch.spawning() as arguments:
                self._process = await RunnerProcess.spawn(
                    **arguments,
                    mark=self._mark,
                    on_chunk=self._read,
                    on_stdout_end=self._read_end,
                    on_stdin_broken=lambda: self._end_of("stdin"),
                    on_stderr_line=self._log_stderr,
                )
        except CannotLaunch as error:
            self._finish(Outcome(Status.ERROR, error.reason, str(error)))
            return False
        except (OSError, ValueError) as error:
            self._fail(why_not_spawned(launch, error))
            return False
        self._talk.begin(launch.protocol, self._process.pid, launch.enforced, launch.directories)
        return True

    def _refused(self) -> bool:
        """Whether this session is not to be resumed any more."""
        claimed, most = self._claimed, self._options.max_recoveries
        if claimed.unreadable is not None:
            self._finish(Outcome(Status.ERROR, Reason.REFUSED, claimed.unreadable))
            return True
        if claimed.cut is not None:
            self._talk.close_cut_turn(claimed.cut)
            if self._options.on_interrupt == "fail":
                self._fail("Interrupted: its worker was lost in a turn")
                return True
        most = DEFAULT_MAX_RECOVERIES if most is None else most
        if claimed.recoveries > most:
            error = f"Its worker was lost {claimed.recoveries} times in a row (max_recoveries {most})"
            self._finish(Outcome(Status.ERROR, Reason.LOST, error))
            return True
        turns = self._options.max_turns
        if claimed.recovering and turns is not None and claimed.total.num_turns >= turns:
            self._finish(Outcome(Status.DONE, Reason.MAX_TURNS))  # its worker was lost before it could say so
            return True
        return False

    async def _until_over(self) -> None:
        """Wait for the first of: the process ends, the session is over, a time limit."""
        assert self._process is not None
        async with asyncio.TaskGroup() as group:
            watchers = [
                group.create_task(self._watch_exit(self._process), name=f"exit {self.id}"),
                group.create_task(self._watch_time(), name=f"time {self.id}"),
            ]
            await self._over.wait()
            for watcher in watchers:
                watcher.cancel()

    async def _watch_exit(self, process: RunnerProcess) -> None:
        code = await process.wait()
        if self._mute is not None:  # it did end
            self._mute.cancel()
        self._talk.ending = True  # what it said last may end a turn, but it reads no further prompt
        await process.drain_output(DRAIN_OUTPUT_S)
        if code == 0:
            self._finish(Outcome(Status.DONE, Reason.COMPLETED))
        elif code < 0:
            self._fail(f"Killed by {_signal_name(-code)}")
        elif (said := self._cannot_be_confined(code, process.stderr_tail)) is not None:
            self._finish(said)
        else:
            self._fail(f"Exit code: {code}")

    def _cannot_be_confined(self, code: int, stderr: str) -> Outcome | None:
        """What an exit means that came before the runner itself."""
        if self._launch is None or self._launch.confined is None or (said := complaint(code, stderr)) is None:
            return None
        refused, error = said
        return Outcome(Status.ERROR, Reason.REFUSED if refused else Reason.FAILED, error)

    async def _watch_time(self) -> None:
        """End the session, its turn or an open request when its time is over."""
        options, talk = self._options, self._talk
        interrupted: float | None = None
        while True:
            now = time.monotonic()
            if options.timeout_s is not None:
                left = self._claimed.started_at / 1000 + options.timeout_s - time.time()
                if left <= 0:
                    self._finish(Outcome(Status.ERROR, Reason.TIMEOUT, f"Ran over {options.timeout_s:g} s"))
                    return
            if options.turn_timeout_s is not None and talk.turn_began is not None:
                if interrupted != talk.turn_began and now - talk.turn_began > options.turn_timeout_s:
                    interrupted = talk.turn_began
                    if not talk.interrupt():
                        interrupted = None
                over = options.turn_timeout_s + (INTERRUPT_S if interrupted else 0)
                if now - talk.turn_began > over:
                    error = f"A turn ran over {options.turn_timeout_s:g} s"
                    self._finish(Outcome(Status.ERROR, Reason.TIMEOUT, error))
                    return
            idle = now - talk.idle_since if talk.status is Status.IDLE else 0
            if options.idle_timeout_s is not None and idle > options.idle_timeout_s:
                self._finish(Outcome(Status.DONE, Reason.IDLE_TIMEOUT))
                return
            talk.pass_deadlines()
            await asyncio.sleep(self._pause())

    def _pause(self) -> float:
        """Until time is looked at again: seldom for sessions without limits, so that idle ones cost nothing."""
        options = self._options
        limits = (options.timeout_s, options.turn_timeout_s, options.idle_timeout_s)
        limited = self._talk.requests.may_expire or any(limit is not None for limit in limits)
        return LOOK_AT_TIME_S if limited else 3600.0

    async def _clean_up(self) -> None:
        """The home goes with its session; a session that goes on elsewhere leaves it to its next owner here."""
        launch = self._launch
        if launch is None:
            return
        if launch.redactor.count:
            log.warning("session %s: %d times a known secret was taken out of what its runner printed", self.id,
                        launch.redactor.count)  # fmt: skip
        ended = self.outcome is not None and self.outcome.status is not None and self._lane.lost is None
        if launch.home is not None and ended:
            await asyncio.to_thread(launch.home.remove)

    async def _end_process(self) -> None:
        """The ladder: the runner is told, given time, then its whole tree is ended."""
        assert self._process is not None
        process = self._process
        if process.returncode is None:
            if not self._talk.said_over:
                self._write(self._talk.farewell())
            process.close_stdin()
            await process.stop(grace=0 if self._lane.lost else self._settings.stop_grace_s)
        await process.end_tree()
        await process.drain_output(DRAIN_OUTPUT_S)

    # -- from outside

    def deliver(self, waiting: InboxCommand) -> None:
        """One command from the inbox, in order. A stop overtakes everything; its receipt comes with the end."""
        if waiting.command.command == "stop":
            self.stop()
        elif self.outcome is None:
            try:
                self._talk.deliver(waiting)
            except Exception as error:  # noqa: BLE001 - called by the reader of all inboxes: the session ends with it
                self._broken(error)

    def reject(self, entry: bytes, command_id: str, command: str, reason: str) -> None:
        """An inbox entry that is no command, though it says by which id its writer knows it."""
        if self.outcome is None:
            self._lane.add_receipt(command_id, command, "rejected", reason, entry)

    def stop(self) -> None:
        """End the session as asked: a state, not a message in flight."""
        self._finish(Outcome(Status.DONE, Reason.STOPPED))

    def leave(self, *, at_once: bool) -> None:
        """Hand the session over to another worker: at once, or when its turn is over."""
        self._talk.leaving = True
        if at_once or not self._talk.busy:
            self._finish(Outcome(None, handed_over=True))

    # -- what it reacts to

    def _superseded(self, why: str) -> None:
        log.warning("session %s: superseded (%s), its runner is ended here", self.id, why)
        self._over.set()

    def _finish(self, outcome: Outcome) -> None:
        """The first outcome stands."""
        if self.outcome is None:
            self.outcome = outcome
        self._talk.ending = True
        self._over.set()

    def _fail(self, error: str) -> None:
        self._finish(Outcome(Status.ERROR, Reason.FAILED, error))

    def _broken(self, error: Exception) -> None:
        log.exception("session %s: internal error", self.id, exc_info=error)
        self._fail(f"Internal error: {error!r}")

    def _write(self, data: bytes) -> None:
        if self._process is not None:
            self._process.write(data)
            if self._process.unsent > 2 * MOST_UNSENT:  # commands are refused before; what an agent asks for is not
                self._fail("The runner does not read its stdin")

    def _deaf(self) -> str | None:
        process = self._process
        if process is not None and process.stdin_broken:
            return "the runner has closed its stdin"
        return "the runner does not read its stdin" if process is not None and process.unsent > MOST_UNSENT else None

    def _hold_reading(self, hold: bool) -> None:
        if self._process is not None:
            (self._process.pause_reading if hold else self._process.resume_reading)()

    def _log_stderr(self, line: str) -> None:
        """A runner that floods its stderr fills neither the disk nor the log that its neighbours are in."""
        now = time.monotonic()
        if now - self._stderr_second >= 1:
            if self._stderr_lines > STDERR_LINES:
                log.warning("session %s: %d lines of stderr left out", self.id, self._stderr_lines - STDERR_LINES)
            self._stderr_second, self._stderr_lines = now, 0
        self._stderr_lines += 1
        if self._stderr_lines > STDERR_LINES:
            return
        if self._launch is not None:
            line = self._launch.redactor.text(line, STDERR_LINE)
        log.info("session %s: stderr: %s", self.id, line)

    def _read(self, chunk: bytes) -> None:
        self._lines(self._framer.feed(chunk))
        self._lane.has_read()

    def _read_end(self) -> None:
        self._lines(self._framer.close())
        self._end_of("stdout")

    def _end_of(self, pipe: str) -> None:
        """The runner has closed one of its ends; its exit is seen apart, now or soon."""
        lives = self._process is not None and self._process.returncode is None
        if lives and self._mute is None and self.outcome is None and self._lane.lost is None:
            self._mute = asyncio.get_running_loop().call_later(MUTE_S, self._still_there, pipe)

    def _still_there(self, pipe: str) -> None:
        if self._process is not None and self._process.reading_paused:  # it may wait for us
            self._mute = asyncio.get_running_loop().call_later(MUTE_S, self._still_there, pipe)
        else:
            self._fail(f"The runner closed its {pipe} and did not end")

    def _lines(self, lines: list[bytes | LineTooLong]) -> None:
        redact = self._launch.redactor.json if self._launch is not None and self._launch.redactor else None
        try:
            self._talk.lines(
                lines if redact is None else [redact(line) if isinstance(line, bytes) else line for line in lines]
            )
        except Exception as error:  # noqa: BLE001 - called by the loop, where nobody would see it: the session ends with it
            self._broken(error)


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
