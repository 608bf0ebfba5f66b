"""What is said between a session and its runner, and what it means: status, turns, prompts, approvals.

Owns the status and its moves, the prompts that wait, the requests that are open. Reads no pipe and starts nothing:
lines come in, bytes go out by ``write``, the end is told by ``over`` (session.py does both).
"""

from __future__ import annotations

import functools
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from agentrq.wire.codec import encode
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
from agentrq_worker import approvals
from agentrq_worker.claimed import Claimed, CutTurn, Outcome, Waiting
from agentrq_worker.policy import EVERYTHING, StartPolicy, may_switch
from agentrq_worker.providers.base import Draft
from agentrq_worker.providers.dialect import Alive, Dialect, Ended, Log, Refused, Write
from agentrq_worker.publisher import Lane
from agentrq_worker.requests import Decided, Requests
from agentrq_worker.runner.framing import LineTooLong

log = logging.getLogger(__name__)

CONTINUE: Final = "You were interrupted in the middle of your work. Continue where you left off."
_BEGINS_TURN: Final = frozenset(
    {"init", "text", "thinking", "text_delta", "thinking_delta", "tool_call", "approval_request", "question"}
)
_SETTINGS: Final = {"set_model": "model", "set_permission_mode": "permission_mode"}
_PLAIN: Final = frozenset({"text", "thinking", "tool_call", "status", "compaction", "rate_limit", "error", "unknown"})
"""Types that mean nothing to a session that is ``running`` already."""


