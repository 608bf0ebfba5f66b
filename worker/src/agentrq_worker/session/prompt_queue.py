"""Commands of the inbox reach the runner, each with its receipt: prompts in their turn, answers, interrupts, settings.

Owns the prompts that wait and the order of receipt and delivery. Does not read the inbox (ownership.py); a stop is the
session's (session/shell.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from agentrq.wire.approval_policy import Policy
from agentrq.wire.codec import encode
from agentrq.wire.commands import Command, Options
from agentrq.wire.messages import Prompt
from agentrq.wire.status import Status
from agentrq_worker.providers.answers import decision, summarize_answer
from agentrq_worker.providers.protocol import CommandRefused, Sent, as_sent
from agentrq_worker.session.approvals import ApprovalFlow
from agentrq_worker.session_types import ClaimedSession, InboxCommand, InterruptedRequest, Outcome
from agentrq_worker.start_policy import StartPolicy, may_switch
from agentrq_worker.stream.event_log import EventLog

MOST_UNSENT: Final = 64 << 20
"""Bytes that may wait for a runner to read its stdin; commands that come then are refused."""
_SETTINGS: Final = {"set_model": "model", "set_permission_mode": "permission_mode"}


class PromptQueue(ApprovalFlow):
    """A session's standing and requests, with the commands that it is given."""

    def __init__(
        self,
        claimed: ClaimedSession,
        options: Options,
        lane: EventLog,
        worker_policy: Policy,
        write: Callable[[bytes], None],
        over: Callable[[Outcome], None],
        start_policy: StartPolicy,
    ) -> None:
        super().__init__(claimed, options, lane, worker_policy, write, over)
        self._claimed = claimed
        self._start_policy = start_policy
        self._prompts: list[InboxCommand] = []
        self._late: list[str] = []
        """Prompts that came too late for the turn they were to join: their receipts are written, they go first."""
        self._early: list[InboxCommand] = []
        self.deaf: Callable[[], str | None] = lambda: None
        """Why the runner can be told nothing now; None while it can."""

    def deliver(self, waiting: InboxCommand) -> None:
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

    def _refused(self, waiting: InboxCommand) -> str | None:
        """What a start may not ask for, no command may change to."""
        command = waiting.command
        if command.command not in ("set_model", "set_permission_mode"):
            return None
        return may_switch(self._start_policy, command.command, command.text or "")

    def _deliver_prompt(self, waiting: InboxCommand) -> None:
        """Queued by default; the other modes act on a turn under way, if there is one."""
        command = waiting.command
        text = command.text or ""
        if deaf := self.deaf():
            self._receipt(waiting, "rejected", deaf)
        elif self.busy and command.mode == "steer":
            self._apply(waiting, lambda: self._speaker().steer(text), Prompt(text, command.command_id))
        elif self.busy and command.mode == "interrupt":
            try:
                self._send(as_sent(self._speaker().interrupt()).data)
            except CommandRefused as refused:
                self._receipt(waiting, "rejected", str(refused))
            else:  # before those that only wait, behind earlier ones of its kind
                at = next((i for i, other in enumerate(self._prompts) if other.command.mode != "interrupt"), None)
                self._prompts.insert(len(self._prompts) if at is None else at, waiting)
        else:
            self._prompts.append(waiting)
            if not self.busy and self.status is Status.IDLE:
                self._next_turn()

    def _deliver_answer(self, waiting: InboxCommand) -> None:
        command = waiting.command
        request_id = command.request_id or ""
        own_id = self.requests.own_id(request_id)
        if own_id is not None:
            self._apply(
                waiting,
                lambda: self._speaker().answer(own_id, command.answer),
                after=lambda: self._resolve(request_id, *summarize_answer(command.answer)),
            )
        elif (carried := self.requests.waits_to_be_asked(request_id)) is not None:
            self._keep_answer(waiting, carried)
        else:
            fate = self.requests.fate(request_id)
            self._receipt(waiting, "rejected", f"answered already: {fate}" if fate else "no such request is open")

    def _keep_answer(self, waiting: InboxCommand, carried: InterruptedRequest) -> None:
        """For the resumed agent, should it ask the same again; what is no answer then is none now."""
        answer = waiting.command.answer
        try:
            said, by = summarize_answer(answer)
            if carried.name:
                decision(answer)
        except CommandRefused as refused:
            self._receipt(waiting, "rejected", str(refused))
            return
        self.requests.keep_answer(carried.request_id, answer, by)
        self._receipt(waiting, "applied", fields={"kept": self.requests.kept})
        self._resolve(carried.request_id, said, by)

    def _apply(
        self,
        waiting: InboxCommand,
        lines: Callable[[], Sent | bytes],
        prompt: Prompt | None = None,
        after: Callable[[], None] | None = None,
    ) -> None:
        """Give the runner a command, or reject it for the reason that it or the dialect has."""
        if self.ending:  # nobody is left to hear it: it expires with the session, or is the next owner's
            return
        try:
            if deaf := self.deaf():
                raise CommandRefused(deaf)
            data = as_sent(lines()).data
        except CommandRefused as refused:
            self._receipt(waiting, "rejected", str(refused))
            return
        if prompt is not None:
            self._lane.add_message("prompt", prompt, atomic_with_next=True)
        self._receipt(waiting, "applied", fields=self._kept(waiting.command))
        if after is not None:
            after()
        self._send(data)

    def _next_turn(self) -> bool:
        """Hand over the next prompt that waits."""
        if self._late and not self.ending:
            self._move(Status.IDLE)
            self._move(Status.RUNNING, {"turn": 1})
            self._begin_turn(self._late.pop(0))
            return True
        if not self._prompts or self.leaving or self.ending:
            return False
        waiting = self._prompts.pop(0)
        self._hand_over(waiting.command.text or "", waiting.command.command_id, waiting)
        return True

    def _hand_over(
        self, text: str, command_id: str, waiting: InboxCommand | None, fields: dict[str, Any] | None = None
    ) -> None:
        fields = {"turn": 1} | (fields or {})
        self._lane.add_message("prompt", Prompt(text, command_id), None, fields, atomic_with_next=waiting is not None)
        if waiting is not None:
            self._receipt(waiting, "applied")
        if self.status is Status.IDLE:
            self._move(Status.RUNNING)
        self._begin_turn(text)

    def _begin_turn(self, text: str) -> None:
        self.busy = True
        self.turn_began = time.monotonic()
        self._send(self._speaker().prompt(text))

    def _came_late(self, text: str) -> None:
        self._late.append(text)
        if not self.busy:
            self._next_turn()

    def _receipt(
        self, waiting: InboxCommand, outcome: str, reason: str | None = None, fields: dict[str, Any] | None = None
    ) -> None:
        command = waiting.command
        self._lane.add_receipt(command.command_id, command.command, outcome, reason, waiting.entry, fields)

    def _kept(self, command: Command) -> dict[str, Any] | None:
        """A setting that was changed is one of the start's options for the owners to come."""
        option = _SETTINGS.get(command.command)
        if option is None:
            return None
        options = msgspec.structs.replace(self._claimed.options, **{option: command.text})
        self._claimed = self._claimed._replace(options=options)
        return {"options": encode(options)}
