"""What the agent's lines mean for its session: published, and what each message and event begins, asks or ends. Pure.

Owns the way of every line from the runner to the output; nearly all lines pass in one batch. Does not own the moves
that follow (session/lifecycle.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from agentrq.wire.messages import (
    LIVE_ONLY,
    OUTPUT_ONLY,
    ApprovalRequest,
    ApprovalResolved,
    Cost,
    Error,
    Init,
    Question,
    ToolResult,
)
from agentrq.wire.status import Reason, Status
from agentrq_worker.process.framing import LineTooLong
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import (
    Alive,
    Background,
    Ended,
    Late,
    Log,
    ProtocolEvent,
    Ready,
    Reply,
    SettingsRefused,
    TurnSeemsOver,
    TurnStarted,
    Write,
)
from agentrq_worker.session.command_handler import CommandHandler
from agentrq_worker.session.effects import WriteLog
from agentrq_worker.session.lifecycle import Lifecycle, Phase
from agentrq_worker.session.time_limits import QUIET_S, SEEMS_OVER_S
from agentrq_worker.session_types import Outcome

_OUTPUT_UNASKED: Final = OUTPUT_ONLY | {"tool_result"}
"""Message types that change nothing of a session at work while the agent waits for no answer."""
_LOST_LINES: Final = frozenset({"line_too_long", "invalid_json"})
"""Codes of `Error` for a line of which nothing could be read."""


class AgentEvents:
    """Listens to the agent of one session."""

    def __init__(self, life: Lifecycle, commands: CommandHandler) -> None:
        self._life = life
        self._limits = life.limits
        self._commands = commands
        self.told_turn_end = False
        """The agent has said at least once that a turn was over."""
        self._lost: bytes | LineTooLong | None = None
        """The line read last of which nothing could be read, though it may have ended the turn."""

    def lines(self, lines: Sequence[bytes | LineTooLong]) -> bool:
        """Lines that came together; True if they did more than say plain messages."""
        life = self._life
        output, receive = life.output, life.agent.receive
        self._limits.heard = life.now
        more = self._lost is not None
        self._lost = None
        plain_types = _OUTPUT_UNASKED if life.alive and not life.approvals.requests.open else self._plain_types()
        plain: list[DraftMessage] = []
        for line in lines:
            for said in receive(line) if isinstance(line, bytes) else life.agent.receive_lost(line.head, line.bytes):
                if type(said) is DraftMessage and said.type in plain_types:
                    plain.append(said)
                    continue
                if type(said) is Alive and life.alive and self._limits.seems_over_by is None:
                    continue  # it is known
                if plain:
                    output.messages(plain)
                    plain = []
                more = True
                if type(said) is DraftMessage:
                    self._message(said, line)
                else:
                    self._event(said)
                life.settle()
                plain_types = self._plain_types()
        if plain:
            output.messages(plain)
        if more:
            self._watch_lost(lines)
        if not life.turn.is_open:
            self._limits.texts_by = life.now + QUIET_S
            return True
        return more

    def say(self, drafts: Sequence[DraftMessage]) -> None:
        """Messages of the agent that no line brought."""
        for draft in drafts:
            self._message(draft, b"")

    def _plain_types(self) -> frozenset[str]:
        """The types of message that mean nothing now."""
        if not self._life.alive:
            return frozenset()
        return OUTPUT_ONLY if self._life.approvals.requests.open else _OUTPUT_UNASKED

    def _message(self, draft: DraftMessage, line: bytes | LineTooLong) -> None:
        """A message, and what it means for the session."""
        life, content = self._life, draft.content
        life.show_alive()
        if isinstance(content, ApprovalRequest | Question):
            of_background = bool(life.background) and draft.parent_id is not None
            withdrawn = life.turn.is_interrupted and not of_background
            life.approvals.ask(life.agent, draft, content, life.now, withdrawn=withdrawn)
        elif isinstance(content, ApprovalResolved):
            life.approvals.close(content.request_id, content.decision, content.by)
        elif isinstance(content, Cost):
            self.told_turn_end = True
            life.end_turn(draft, content)
        elif draft.type in LIVE_ONLY:
            life.output.messages([draft])
        else:
            if isinstance(content, Init):
                for name, value in (
                    ("providerSessionId", content.provider_session_id), ("model", content.model), ("cwd", content.cwd)
                ):  # fmt: skip
                    if isinstance(value, str):
                        life.output.set_field(name, value)
                life.model = content.model if isinstance(content.model, str) else life.model
            elif isinstance(content, Error):
                life.began_anew = life.began_anew or content.code == "not_resumed"
                if _may_have_ended_turn(content):
                    self._lost = line
            life.output.message(draft)
            if isinstance(content, ToolResult) and life.approvals.requests.open:
                life.approvals.close_of_tool(life.agent, content.tool_use_id)

    def _event(self, said: ProtocolEvent) -> None:
        """What a line means beside messages."""
        life = self._life
        if isinstance(said, Write):
            life.output.write(said.data)
        elif isinstance(said, Alive | TurnStarted):
            self._limits.seems_over_by = None
            if isinstance(said, TurnStarted) and not life.turn.is_open and life.phase is Phase.OPEN:
                life.open_turn()
            life.show_alive()
        elif isinstance(said, TurnSeemsOver):
            if life.turn.is_open:
                self._limits.seems_over_by = life.now + SEEMS_OVER_S
                self._limits.seems_over = said.reason
        elif isinstance(said, Ready):
            life.show_ready()
        elif isinstance(said, Reply):
            self._commands.confirm(said.confirmation, said.error)
        elif isinstance(said, Background):
            self._background(said.open)
        elif isinstance(said, SettingsRefused):
            self._commands.restore_settings(said.options)
        elif isinstance(said, Late):
            life.show_alive()
            life.prompts.add_late(said.text)
            life.next_turn()
        elif isinstance(said, Log):
            life.output.add(WriteLog(f"runner: {said.text}"))
        elif isinstance(said, Ended):
            life.said_over = True
            if said.error is not None:
                life.fail(said.error)
            else:
                life.finish(Outcome(Status.DONE, Reason.COMPLETED))

    def _background(self, labels: tuple[str, ...]) -> None:
        life = self._life
        if life.background and not labels:
            self._limits.idle_since = life.now
        life.background = labels
        life.leave_if_free()

    def _watch_lost(self, lines: Sequence[bytes | LineTooLong]) -> None:
        """A last line that could not be read may have ended the turn: then nothing will follow it."""
        life = self._life
        waits = self._lost is not None and self._lost is lines[-1] and life.turn.is_open
        self._limits.unread_by = life.now + self._limits.handshake_s if waits else None


def _may_have_ended_turn(error: Any) -> bool:
    """Whether nothing could be read of a line that may have been an agent's event; a tool's print is none."""
    excerpt = error.excerpt if isinstance(error.excerpt, str) else "{"
    return error.code in _LOST_LINES and "{" in excerpt