class Conversation:
    """One writer's part of a session's talk, from its runner's first line to the end."""

    def __init__(
        self,
        claimed: Claimed,
        options: Options,
        lane: Lane,
        worker_policy: approvals.Policy,
        write: Callable[[bytes], None],
        over: Callable[[Outcome], None],
        start_policy: StartPolicy = EVERYTHING,
    ) -> None:
        self.status = Status.STARTING
        self.busy = False
        """A turn is under way, or a prompt for it has been handed over."""
        self.turn_began: float | None = None
        self.idle_since = time.monotonic()
        self.said_over = False
        self.leaving = False
        self.ending = False
        """No further prompt is handed over: the session is over, or its runner has gone."""
        self._id = claimed.session_id
        self._claimed = claimed
        self._options = options
        self._lane = lane
        self._start_policy = start_policy
        carried = [*(claimed.cut.asked if claimed.cut else ()), *claimed.asked]
        self.requests = Requests(worker_policy, approvals.read_policy(options.approvals), carried)
        self._write = write
        self._over = over
        self._dialect: Dialect | None = None
        self._prompts: deque[Waiting] = deque()
        self._early: list[Waiting] = []

    # -- the beginning

    def begin(self, dialect: Dialect, pid: int, enforced: str = "") -> None:
        """The runner runs: hand over the first prompt, or resume. ``enforced``: what its sandbox holds it to."""
        self._dialect = dialect
        claimed, cut = self._claimed, self._claimed.cut
        fields: dict[str, Any] = {"pid": pid}
        if enforced or claimed.recovering:  # the last owner may have held it to something else
            fields["enforced"] = enforced
        if self.requests.pending:
            fields["pendingApprovals"] = self.requests.pending
        self._write(dialect.open())
        if not claimed.recovering:
            self._hand_over(claimed.prompt, self._id, None, fields | {"prompted": 1})
        elif cut is not None and self._options.on_interrupt == "continue":
            text = CONTINUE if self._options.resume is not None else cut.prompt or claimed.prompt
            self._hand_over(text, f"{self._id}-continue-{self._lane.epoch}", None, fields)
        else:
            if cut is None:  # it was idle and is again: the loss was not its doing
                fields["recoveries"] = 0
            self._move(Status.IDLE, fields)
            self._next_turn()
        early, self._early = self._early, []
        for waiting in early:
            self.deliver(waiting)

    def close_cut_turn(self, cut: CutTurn) -> None:
        """Say that the last owner's turn was cut; no tool call stays without an answer."""
        for call, parent in cut.open_calls:
            answer = ToolResult(call, "Interrupted: the session's worker ended before the tool answered", True)
            self._lane.message("tool_result", answer, parent)
        interrupted = Error("The turn was interrupted: its worker ended", "turn_interrupted")
        self._lane.message("error", interrupted, None, {"turn": 0})

    # -- what the runner says

    def line(self, line: bytes | LineTooLong) -> None:
        """One line of the runner's stdout."""
        if isinstance(line, LineTooLong):
            text = f"A line of {line.bytes} bytes is over the limit"
            self._publish(Draft("error", Error(text, "line_too_long", bytes=line.bytes)))
            return
        assert self._dialect is not None
        for said in self._dialect.receive(line):
            if type(said) is Draft:
                # The way of nearly every line: a message that changes nothing but the stream.
                if said.type in _PLAIN and self.status is Status.RUNNING:
                    self._lane.message(said.type, said.content, said.parent_id)
                else:
                    self._publish(said)
            elif isinstance(said, Alive):
                self._alive()
            elif isinstance(said, Write):
                self._write(said.data)
            elif isinstance(said, Log):
                log.info("session %s: runner: %s", self._id, said.text)
            elif isinstance(said, Ended):
                self.said_over = True
                if said.error is not None:
                    self._finish(Outcome(Status.ERROR, Reason.FAILED, said.error))
                else:
                    self._finish(Outcome(Status.DONE, Reason.COMPLETED))

    def _alive(self) -> None:
        """The runner works: whatever it was before, the turn is under way now."""
        if not self.busy:
            self.busy = True
            self.turn_began = time.monotonic()
        if self.status in (Status.STARTING, Status.IDLE):
            self._move(Status.RUNNING, {"turn": 1})

    def _publish(self, draft: Draft) -> None:
        """One message of the agent, and what it means for the session."""
        kind, content = draft.type, draft.content
        if self.status is Status.STARTING or (self.status is Status.IDLE and kind in _BEGINS_TURN):
            self._alive()
        if kind in LIVE_ONLY:
            self._lane.delta(kind, content, draft.parent_id)
        elif isinstance(content, ApprovalRequest | Question):
            self._asked(draft, content)
        elif isinstance(content, ApprovalResolved):
            self._withdrawn(content)
        elif isinstance(content, Cost):
            self._turn_over(content)
        else:
            fields = None
            if isinstance(content, Init):
                fields = _texts(providerSessionId=content.provider_session_id, model=content.model, cwd=content.cwd)
            self._lane.message(kind, content, draft.parent_id, fields)
            if isinstance(content, ToolResult) and self.requests:
                for request_id in self.requests.of_tool(content.tool_use_id):  # it needs no approval any more
                    self._resolve(request_id, "withdrawn", "agent")

    def _turn_over(self, cost: Cost) -> None:
        for request_id in [*self.requests.all_open(), *self.requests.forget_carried()]:
            self._resolve(request_id, "withdrawn", "agent")
        fields: dict[str, Any] = {"turn": 0, "recoveries": 0}
        total = cost.session_total
        if isinstance(total, SessionTotal):
            fields |= {"costUsd": total.cost_usd, "inputTokens": total.input_tokens,
                       "outputTokens": total.output_tokens, "numTurns": total.num_turns}  # fmt: skip
        self._lane.message("cost", cost, None, fields)
        self.busy = False
        self.turn_began = None
        if self.leaving:
            self._finish(Outcome(None, handed_over=True))
        most = self._options.max_turns
        if most is not None and isinstance(total, SessionTotal) and total.num_turns >= most:
            self._finish(Outcome(Status.DONE, Reason.MAX_TURNS))
        if not self._next_turn() and self.status is not Status.IDLE:
            self.idle_since = time.monotonic()
            self._move(Status.IDLE)

    # -- approvals and questions

    def _asked(self, draft: Draft, content: ApprovalRequest | Question) -> None:
        """The agent asks: policy, an answer that came before, or a person decides."""
        public, decided = self.requests.ask(content)
        content.request_id = public
        self._lane.message(draft.type, content, draft.parent_id, {"pendingApprovals": self.requests.pending})
        if decided is not None:
            self._decide(public, decided)
        elif self.status is Status.RUNNING:
            self._move(Status.WAITING)

    def pass_deadlines(self) -> None:
        """Decide what has waited too long, as the policy says."""
        for request_id, decided in self.requests.expired():
            self._decide(request_id, decided)

    def _decide(self, request_id: str, decided: Decided) -> None:
        """Answer the agent without a client's command."""
        try:
            data = self._speaker().answer(self.requests.own_id(request_id) or request_id, decided.answer)
        except Refused as refused:
            log.warning("session %s: request %s stays open: %s", self._id, request_id, refused)
            if self.status is Status.RUNNING:
                self._move(Status.WAITING)
            return
        self._resolve(request_id, approvals.read_reply(decided.answer).decision, decided.by)
        self._send(data)

    def _withdrawn(self, content: ApprovalResolved) -> None:
        public = self.requests.of_runner(content.request_id)
        if public is not None:
            self._resolve(public, content.decision, content.by)

    def _resolve(self, request_id: str, decision: str, by: str) -> None:
        self.requests.close(request_id, decision, by)
        self._lane.message("approval_resolved", ApprovalResolved(request_id, decision, by), None,
                           {"pendingApprovals": self.requests.pending})  # fmt: skip
        if not self.requests and self.status is Status.WAITING:
            self._move(Status.RUNNING)

    # -- commands

    def deliver(self, waiting: Waiting) -> None:
        """One command from the inbox, in order; its receipt is written when it is applied or rejected."""
        command = waiting.command
        if self._dialect is None:
            self._early.append(waiting)
        elif command.command == "prompt":
            self._deliver_prompt(waiting)
        elif command.command == "answer":
            self._deliver_answer(waiting)
        elif command.command == "interrupt":
            if self.busy:
                self._apply(waiting, self._speaker().interrupt)
            else:
                self._receipt(waiting, "rejected", "idle")
        elif refused := self._refused(waiting):
            self._receipt(waiting, "rejected", refused)
        elif command.command == "set_model":
            self._apply(waiting, lambda: self._speaker().set_model(command.text or ""))
        elif command.command == "set_permission_mode":
            self._apply(waiting, lambda: self._speaker().set_permission_mode(command.text or ""))

    def _refused(self, waiting: Waiting) -> str | None:
        """What a start may not ask for, no command may change to."""
        command = waiting.command
        if command.command not in ("set_model", "set_permission_mode"):
            return None
        return may_switch(self._start_policy, command.command, command.text or "")

    def _deliver_prompt(self, waiting: Waiting) -> None:
        """Queued by default; the other modes act on a turn under way, if there is one."""
        command = waiting.command
        text = command.text or ""
        if self.busy and command.mode == "steer":
            self._apply(waiting, lambda: self._speaker().steer(text), Prompt(text, command.command_id))
        elif self.busy and command.mode == "interrupt":
            try:
                self._send(self._speaker().interrupt())
            except Refused as refused:
                self._receipt(waiting, "rejected", str(refused))
            else:  # before those that only wait, behind earlier ones of its kind
                at = next((i for i, other in enumerate(self._prompts) if other.command.mode != "interrupt"), None)
                self._prompts.insert(len(self._prompts) if at is None else at, waiting)
        else:
            self._prompts.append(waiting)
            if not self.busy and self.status is Status.IDLE:
                self._next_turn()

    def _deliver_answer(self, waiting: Waiting) -> None:
        command = waiting.command
        request_id = command.request_id or ""
        reply = approvals.read_reply(command.answer)
        own_id = self.requests.own_id(request_id)
        if own_id is not None:
            self._apply(
                waiting,
                lambda: self._speaker().answer(own_id, command.answer),
                after=lambda: self._resolve(request_id, reply.decision, reply.by),
            )
        elif self.requests.keep_answer(request_id, command.answer, reply.by):
            self._receipt(waiting, "applied")
            self._resolve(request_id, reply.decision, reply.by)
        else:
            fate = self.requests.fate(request_id)
            self._receipt(waiting, "rejected", f"answered already: {fate}" if fate else "no such request is open")

    def _apply(
        self,
        waiting: Waiting,
        lines: Callable[[], bytes],
        prompt: Prompt | None = None,
        after: Callable[[], None] | None = None,
    ) -> None:
        """Give the runner a command, or reject it for the reason the dialect has."""
        try:
            data = lines()
        except Refused as refused:
            self._receipt(waiting, "rejected", str(refused))
            return
        if prompt is not None:
            self._lane.message("prompt", prompt, joined=True)
        self._receipt(waiting, "applied", fields=self._kept(waiting.command))
        if after is not None:
            after()
        self._send(data)

    def _next_turn(self) -> bool:
        """Hand over the next prompt that waits."""
        if not self._prompts or self.leaving or self.ending:
            return False
        waiting = self._prompts.popleft()
        self._hand_over(waiting.command.text or "", waiting.command.command_id, waiting)
        return True

    def _hand_over(
        self, text: str, command_id: str, waiting: Waiting | None, fields: dict[str, Any] | None = None
    ) -> None:
        self.busy = True
        self.turn_began = time.monotonic()
        fields = {"turn": 1} | (fields or {})
        self._lane.message("prompt", Prompt(text, command_id), None, fields, joined=waiting is not None)
        if waiting is not None:
            self._receipt(waiting, "applied")
        if self.status is Status.IDLE:
            self._move(Status.RUNNING)
        self._send(self._speaker().prompt(text))

    def _finish(self, outcome: Outcome) -> None:
        self.ending = True
        self._over(outcome)

    def interrupt(self) -> bool:
        """End the turn under way by the worker's own will; False where the provider cannot."""
        try:
            self._send(self._speaker().interrupt())
        except Refused:
            return False
        return True

    def _speaker(self) -> Dialect:
        assert self._dialect is not None
        return self._dialect

    def _send(self, data: bytes) -> None:
        """Write once what was said of it is in Redis: a worker that dies here doubles nothing."""
        self._lane.then(functools.partial(self._write, data))

    def _receipt(
        self, waiting: Waiting, outcome: str, reason: str | None = None, fields: dict[str, Any] | None = None
    ) -> None:
        command = waiting.command
        self._lane.receipt(command.command_id, command.command, outcome, reason, waiting.entry, fields)

    def _kept(self, command: Command) -> dict[str, Any] | None:
        """A setting that was changed is one of the start's options for the owners to come."""
        option = _SETTINGS.get(command.command)
        if option is None:
            return None
        options = msgspec.structs.replace(self._claimed.options, **{option: command.text})
        self._claimed = self._claimed._replace(options=options)
        return {"options": encode(options)}

    # -- the end

    def farewell(self) -> bytes:
        """What asks the runner to end."""
        return b"" if self._dialect is None else self._dialect.stop()

    def close_calls(self, reason: str) -> None:
        """No tool call stays without an answer."""
        if self._dialect is not None:
            for draft in self._dialect.close(reason):
                self._lane.message(draft.type, draft.content, draft.parent_id)

    def end(self, outcome: Outcome, exit_code: int | None) -> None:
        """Write the end, or that the session moves on."""
        if outcome.status is None:
            self.close_calls("Interrupted: the session moves to another worker")
            # Without a token the state knows no owner: this is the last that is written from here.
            self._move(Status.RECOVERING, {"worker": "", "token": "", "pendingApprovals": self.requests.pending})
            return
        assert outcome.reason is not None
        self.close_calls("Interrupted: the session ended before the tool answered")
        check_move(self.status, outcome.status, outcome.reason)
        fields = {} if exit_code is None else {"exitCode": exit_code}
        self._lane.end(outcome.status, outcome.reason, outcome.error, fields)

    def _move(self, status: Status, fields: dict[str, Any] | None = None) -> None:
        if status is not self.status:
            check_move(self.status, status)
            self.status = status
            self._lane.status(status, fields)


def _texts(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if isinstance(value, str)}
