"""One session: its runner, what the runner says, its commands and its end, from the claim to the last event.

Owns the session's status and turn. Does not own how lines are framed or understood (runner/, providers/), how events
reach Redis (publisher.py), nor who may own the session (ownership.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from agentrq.wire.commands import Command, Options
from agentrq.wire.messages import (
    LIVE_ONLY,
    ApprovalRequest,
    ApprovalResolved,
    Cost,
    Error,
    Init,
    Prompt,
    Question,
    SessionTotal,
    ToolResult,
)
from agentrq.wire.status import Reason, Status, check_move
from agentrq_worker.launch import CannotLaunch, prepare, why_not_spawned, with_defaults
from agentrq_worker.providers.base import Draft
from agentrq_worker.providers.dialect import Alive, Dialect, Ended, Log, Refused, Write
from agentrq_worker.publisher import Lane
from agentrq_worker.runner.framing import LineFramer, LineTooLong
from agentrq_worker.runner.process import RunnerProcess
from agentrq_worker.settings import Settings

log = logging.getLogger(__name__)

DEFAULT_MAX_RECOVERIES: Final = 3
CONTINUE: Final = "You were interrupted in the middle of your work. Continue where you left off."
DRAIN_OUTPUT_S: Final = 2.0
"""How long a survivor may hold the runner's stdout open after the runner's end before it is closed here."""

_BEGINS_TURN: Final = frozenset({"init", "text", "thinking", "text_delta", "thinking_delta", "tool_call"})


class Outcome(NamedTuple):
    """How a session ended, or ``status`` None: it goes on elsewhere, ``handed_over`` or taken by another owner."""

    status: Status | None
    reason: Reason | None = None
    error: str | None = None
    handed_over: bool = False


class CutTurn(NamedTuple):
    """A turn its owner did not finish: its prompt, and the tool calls (id, parent) that have no result."""

    prompt: str
    open_calls: list[tuple[str, str | None]]


class Claimed(NamedTuple):
    """What a claim brought: the session as the state has it."""

    session_id: str
    provider: str
    prompt: str
    options: Options
    recovering: bool
    """The first prompt was handed to a runner before: this one resumes."""
    cut: CutTurn | None
    recoveries: int
    """Owners lost in a row since the last whole turn."""
    total: SessionTotal
    started_at: int


class Waiting(NamedTuple):
    """A command with its place in the inbox."""

    entry: bytes
    command: Command


class Session:
    """The life of one claimed session; `run` is all of it."""

    def __init__(self, claimed: Claimed, lane: Lane, settings: Settings, mark: str) -> None:
        self.id = claimed.session_id
        self.status = Status.STARTING
        self.outcome: Outcome | None = None
        self._claimed = claimed
        self._lane = lane
        self._settings = settings
        self._options = with_defaults(claimed.provider, claimed.options, settings)
        self._mark = mark
        self._framer = LineFramer(settings.max_line)
        self._process: RunnerProcess | None = None
        self._dialect: Dialect | None = None
        self._busy = False
        """A turn is under way, or a prompt for it has been handed over."""
        self._prompts: deque[Waiting] = deque()
        self._open_requests: dict[str, str | None] = {}
        self._over = asyncio.Event()
        self._stopping = False
        self._leaving = False
        self._said_over = False
        self._turn_began: float | None = None
        self._idle_since = time.monotonic()
        lane.on_lost = self._superseded
        lane.on_full = self._hold_reading

    # -- the life

    async def run(self) -> Outcome:
        """From the claim to the end; answers once all that the session said is in Redis."""
        try:
            if await self._spawn():
                await self._until_over()
                await self._end_process()
        except asyncio.CancelledError:
            self._finish(None)
            raise
        except Exception as error:  # a bug here costs this session, not the worker, and is told to all three
            log.exception("session %s: internal error", self.id)
            self._finish(Outcome(Status.ERROR, Reason.FAILED, f"Internal error: {error!r}"))
        finally:
            await self._close_process()
        outcome = self.outcome or Outcome(None)
        if outcome.status is not None:
            self._write_end(outcome)
        elif outcome.handed_over:
            self._close_calls("Interrupted: the session moves to another worker")
            # Without a token the state knows no owner: this is the last that is written from here.
            self._move(Status.RECOVERING, {"worker": "", "token": "", "pendingApprovals": 0})
        await self._lane.flushed()
        return outcome if self._lane.lost is None else Outcome(None)

    async def _spawn(self) -> bool:
        """Start the runner and hand over the first prompt; False when there is nothing to run."""
        if self._stopping or self.outcome is not None:
            return False
        claimed, options = self._claimed, self._options
        if claimed.cut is not None:
            self._close_cut_turn(claimed.cut)
            if options.on_interrupt == "fail":
                self._finish(Outcome(Status.ERROR, Reason.FAILED, "Interrupted: its worker was lost in a turn"))
                return False
        most = DEFAULT_MAX_RECOVERIES if options.max_recoveries is None else options.max_recoveries
        if claimed.recoveries > most:
            error = f"Its worker was lost {claimed.recoveries} times in a row (max_recoveries {most})"
            self._finish(Outcome(Status.ERROR, Reason.LOST, error))
            return False
        try:
            launch = prepare(self.id, claimed.provider, options, claimed.total, self._lane.epoch, self._settings)
        except CannotLaunch as error:
            self._finish(Outcome(Status.ERROR, Reason.FAILED, str(error)))
            return False
        self._dialect = launch.dialect
        try:
            self._process = await RunnerProcess.spawn(
                launch.argv,
                env=launch.environment,
                cwd=launch.cwd,
                mark=self._mark,
                on_chunk=self._read,
                on_stdout_end=self._read_end,
                on_stderr_line=lambda line: log.info("session %s: stderr: %s", self.id, line),
            )
        except (OSError, ValueError) as error:
            self._finish(Outcome(Status.ERROR, Reason.FAILED, why_not_spawned(launch, error)))
            return False
        self._process.write(self._dialect.open())
        pid = {"pid": self._process.pid}
        if not claimed.recovering:
            self._hand_over(claimed.prompt, self.id, None, pid | {"prompted": 1})
        elif claimed.cut is not None and options.on_interrupt == "continue":
            text = CONTINUE if options.resume is not None else claimed.cut.prompt or claimed.prompt
            self._hand_over(text, f"{self.id}-continue-{self._lane.epoch}", None, pid)
        else:
            self._move(Status.IDLE, pid)
            self._next_turn()
        return True

    def _close_cut_turn(self, cut: CutTurn) -> None:
        """Say that the last owner's turn was cut; no tool call stays without an answer."""
        for call, parent in cut.open_calls:
            answer = ToolResult(call, "Interrupted: the session's worker ended before the tool answered", True)
            self._lane.message("tool_result", answer, parent)
        self._lane.message("error", Error("The turn was interrupted: its worker ended", "turn_interrupted"), None,
                           {"turn": 0})  # fmt: skip

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
        await process.drain_output(DRAIN_OUTPUT_S)
        self._exited(code)

    def _exited(self, code: int) -> None:
        if self._stopping:
            outcome = Outcome(Status.DONE, Reason.STOPPED)
        elif code == 0:
            outcome = Outcome(Status.DONE, Reason.COMPLETED)
        elif code < 0:
            outcome = Outcome(Status.ERROR, Reason.FAILED, f"Killed by {_signal_name(-code)}")
        else:
            outcome = Outcome(Status.ERROR, Reason.FAILED, f"Exit code: {code}")
        self._finish(outcome)

    async def _watch_time(self) -> None:
        """End the session, or its turn, when one of its limits is reached."""
        options = self._options
        while True:
            now = time.monotonic()
            limits: list[tuple[float, Outcome]] = []
            if options.timeout_s is not None:
                left = self._claimed.started_at / 1000 + options.timeout_s - time.time()
                limits.append((left, Outcome(Status.ERROR, Reason.TIMEOUT, f"Ran over {options.timeout_s:g} s")))
            if options.turn_timeout_s is not None and self._turn_began is not None:
                left = self._turn_began + options.turn_timeout_s - now
                limits.append((left, Outcome(Status.ERROR, Reason.TIMEOUT,
                                             f"A turn ran over {options.turn_timeout_s:g} s")))  # fmt: skip
            if options.idle_timeout_s is not None and self.status is Status.IDLE:
                left = self._idle_since + options.idle_timeout_s - now
                limits.append((left, Outcome(Status.DONE, Reason.IDLE_TIMEOUT)))
            for left, outcome in limits:
                if left <= 0:
                    self._finish(outcome)
                    return
            await asyncio.sleep(min([left for left, _ in limits] + [0.5 if limits or self._has_limits() else 3600.0]))

    def _has_limits(self) -> bool:
        options = self._options
        return options.turn_timeout_s is not None or options.idle_timeout_s is not None

    async def _end_process(self) -> None:
        """The ladder: the runner is told, given time, then its whole tree is ended."""
        assert self._process is not None
        process = self._process
        if process.returncode is None:
            if not self._said_over:
                assert self._dialect is not None
                process.write(self._dialect.stop())
            process.close_stdin()
            await process.stop(grace=0 if self._lane.lost else self._settings.stop_grace_s)
        await process.end_tree()
        await process.drain_output(DRAIN_OUTPUT_S)

    async def _close_process(self) -> None:
        if self._process is not None:
            await self._process.aclose()

    def _finish(self, outcome: Outcome | None) -> None:
        """The first outcome stands."""
        if self.outcome is None and outcome is not None:
            self.outcome = outcome
        self._over.set()

    def _write_end(self, outcome: Outcome) -> None:
        assert outcome.status is not None
        assert outcome.reason is not None
        self._close_calls("Interrupted: the session ended before the tool answered")
        check_move(self.status, outcome.status, outcome.reason)
        fields: dict[str, Any] = {}
        if self._process is not None and self._process.returncode is not None:
            fields["exitCode"] = self._process.returncode
        self._lane.end(outcome.status, outcome.reason, outcome.error, fields)

    def _close_calls(self, reason: str) -> None:
        """No tool call stays without an answer."""
        if self._dialect is not None:
            for draft in self._dialect.close(reason):
                self._lane.message(draft.type, draft.content, draft.parent_id)

    def leave(self, *, at_once: bool) -> None:
        """Hand the session over to another worker: at once, or when its turn is over."""
        self._leaving = True
        if at_once or not self._busy:
            self._finish(Outcome(None, handed_over=True))

    def supersede(self, why: str) -> None:
        """Another worker owns the session, or it is gone: write nothing more and end the runner."""
        self._lane.lose(why)

    def _superseded(self, why: str) -> None:
        """Another worker owns the session now, or it is gone: no byte of ours counts any more."""
        log.warning("session %s: superseded (%s), its runner is ended here", self.id, why)
        self._over.set()

    def _hold_reading(self, hold: bool) -> None:
        if self._process is not None:
            (self._process.pause_reading if hold else self._process.resume_reading)()

    # -- what the runner says

    def _read(self, chunk: bytes) -> None:
        self._lines(self._framer.feed(chunk))

    def _read_end(self) -> None:
        self._lines(self._framer.close())

    def _lines(self, lines: list[bytes | LineTooLong]) -> None:
        try:
            for line in lines:
                self._line(line)
        except Exception as error:  # called by the loop, where nobody would see it: the session ends with it
            log.exception("session %s: internal error", self.id)
            self._finish(Outcome(Status.ERROR, Reason.FAILED, f"Internal error: {error!r}"))

    def _line(self, line: bytes | LineTooLong) -> None:
        if isinstance(line, LineTooLong):
            self._publish(Draft("error", Error(f"A line of {line.bytes} bytes is over the limit", "line_too_long",
                                               bytes=line.bytes)))  # fmt: skip
            return
        assert self._dialect is not None
        for said in self._dialect.receive(line):
            if isinstance(said, Draft):
                self._publish(said)
            elif isinstance(said, Alive):
                self._alive()
            elif isinstance(said, Write):
                assert self._process is not None
                self._process.write(said.data)
            elif isinstance(said, Log):
                log.info("session %s: runner: %s", self.id, said.text)
            elif isinstance(said, Ended):
                self._said_end(said)

    def _said_end(self, said: Ended) -> None:
        self._said_over = True
        if self._stopping:
            self._finish(Outcome(Status.DONE, Reason.STOPPED))
        elif said.error is not None:
            self._finish(Outcome(Status.ERROR, Reason.FAILED, said.error))
        else:
            self._finish(Outcome(Status.DONE, Reason.COMPLETED))

    def _alive(self) -> None:
        """The runner works: whatever it was before, the turn is under way now."""
        if not self._busy:
            self._busy = True
            self._turn_began = time.monotonic()
        if self.status in (Status.STARTING, Status.IDLE):
            self._move(Status.RUNNING, {"turn": 1})

    def _publish(self, draft: Draft) -> None:
        """One message of the agent, and what it means for the session."""
        kind, content = draft.type, draft.content
        if self.status is Status.STARTING or (self.status is Status.IDLE and kind in _BEGINS_TURN):
            self._alive()
        if kind in LIVE_ONLY:
            self._lane.delta(kind, content, draft.parent_id)
            return
        fields: dict[str, Any] | None = None
        if isinstance(content, Init):
            fields = _known(providerSessionId=content.provider_session_id, model=content.model, cwd=content.cwd)
        elif isinstance(content, Cost):
            total = content.session_total
            if isinstance(total, SessionTotal):
                fields = {"costUsd": total.cost_usd, "inputTokens": total.input_tokens,
                          "outputTokens": total.output_tokens, "numTurns": total.num_turns}  # fmt: skip
            fields = (fields or {}) | {"turn": 0, "recoveries": 0}
        self._lane.message(kind, content, draft.parent_id, fields)
        if isinstance(content, ApprovalRequest):
            self._asked(content.request_id, content.tool_use_id if isinstance(content.tool_use_id, str) else None)
        elif isinstance(content, Question):
            self._asked(content.request_id, None)
        elif isinstance(content, ApprovalResolved):
            self._resolved([content.request_id])
        elif isinstance(content, ToolResult) and self._open_requests:
            self._resolved([key for key, tool in self._open_requests.items() if tool == content.tool_use_id])
        elif isinstance(content, Cost):
            self._resolved(list(self._open_requests))
            self._turn_over()

    def _asked(self, request_id: str, tool_use_id: str | None) -> None:
        self._open_requests[request_id] = tool_use_id
        if self.status is Status.RUNNING:
            self._move(Status.WAITING, {"pendingApprovals": len(self._open_requests)})

    def _resolved(self, request_ids: list[str]) -> None:
        known = [key for key in request_ids if self._open_requests.pop(key, self) is not self]
        if known and not self._open_requests and self.status is Status.WAITING:
            self._move(Status.RUNNING, {"pendingApprovals": 0})

    def _turn_over(self) -> None:
        self._busy = False
        self._turn_began = None
        if self._leaving:
            self._finish(Outcome(None, handed_over=True))
        if not self._next_turn() and self.status is not Status.IDLE:
            self._idle_since = time.monotonic()
            self._move(Status.IDLE)

    # -- commands

    def deliver(self, waiting: Waiting) -> None:
        """One command from the inbox, in order; its receipt is written when it is applied or rejected."""
        command = waiting.command
        if command.command == "stop":
            self.stop()  # its receipt comes with the end
        elif command.command == "prompt":
            self._deliver_prompt(waiting)
        elif command.command == "interrupt":
            if self._busy:
                self._apply(waiting, self._dialect_of().interrupt)
            else:
                self._receipt(waiting, "rejected", "idle")
        else:
            self._deliver_answer(waiting)

    def _deliver_prompt(self, waiting: Waiting) -> None:
        """Queued by default; the other modes act on a turn under way, if there is one."""
        command = waiting.command
        text = command.text or ""
        if self._busy and command.mode == "steer":
            self._apply(waiting, lambda: self._dialect_of().steer(text), Prompt(text, command.command_id))
            return
        if self._busy and command.mode == "interrupt":
            try:
                self._write_to(self._dialect_of().interrupt())
            except Refused as refused:
                self._receipt(waiting, "rejected", str(refused))
                return
            self._prompts.appendleft(waiting)
            return
        self._prompts.append(waiting)
        if not self._busy and self.status is Status.IDLE:
            self._next_turn()

    def _deliver_answer(self, waiting: Waiting) -> None:
        command = waiting.command
        request = command.request_id or ""
        if request not in self._open_requests:
            self._receipt(waiting, "rejected", "no such request is open")
            return
        self._apply(waiting, lambda: self._dialect_of().answer(request, command.answer))

    def _apply(self, waiting: Waiting, lines: Callable[[], bytes], prompt: Prompt | None = None) -> None:
        """Give the runner a command, or reject it for the reason the dialect has."""
        try:
            data = lines()
        except Refused as refused:
            self._receipt(waiting, "rejected", str(refused))
            return
        if prompt is not None:
            self._lane.message("prompt", prompt)
        self._receipt(waiting, "applied")
        self._write_to(data)

    def _dialect_of(self) -> Dialect:
        if self._dialect is None:
            raise Refused("the session is starting")
        return self._dialect

    def _write_to(self, data: bytes) -> None:
        """Once what was said of it is in Redis: a worker that dies here doubles nothing."""
        if self._process is not None:
            self._lane.then(functools.partial(self._process.write, data))

    def stop(self) -> None:
        """End the session as asked: a state, not a message in flight."""
        if not self._stopping and self.outcome is None:
            self._stopping = True
            self._finish(Outcome(Status.DONE, Reason.STOPPED))

    def _next_turn(self) -> bool:
        """Hand over the next prompt that waits."""
        if not self._prompts or self.outcome is not None or self._process is None:
            return False
        waiting = self._prompts.popleft()
        self._hand_over(waiting.command.text or "", waiting.command.command_id, waiting)
        return True

    def _hand_over(
        self, text: str, command_id: str, waiting: Waiting | None, fields: dict[str, Any] | None = None
    ) -> None:
        assert self._process is not None
        assert self._dialect is not None
        self._busy = True
        self._turn_began = time.monotonic()
        self._lane.message("prompt", Prompt(text=text, command_id=command_id), None, {"turn": 1} | (fields or {}))
        if waiting is not None:
            self._receipt(waiting, "applied")
        if self.status is Status.IDLE:
            self._move(Status.RUNNING)
        self._write_to(self._dialect.prompt(text))

    def _receipt(self, waiting: Waiting, outcome: str, reason: str | None = None) -> None:
        command = waiting.command
        self._lane.receipt(command.command_id, command.command, outcome, reason, waiting.entry)

    def _move(self, status: Status, fields: dict[str, Any] | None = None) -> None:
        if status is not self.status:
            check_move(self.status, status)
            self.status = status
            self._lane.status(status, fields)


def _known(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if isinstance(value, str)}


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
