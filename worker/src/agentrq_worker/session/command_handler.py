"""What users' commands do to a session, each with its receipt: prompts, answers, interrupts, settings. Pure.

Owns the receipts, and which commands wait for the agent's confirmation. Does not read the inbox
(ownership/inbox_reader.py); a stop is the machine's.
"""

from __future__ import annotations

import msgspec

from agentrq.wire.codec import encode
from agentrq.wire.messages import Prompt
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import CommandRefused, Sent
from agentrq_worker.session.confirmations import UNCONFIRMED
from agentrq_worker.session.lifecycle import Lifecycle, Phase
from agentrq_worker.session_types import InboxCommand
from agentrq_worker.start_policy import StartPolicy, may_switch

MOST_UNSENT = 64 << 20
"""Bytes that may wait for a runner to read its stdin; commands that come then are rejected."""
_SETTINGS = {"set_model": "model", "set_permission_mode": "permission_mode"}


class CommandHandler:
    """Carries out the commands of one session, in the order of its inbox."""

    def __init__(self, life: Lifecycle, start_policy: StartPolicy) -> None:
        self._life = life
        self._start_policy = start_policy
        self._options = life.claimed.options
        """The start's options as later owners will have them."""
        self._early: list[InboxCommand] = []
        """Commands that came before the runner ran."""
        self.stdin_closed = False

    def receive(self, waiting: InboxCommand, unsent: int) -> None:
        """One command. Without a receipt it stays in the inbox: it expires with the session or is the next owner's."""
        life = self._life
        if life.protocol is None:
            self._early.append(waiting)
            return
        if life.phase is not Phase.OPEN:
            return
        try:
            self._carry_out(waiting, self._deaf_reason(unsent))
        except CommandRefused as refused:
            life.output.receipt(waiting, "rejected", str(refused))
        life.settle()

    def receive_early(self) -> None:
        """The runner runs: carry out what came before."""
        early, self._early = self._early, []
        for waiting in early:
            self.receive(waiting, 0)

    def _deaf_reason(self, unsent: int) -> str | None:
        """Why the runner can be told nothing now; None while it can."""
        if self.stdin_closed:
            return "the runner has closed its stdin"
        return "the runner does not read its stdin" if unsent > MOST_UNSENT else None

    def _carry_out(self, waiting: InboxCommand, deaf: str | None) -> None:
        """Raises `CommandRefused` with the reason of a rejection."""
        life, kind = self._life, waiting.command.command
        if kind == "answer":
            self._answer(waiting, deaf)
            return
        if deaf is not None:
            raise CommandRefused(deaf)
        if kind == "prompt":
            self._prompt(waiting)
        elif kind == "interrupt":
            self._interrupt(waiting)
        elif kind in _SETTINGS:
            value = waiting.command.text or ""
            refused = may_switch(self._start_policy, kind, value)  # what no start may ask for, no command may change to
            if refused is not None:
                raise CommandRefused(refused)
            agent = life.agent
            self._send(waiting, agent.set_model(value) if kind == "set_model" else agent.set_permission_mode(value))

    # -- prompts and interrupts

    def _prompt(self, waiting: InboxCommand) -> None:
        """Queued by default; the other modes act on a turn under way, if there is one."""
        life, command = self._life, waiting.command
        text = command.text or ""
        if life.turn.is_open and command.mode == "steer":
            data = life.agent.steer(text)
            life.output.message(DraftMessage("prompt", Prompt(text, command.command_id)), atomic_with_next=True)
            life.output.receipt(waiting, "applied")
            life.output.write_after_commit(data)
            return
        if life.turn.is_open and command.mode == "interrupt":
            self._interrupt_turn(waiting)
        life.prompts.add(waiting)
        life.next_turn()

    def _interrupt(self, waiting: InboxCommand) -> None:
        life = self._life
        if life.turn.is_open:
            if not self._interrupt_turn(waiting):
                life.output.receipt(waiting, "applied")
            return
        if not life.approvals.requests.ids:
            raise CommandRefused("idle")
        # Nothing runs, but requests of background work or of an earlier owner's turn wait for people.
        data = life.approvals.withdraw(life.agent, "client")
        life.output.receipt(waiting, "applied")
        life.output.write_after_commit(data)
        life.next_turn()

    def _interrupt_turn(self, waiting: InboxCommand) -> bool:
        """End the turn under way for a command; whether the command waits for the agent's confirmation."""
        life = self._life
        sent = life.interrupt()
        life.turn.interrupt(life.now + life.limits.handshake_s)
        if sent.confirmation is not None:
            life.confirmations.wait_for(sent.confirmation, waiting, life.now)
        life.output.write_after_commit(sent.data)
        return sent.confirmation is not None

    # -- answers

    def _answer(self, waiting: InboxCommand, deaf: str | None) -> None:
        life = self._life
        if deaf is not None and life.approvals.requests.own_id(waiting.command.request_id or "") is not None:
            raise CommandRefused(deaf)
        resumes = life.approvals.answer(life.agent, waiting)
        if resumes and not life.turn.is_open:
            life.resume_turn()

    # -- settings, and the agent's word

    def _send(self, waiting: InboxCommand, sent: Sent) -> None:
        life = self._life
        if sent.confirmation is None:
            self._apply_setting(waiting)
        else:
            life.confirmations.wait_for(sent.confirmation, waiting, life.now)
        life.output.write_after_commit(sent.data)

    def _apply_setting(self, waiting: InboxCommand) -> None:
        """A setting that was changed is one of the start's options for the owners to come."""
        command = waiting.command
        self._keep_options({_SETTINGS[command.command]: command.text})
        self._life.output.receipt(waiting, "applied")

    def restore_settings(self, options: dict[str, str | None]) -> None:
        """The agent refused settings later than they were applied: the options before them hold again."""
        self._keep_options(options)

    def _keep_options(self, changed: dict[str, str | None]) -> None:
        self._options = msgspec.structs.replace(self._options, **changed)
        self._life.output.set_field("options", encode(self._options))

    def confirm(self, confirmation: str, error: str | None) -> None:
        """The agent has answered a command."""
        waiting = self._life.confirmations.take(confirmation)
        if waiting is None:
            return
        if error is not None:
            if waiting.command.command not in _SETTINGS:
                self._life.turn.interrupt_refused()
            self._reject(waiting, error)
        elif waiting.command.command in _SETTINGS:
            self._apply_setting(waiting)
        elif waiting.command.command == "interrupt":
            self._life.output.receipt(waiting, "applied")

    def reject_overdue(self) -> None:
        """The agent has not answered commands in time."""
        for waiting in self._life.confirmations.take_overdue(self._life.now):
            self._reject(waiting, UNCONFIRMED)

    def _reject(self, waiting: InboxCommand, reason: str) -> None:
        if waiting.command.command == "prompt":
            self._life.prompts.remove(waiting)
        self._life.output.receipt(waiting, "rejected", reason)
