"""Where a session stands with its agent: phase, status, turn and what waits for the next one. Pure.

Owns the session's status (its only writer), the beginning and end of turns, and whether the session is over. Does not
own what the agent's lines mean (session/agent_events.py), what commands do (session/command_handler.py), nor what
happens by time (session/timers.py): these call it.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from msgspec.structs import replace

from agentrq.wire.commands import Options
from agentrq.wire.feed import feed_members
from agentrq.wire.messages import Cost, Error, Prompt, SessionTotal
from agentrq.wire.status import Reason, Status, check_move
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.parser import Spent
from agentrq_worker.providers.protocol import AgentProtocol, Sent
from agentrq_worker.providers.registry import providers
from agentrq_worker.session.approvals import ApprovalFlow
from agentrq_worker.session.confirmations import Confirmations
from agentrq_worker.session.effects import EndRunner, Output, SaveCheckpoint
from agentrq_worker.session.prompt_queue import PromptQueue
from agentrq_worker.session.time_limits import TimeLimits
from agentrq_worker.session.turn import CUT, Turn
from agentrq_worker.session.turn_cost import cost_of
from agentrq_worker.session_types import ClaimedSession, InboxCommand, Outcome

CONTINUE: Final = "You were interrupted in the middle of your work. Continue where you left off."


class Phase(Enum):
    """How far a session is on its way to its end here."""

    OPEN = 0
    ENDING = 1
    """Its end is known, or its runner has ended: output is still published, commands are not carried out any more."""
    CLOSED = 2
    """Its last event is published, or another owner has it: nothing follows."""


class Lifecycle:
    """The life of a session under one owner."""

    def __init__(
        self,
        claimed: ClaimedSession,
        options: Options,
        epoch: int,
        approvals: ApprovalFlow,
        limits: TimeLimits,
        output: Output,
    ) -> None:
        """``options``: the start's with the worker's defaults."""
        self.claimed = claimed
        self.options = options
        self.approvals = approvals
        self.limits = limits
        self.output = output
        self.now = 0.0
        self.status = Status.STARTING
        self.phase = Phase.OPEN
        self.outcome: Outcome | None = None
        """How the session ends, once that is known; the first outcome stands."""
        self.turn = Turn(
            is_open=claimed.interrupted_turn is not None, last=claimed.last_turn, timeout_s=options.turn_timeout_s
        )
        self.turns_over = claimed.total.num_turns
        """Turns that are over, all owners' together."""
        self.saving = False
        """A checkpoint of the last turn is being made: no prompt is handed over, which could change the files."""
        self.prompts = PromptQueue()
        self.confirmations = Confirmations()
        self.background: tuple[str, ...] = ()
        """The agent's background work that runs now, by label."""
        self.alive = False
        """The agent has shown that it works, or is ready to while nothing is asked of it."""
        self.began_anew = False
        """The agent could not resume its conversation and began another: it remembers nothing."""
        spec = providers().specs.get(claimed.provider)
        self._is_free = spec is not None and spec.free
        self.model = claimed.model
        """The model that the agent reports."""
        self.leaving = False
        self.said_over = False
        """The agent says itself that the session is over: it needs no farewell."""
        self._epoch = epoch
        self._resumes = False
        """Once the agent is ready it goes on with the turn of an earlier owner."""
        self._protocol: AgentProtocol | None = None

    # -- the agent

    @property
    def protocol(self) -> AgentProtocol | None:
        """How the agent is spoken with; None before its runner runs."""
        return self._protocol

    @property
    def agent(self) -> AgentProtocol:
        """The protocol of a runner that runs."""
        assert self._protocol is not None
        return self._protocol

    def show_alive(self) -> None:
        """The agent has shown that it works: a session that was starting is running.

        Before it is ready it shows so only by working on a prompt: a resumed session is starting until then.
        """
        ready = self.agent.is_ready and not self._resumes  # else the turn that goes on shows it
        if not self.alive and (self.turn.is_open or ready):
            self.alive = True
            self.settle()

    def show_ready(self) -> None:
        """The handshake is over: a resumed session that nothing was asked of is no longer starting."""
        self.limits.handshake_by = None
        if self.turn.is_open:
            return
        if self._resumes:
            self._resume()
        else:
            self.show_alive()

    def watch_handshake(self) -> None:
        """From now on the agent has `handshake_s` to be ready."""
        self.limits.handshake_by = None if self.agent.is_ready else self.now + self.limits.handshake_s

    # -- the status

    def settle(self) -> None:
        """Bring the status in line with what is open: a request, a turn, or nothing."""
        if not self.alive or self.phase is Phase.CLOSED:
            return
        requests = self.approvals.requests
        if requests.open:
            following = Status.WAITING
        elif self.turn.is_open:
            following = Status.RUNNING
        else:
            following = Status.WAITING if requests.waits_for_people else Status.IDLE
        if following is Status.WAITING and self.status in (Status.STARTING, Status.IDLE):
            self.move(Status.RUNNING)
        self.move(following)

    def move(self, status: Status) -> None:
        """Enter a status; entering the current one again is no event."""
        if status is not self.status:
            check_move(self.status, status)
            self.status = status
            self.limits.idle_since = self.now
            self.output.status(status)

    # -- turns

    def begin(self, protocol: AgentProtocol) -> None:
        """The runner runs: hand over the first prompt, resume, or wait for what comes."""
        self._protocol = protocol
        claimed, output = self.claimed, self.output
        self.approvals.set_fields()
        output.write(protocol.open())
        if not claimed.recovering:
            output.set_field("prompted", 1)
            self._hand_over(claimed.prompt, claimed.session_id, None)
        else:
            if claimed.interrupted_turn is None:  # it was idle or waiting and is again: the loss was not its doing
                output.set_field("recoveries", 0)
            self.watch_handshake()
            self._resumes = claimed.interrupted_turn is not None and self.options.on_interrupt == "continue"
            if self.agent.is_ready:
                self.show_ready()

    def resume_turn(self) -> None:
        """Have the agent go on with the turn that an earlier owner did not finish, as soon as it is ready."""
        self._resumes = True
        if self.agent.is_ready:
            self._resume()

    def _resume(self) -> None:
        self._resumes = False
        claimed = self.claimed
        before = claimed.interrupted_turn.prompt if claimed.interrupted_turn is not None else ""
        remembers = self.options.resume is not None and not self.began_anew
        text = CONTINUE if remembers else before or claimed.prompt
        self._hand_over(text, f"{claimed.session_id}-continue-{self._epoch}", None)

    def next_turn(self) -> None:
        """Hand over the next prompt that waits, if one may be; else the session is idle, and leaves if it is to."""
        held = self.turn.is_open or self._resumes or self.saving
        if held or self.phase is not Phase.OPEN or self._protocol is None:
            return
        late = self.prompts.take_late()
        if late is not None:
            self.move(Status.IDLE)  # readers see two turns, though no prompt stands between them
            self._begin_turn(late)
            return
        waiting = None if self.leaving else self.prompts.take()
        if waiting is not None:
            self._hand_over(waiting.command.text or "", waiting.command.command_id, waiting)
            return
        self.leave_if_free()
        self.settle()

    def _hand_over(self, text: str, command_id: str, waiting: InboxCommand | None) -> None:
        self.output.set_field("turn", 1)
        prompt = DraftMessage("prompt", Prompt(text, command_id))
        self.output.message(prompt, atomic_with_next=waiting is not None)
        if waiting is not None:
            self.output.receipt(waiting, "applied")
        self._begin_turn(text)

    def _begin_turn(self, text: str) -> None:
        self.open_turn()
        data = self.agent.prompt(text)
        self.watch_handshake()
        self.output.write_after_commit(data)

    def open_turn(self) -> None:
        """A turn begins, by a prompt or by the agent's own word."""
        self.turn.begin(self.now)
        self.limits.unread_by = self.limits.seems_over_by = None
        self.output.set_field("turn", 1)
        self.settle()

    def interrupt(self) -> Sent:
        """End the turn under way: what to write, what is open withdrawn. Raises `CommandRefused`."""
        sent = self.agent.interrupt()
        return sent._replace(data=sent.data + self._withdraw("client"))

    def _withdraw(self, by: str) -> bytes:
        """What the turn has asked gets no answer any more; what background work has asked stays open."""
        return self.approvals.withdraw(self.agent, by, but_nested=bool(self.background))

    def end_turn(self, draft: DraftMessage, cost: Cost) -> None:
        """The agent says that its turn is over, with its figures."""
        output, turn = self.output, self.turn
        data = b""
        if turn.is_open:
            if not cost.duration_ms and turn.began is not None:
                duration_ms = round((self.now - turn.began) * 1000)
                draft = replace(draft, content=replace(cost, duration_ms=duration_ms))
            data = self._withdraw("agent")
            turn.end(is_error=cost.is_error)
            self._set_turn_fields()
            output.set_field("recoveries", 0)
        self._tell_turn(turn.last, cost)
        total = cost.session_total
        if isinstance(total, SessionTotal):
            output.set_field("costUsd", total.cost_usd)
            output.set_field("inputTokens", total.input_tokens)
            output.set_field("outputTokens", total.output_tokens)
            output.set_field("numTurns", total.num_turns)
        output.message(draft)
        self.turns_over = max(self.turns_over + 1, total.num_turns if isinstance(total, SessionTotal) else 0)
        if self.options.workspace is not None:
            self.saving = True
            output.add(SaveCheckpoint(self.turns_over))
        for waiting in self.confirmations.take_interrupts():
            if waiting.command.command == "interrupt":
                output.receipt(waiting, "applied")
        output.write_after_commit(data)
        self.limits.seems_over_by = None
        most = self.options.max_turns
        if most is not None and isinstance(total, SessionTotal) and total.num_turns >= most:
            self.finish(Outcome(Status.DONE, Reason.MAX_TURNS))
        self.next_turn()
        self.settle()

    def cut_turn(self, error: Error) -> None:
        """The turn is over without the agent's word for it."""
        self.turn.end_as(CUT)
        self._set_turn_fields()
        self._tell_turn(CUT, None)
        self.output.message(DraftMessage("error", error))

    def end_turn_with_session(self, last: str) -> None:
        """The session ends in mid-turn."""
        self.turn.end_as(last)
        self._set_turn_fields()
        self._tell_turn(last, None)

    def _set_turn_fields(self) -> None:
        self.output.set_field("turn", 0)
        self.output.set_field("lastTurn", self.turn.last)

    def _tell_turn(self, ended: str | None, cost: Cost | None) -> None:
        """The feed and the ledger are told of each turn's end, once; ``cost`` None where the agent did not end it."""
        if cost is not None:
            spent = Spent(cost.total_cost_usd, cost.input_tokens, cost.output_tokens)
        else:
            spent = Spent() if self._protocol is None else self._protocol.spent()
        found = cost_of(spent, self.model, free=self._is_free, told=cost is not None)
        self.output.tell_feed(feed_members(
            "turn", turn=ended, model=self.model, inputTokens=spent.input_tokens, outputTokens=spent.output_tokens,
            basis=found.basis, costNanoUsd=found.nano_usd,
        ))  # fmt: skip

    # -- the end

    def leave_if_free(self) -> None:
        """Hand the session over, if it is to leave and nothing is under way that would be lost."""
        if self.leaving and not (self.turn.is_open or self.saving or self.background or self.prompts.has_late):
            self.finish(Outcome(None, handed_over=True))

    def finish(self, outcome: Outcome) -> None:
        """The session ends here, in this way unless its end was known already."""
        if self.outcome is not None or self.phase is Phase.CLOSED:
            return
        self.outcome = outcome
        farewell = b""
        if self._protocol is not None and not self.said_over and self.phase is Phase.OPEN:
            farewell = self._protocol.stop()
            if not outcome.handed_over:
                farewell += self.approvals.withdrawals(self._protocol, self.approvals.requests.ids)
        self.phase = Phase.ENDING
        self.output.add(EndRunner(farewell))

    def end(self, outcome: Outcome) -> None:
        """Write the session's last event."""
        assert outcome.status is not None
        assert outcome.reason is not None
        check_move(self.status, outcome.status, outcome.reason)
        self.status, self.outcome = outcome.status, outcome
        self.output.end(outcome.status, outcome.reason, outcome.error)

    def fail(self, error: str, reason: Reason = Reason.FAILED) -> None:
        """The session ends in error."""
        self.finish(Outcome(Status.ERROR, reason, error))
