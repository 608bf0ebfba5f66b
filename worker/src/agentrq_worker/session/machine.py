"""One owner's part of a session as a pure state machine: an input and the time come in, effects go out.

Owns which part answers which input, and the session's beginning and end. Reads no pipe, starts nothing and knows no
clock: session/shell.py performs the effects. Its parts: session/lifecycle.py (status, turns), session/agent_events.py,
session/command_handler.py, session/timers.py.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from typing import Any, ClassVar, Final

from msgspec import UNSET

from agentrq.wire.approval_policy import Policy, read_policy
from agentrq.wire.commands import Options
from agentrq.wire.messages import BranchPushed, Checkpoint, Error, ToolResult, WorkspaceRestored
from agentrq.wire.status import Reason, Status
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.session import inputs
from agentrq_worker.session.agent_events import AgentEvents
from agentrq_worker.session.approvals import ApprovalFlow
from agentrq_worker.session.command_handler import CommandHandler
from agentrq_worker.session.effects import Effect, EndRunner, Output
from agentrq_worker.session.lifecycle import Lifecycle, Phase
from agentrq_worker.session.open_requests import OpenRequests
from agentrq_worker.session.time_limits import TimeLimits
from agentrq_worker.session.timers import Timers
from agentrq_worker.session.turn import CUT, INTERRUPTED, WHOLE
from agentrq_worker.session_types import ClaimedSession, InterruptedTurn, Outcome
from agentrq_worker.start_policy import EVERYTHING, StartPolicy

DEFAULT_MAX_RECOVERIES: Final = 3
DEFAULT_HANDSHAKE_S: Final = 60.0


class SessionMachine:
    """One owner's part of a session, from the claim to the last event."""

    def __init__(
        self,
        claimed: ClaimedSession,
        options: Options,
        epoch: int,
        *,
        worker_policy: Policy,
        start_policy: StartPolicy = EVERYTHING,
        handshake_s: float = DEFAULT_HANDSHAKE_S,
        now: float,
        redis_ms: int,
    ) -> None:
        """``options``: the start's with the worker's defaults. ``now`` (monotonic) is ``redis_ms`` on Redis's clock."""
        left: InterruptedTurn | ClaimedSession = claimed.interrupted_turn or claimed
        carried = [(request, now - max(0, redis_ms - request.asked_at) / 1000) for request in left.requests]
        session_policy = read_policy(options.approvals)
        requests = OpenRequests(worker_policy, session_policy, carried, left.decisions, redis_ms - now * 1000)
        self._output = Output()
        limits = TimeLimits(options, handshake_s, claimed.ran_s, now)
        self._life = Lifecycle(claimed, options, epoch, ApprovalFlow(requests, self._output), limits, self._output)
        self._commands = CommandHandler(self._life, start_policy)
        self._agent = AgentEvents(self._life, self._commands)
        self._timers = Timers(self._life, self._commands, self._agent)

    @property
    def status(self) -> Status:
        """Where the session stands."""
        return self._life.status

    @property
    def outcome(self) -> Outcome | None:
        """How the session ends; None while it goes on."""
        return self._life.outcome

    @property
    def turn_number(self) -> int:
        """The turn under way, or the last one, from 1."""
        return self._life.turns_over + self._life.turn.is_open

    def handle(self, given: inputs.Input, now: float) -> list[Effect]:
        """What one input means, ``now`` being the time in monotonic seconds."""
        life = self._life
        if life.phase is Phase.CLOSED:
            return []
        life.now = now
        if type(given) is inputs.LinesRead:  # nearly every input
            may_change_timer = self._agent.lines(given.lines)
        else:
            may_change_timer = self._handlers[type(given)](self, given)
        if may_change_timer:
            self._timers.set_next()
        return self._output.take()

    # -- the beginning

    def _opened(self, _: inputs.Opened) -> bool:
        """Close what an earlier owner left, and end what is not to be resumed any more."""
        life, claimed, options = self._life, self._life.claimed, self._life.options
        if life.phase is not Phase.OPEN:
            return False
        if claimed.unreadable is not None:
            life.fail(claimed.unreadable, Reason.REFUSED)
            return False
        if claimed.interrupted_turn is not None:
            self._close_interrupted_turn(claimed.interrupted_turn)
            if options.on_interrupt == "fail":
                life.fail("Interrupted: its worker was lost in a turn")
                return False
        most = DEFAULT_MAX_RECOVERIES if options.max_recoveries is None else options.max_recoveries
        turns = options.max_turns
        if claimed.recoveries > most:
            lost = f"Its worker was lost {claimed.recoveries} times in a row (max_recoveries {most})"
            life.fail(lost, Reason.LOST)
        elif claimed.recovering and turns is not None and claimed.total.num_turns >= turns:
            life.finish(Outcome(Status.DONE, Reason.MAX_TURNS))  # its worker was lost before it could say so
        return False

    def _close_interrupted_turn(self, turn: InterruptedTurn) -> None:
        """Say that the last owner's turn was cut; no tool call stays without a result."""
        for call, parent in turn.open_calls:
            result = ToolResult(call, "Interrupted: the session's worker ended before the tool answered", True)
            self._output.message(DraftMessage("tool_result", result, parent))
        self._life.cut_turn(Error("The turn was interrupted: its worker ended", "turn_interrupted"))

    def _runner_started(self, given: inputs.RunnerStarted) -> bool:
        if self._life.phase is not Phase.OPEN:  # it was stopped meanwhile: nothing is handed over
            return False
        self._output.set_field("pid", given.pid)
        if given.enforced or self._life.claimed.recovering:  # the last owner may have had another sandbox
            self._output.set_field("enforced", given.enforced)
        self._life.approvals.requests.directories = given.directories
        self._life.begin(given.protocol)
        self._commands.receive_early()
        return True

    # -- in between

    def _command_received(self, given: inputs.CommandReceived) -> bool:
        self._commands.receive(given.waiting, given.unsent)
        return True

    def _entry_unreadable(self, given: inputs.EntryUnreadable) -> bool:
        if self._life.phase is Phase.OPEN:
            self._output.entry_receipt(given.entry, given.command_id, given.command, "rejected", given.reason)
        return False

    def _timer_fired(self, given: inputs.TimerFired) -> bool:
        self._timers.fire(given.reading_paused)
        return True

    def _pipe_closed(self, given: inputs.PipeClosed) -> bool:
        if given.pipe == "stdin":
            self._commands.stdin_closed = True
        self._timers.close_pipe(given.pipe)
        return True

    # -- the end

    def _stop_requested(self, _: inputs.StopRequested) -> bool:
        self._life.finish(Outcome(Status.DONE, Reason.STOPPED))
        return True

    def _leave_requested(self, given: inputs.LeaveRequested) -> bool:
        self._life.leaving = True
        if given.at_once:
            self._life.finish(Outcome(None, handed_over=True))
        self._life.leave_if_free()
        return True

    def _failed(self, given: inputs.Failed) -> bool:
        self._life.finish(given.outcome)
        return True

    def _stdin_overfull(self, _: inputs.StdinOverfull) -> bool:
        self._life.fail("The runner does not read its stdin")
        return True

    def _runner_exited(self, _: inputs.RunnerExited) -> bool:
        """What it said last may still end a turn, but it reads no further prompt."""
        self._life.phase = Phase.ENDING
        return True

    # -- the workspace

    def _workspace_restored(self, given: inputs.WorkspaceRestored) -> bool:
        lost = self._life.claimed.interrupted_turn is not None
        self._output.message(DraftMessage("workspace_restored", WorkspaceRestored(given.turn, given.commit, lost)))
        return False

    def _checkpoint_saved(self, given: inputs.CheckpointSaved) -> bool:
        self._output.set_field("checkpoint", f"{given.turn} {given.commit}")
        content = Checkpoint(given.turn, given.commit, given.files, list(given.left_out) or UNSET)
        self._output.message(DraftMessage("checkpoint", content))
        return self._saved()

    def _checkpoint_failed(self, given: inputs.CheckpointFailed) -> bool:
        text = f"No checkpoint of turn {given.turn}: {given.why}"
        self._output.message(DraftMessage("error", Error(text, "checkpoint_failed")))
        return self._saved()

    def _saved(self, _: inputs.NothingToSave | None = None) -> bool:
        """The files may change again: what waits for that is handed over."""
        self._life.saving = False
        self._life.next_turn()
        return True

    def _branch_pushed(self, given: inputs.BranchPushed) -> bool:
        self._output.message(DraftMessage("branch_pushed", BranchPushed(given.branch, given.commit)))
        return False

    def _branch_not_pushed(self, given: inputs.BranchNotPushed) -> bool:
        text = f"Branch {given.branch} was not pushed, the checkpoints have its commits: {given.why}"
        self._output.message(DraftMessage("error", Error(text, "branch_not_pushed")))
        return False

    def _ownership_lost(self, _: inputs.OwnershipLost) -> bool:
        self._life.phase = Phase.CLOSED
        self._output.add(EndRunner(b""))
        return False

    def _runner_gone(self, given: inputs.RunnerGone) -> bool:
        """Close and tell all that is open, then write the end, or that the session moves on."""
        life, output = self._life, self._output
        moves = life.outcome is not None and life.outcome.handed_over
        why = "moves to another worker" if moves else "ended before the tool answered"
        calls_open = False
        for draft in life.protocol.close(f"Interrupted: the session {why}") if life.protocol is not None else ():
            calls_open = calls_open or draft.type == "tool_result"
            output.message(draft)
        if life.background:
            text = f"Background work of the agent was ended: {', '.join(life.background)}"
            output.message(DraftMessage("error", Error(text, "background_ended")))
        if moves:
            # Without token and claim the state knows no owner: this is the last that is written from here.
            for name in ("worker", "token", "claim"):
                output.set_field(name, "")
            life.approvals.set_fields()
            life.move(Status.RECOVERING)
        else:
            self._end(given, calls_open)
        life.phase = Phase.CLOSED
        return False

    def _end(self, given: inputs.RunnerGone, calls_open: bool) -> None:
        life, output = self._life, self._output
        outcome = life.outcome or given.explained or self._outcome_of_exit(given.exit_code, calls_open)
        if life.turn.is_open and life.protocol is not None:
            whole = outcome.reason is Reason.COMPLETED
            life.end_turn_with_session(INTERRUPTED if outcome.reason is Reason.STOPPED else WHOLE if whole else CUT)
        life.approvals.withdraw(None, "client" if outcome.reason is Reason.STOPPED else "agent")
        if life.turn.last == CUT and outcome.status is Status.DONE and outcome.reason is not Reason.STOPPED:
            outcome = Outcome(Status.ERROR, Reason.FAILED, f"Its last turn was cut, then: {_words(outcome)}")
        if given.exit_code is not None:
            output.set_field("exitCode", given.exit_code)
        if outcome.status is Status.ERROR and given.stderr_tail:
            output.set_field("stderrTail", given.stderr_tail)
        life.end(outcome)

    def _outcome_of_exit(self, code: int | None, calls_open: bool) -> Outcome:
        """What it means that the runner ended by itself."""
        if code is None or self._life.protocol is None:
            return Outcome(Status.ERROR, Reason.FAILED, "The runner was not started")
        if code < 0:
            return Outcome(Status.ERROR, Reason.FAILED, f"Killed by {_signal_name(-code)}")
        if code > 0:
            return Outcome(Status.ERROR, Reason.FAILED, f"Exit code: {code}")
        tells = self._agent.told_turn_end or calls_open or self._life.protocol.tells_turn_end
        if self._life.turn.is_open and tells:
            return Outcome(Status.ERROR, Reason.FAILED, "The runner ended in the middle of a turn (exit code 0)")
        return Outcome(Status.DONE, Reason.COMPLETED)

    _handlers: ClassVar[dict[type, Callable[[Any, Any], bool]]] = {
        inputs.Opened: _opened,
        inputs.RunnerStarted: _runner_started,
        inputs.CommandReceived: _command_received,
        inputs.EntryUnreadable: _entry_unreadable,
        inputs.TimerFired: _timer_fired,
        inputs.PipeClosed: _pipe_closed,
        inputs.StopRequested: _stop_requested,
        inputs.LeaveRequested: _leave_requested,
        inputs.Failed: _failed,
        inputs.StdinOverfull: _stdin_overfull,
        inputs.RunnerExited: _runner_exited,
        inputs.WorkspaceRestored: _workspace_restored,
        inputs.CheckpointSaved: _checkpoint_saved,
        inputs.CheckpointFailed: _checkpoint_failed,
        inputs.NothingToSave: _saved,
        inputs.BranchPushed: _branch_pushed,
        inputs.BranchNotPushed: _branch_not_pushed,
        inputs.OwnershipLost: _ownership_lost,
        inputs.RunnerGone: _runner_gone,
    }
    """The method of each other input; True where a time limit may have changed."""


def _words(outcome: Outcome) -> str:
    return str(outcome.reason or "").replace("_", " ")


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
