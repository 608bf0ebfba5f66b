"""Drives Claude Code: its command line and what is written to its stdin (`stream-json` both ways). Pure.

Owns the flags, the prompts, the control requests and when they take effect. Does not own what its output means
(claude/parser.py) nor the shapes of answers (claude/answers.py). Sources: `claude --help` and behaviour of CLI 2.1.330,
`SDKUserMessage` and `SDKControlRequest` of `@anthropic-ai/claude-agent-sdk` 0.3.330.

What was measured and decides: nothing is printed before the first line on stdin, not even on `--resume`, whose history
is not repeated. Every turn begins with an `init`, also one that no prompt began. An interrupt between a prompt and the
turn's beginning is acknowledged and lost. A prompt of priority "next" joins the turn at the next tool result, or
follows it as a turn of its own; one of priority "now" aborts tools. Closing stdin alone lets the running tool and every
background task end first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from agentrq.wire.codec import encode
from agentrq.wire.commands import Options
from agentrq.wire.messages import ApprovalRequest, Cost, Init, Question, SessionTotal, StatusReport
from agentrq_worker.providers.claude import answers
from agentrq_worker.providers.claude.parser import ClaudeParser
from agentrq_worker.providers.claude.wire import ControlRequestLine
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.json_line import text
from agentrq_worker.providers.parser import NO_TURNS, LineInPieces, Spent
from agentrq_worker.providers.protocol import (
    AgentProtocol,
    Alive,
    Background,
    CommandRefused,
    Ended,
    Log,
    ProtocolEvent,
    Ready,
    Reply,
    Sent,
    TurnStarted,
    Write,
)

FLAGS: Final = (
    "-p",
    *("--input-format", "stream-json"),
    *("--output-format", "stream-json"),
    "--verbose",
    "--include-partial-messages",
    *("--permission-prompt-tool", "stdio"),
)
BYPASS: Final = "bypassPermissions"
_ASKING: Final = frozenset({"default", "manual", "plan", "dontAsk"})
"""The permission modes in which the CLI asks for everything that a policy could deny."""

_WORK: Final = frozenset({"text", "thinking", "text_delta", "thinking_delta", "tool_call"})
_PLAIN: Final = _WORK | {"tool_result"}
"""Types that change nothing once the turn's work has begun."""


class _Answer(msgspec.Struct):
    subtype: Any = None
    request_id: Any = None
    error: Any = None


class _ControlResponse(msgspec.Struct):
    type: Any = None
    response: _Answer = msgspec.field(default_factory=_Answer)


_response = msgspec.json.Decoder(_ControlResponse).decode
_question = msgspec.json.Decoder(ControlRequestLine).decode


class ClaudeProtocol(AgentProtocol):
    """One conversation with one `claude` process."""

    def __init__(self, options: Options, total: SessionTotal = NO_TURNS, epoch: int = 1) -> None:
        """With ``options.approvals``, of start or worker, the agent asks for what it could otherwise just do."""
        self._options = options
        self._parser = ClaudeParser(total, epoch)
        self._asks = options.approvals is not None
        self._requests = 0
        self._started = False  # a first init came
        self._prompted = False  # a first prompt was handed over: nothing begins a turn before it
        self._in_turn = False  # a prompt was handed over, or the agent began a turn of its own
        self._working = False  # the turn's work has begun: an interrupt takes effect
        self._interrupt_due = False
        self._heard = False  # the agent has said something
        self._initialize = ""  # the request of the handshake
        self._unconfirmed: set[str] = set()
        self._background: tuple[str, ...] = ()
        self._turns_begun = 0

    def command(self, program: list[str], options: Options) -> list[str]:
        """The argument vector: the program and a flag for each option."""
        mode = options.permission_mode or BYPASS
        if self._asks and mode not in _ASKING:
            mode = "default"
        given: dict[str, Any] = {
            "permission-mode": mode,
            "model": options.model,
            "max-turns": options.max_turns,
            "max-budget-usd": options.max_budget_usd,
            "worktree": options.worktree_name,
            "resume": options.resume,
        }
        argv = [*program, *FLAGS]
        for name, value in given.items():
            if value is not None:
                argv += _flag(name, str(value))
        for directory in options.additional_directories or ():
            argv += _flag("add-dir", directory)
        return argv

    def open(self) -> bytes:
        """The handshake; it carries the system prompt, because an argument is short and not private."""
        prompt = self._options.system_prompt
        members = {} if prompt is None else {"appendSystemPrompt": prompt}
        self._initialize, line = self._request("initialize", **members)
        return line

    @property
    def is_ready(self) -> bool:
        """Whether the agent has said anything: the answer to the handshake comes first."""
        return self._heard

    def prompt(self, text: str) -> bytes:
        """The line of the user's message."""
        self._prompted = self._in_turn = True
        self._working = False
        return _user(text)

    def steer(self, text: str) -> bytes:
        """The line of a user's message that joins the running turn at its next request to the model."""
        return _user(text, priority="next")

    def interrupt(self) -> Sent:
        """Interrupts the turn; the request is sent again when the turn begins, if it has not yet."""
        self._interrupt_due = self._in_turn and not self._working
        return self._confirmed("interrupt")

    def set_model(self, model: str) -> Sent:
        """Changes the model of the next requests."""
        return self._confirmed("set_model", model=model)

    def set_permission_mode(self, mode: str) -> Sent:
        """Changes the permission mode. Raises `CommandRefused` for a mode that would bypass a policy."""
        if self._asks and mode not in _ASKING:
            raise CommandRefused(f"a policy decides on approvals: use one of {', '.join(sorted(_ASKING))}")
        return self._confirmed("set_permission_mode", mode=mode)

    def answer(self, request_id: str, answer: Any) -> bytes:
        """Answers an open request. Raises `CommandRefused` if the answer does not fit or the request is closed."""
        asked = self._parser.open_requests.get(request_id)
        if asked is None:
            raise CommandRefused("no such request is open")
        return self._respond(request_id, asked, answers.reply(asked.request, answer))

    def withdraw(self, request_id: str) -> bytes:
        """Like `AgentProtocol.withdraw`."""
        asked = self._parser.open_requests.get(request_id)
        return b"" if asked is None else self._respond(request_id, asked, answers.cancelled(asked.request))

    def _respond(self, request_id: str, asked: ControlRequestLine, reply: dict[str, Any]) -> bytes:
        self._parser.close_request(request_id)
        response = {"subtype": "success", "request_id": asked.request_id, "response": reply}
        return _line({"type": "control_response", "response": response})

    def stop(self) -> bytes:
        """Ends turn, tools and background tasks within 0.1 s. An older CLI supports only the interrupt."""
        return self._control("interrupt") + self._control("end_session")

    def receive(self, line: bytes) -> Sequence[ProtocolEvent]:
        """Like `AgentProtocol.receive`."""
        try:
            drafts = self._parser.read(line)
        except LineInPieces as found:
            return self.receive_pieces(found)
        if len(drafts) == 1 and self._working and drafts[0].type in _PLAIN:  # nearly every line
            return drafts
        return self._take(drafts, line)

    def receive_lost(self, head: bytes, size: int) -> Sequence[ProtocolEvent]:
        """Like `AgentProtocol.receive_lost`."""
        return [*super().receive_lost(head, size), *self._take(self._parser.read_lost(head), head)]

    def _take(self, drafts: list[DraftMessage], line: bytes) -> Sequence[ProtocolEvent]:
        """The messages of a line, and what else it means."""
        events: list[ProtocolEvent] = []
        if not self._heard:
            self._heard = True
            events.append(Ready())
        if self._parser.turns_begun != self._turns_begun:
            self._turns_begun = self._parser.turns_begun
            if not self._in_turn and self._prompted:
                self._in_turn, self._working = True, False
                events.append(TurnStarted())
        if not drafts:
            return [*events, *self._response(line)] if b'"control_response"' in line else events
        for draft in drafts:
            self._note(draft, events)
            events.append(draft)
            if isinstance(draft.content, Cost):
                self._in_turn = self._working = self._interrupt_due = False
                if draft.content.is_error and not self._started:
                    events.append(Ended(_why(draft.content)))
            elif draft.type == "unknown" and b'"control_request"' in line:
                events += self._decline(line)
        if self._parser.background != self._background:
            self._background = self._parser.background
            events.append(Background(self._background))
        return events

    def spent(self) -> Spent:
        """Like `AgentProtocol.spent`."""
        return self._parser.spent()

    def close(self, reason: str) -> list[DraftMessage]:
        """Like `AgentProtocol.close`."""
        return self._parser.close(reason)

    def _note(self, draft: DraftMessage, events: list[ProtocolEvent]) -> None:
        """Notes what a message shows of the turn: that its work has begun."""
        content = draft.content
        if isinstance(content, Init):
            self._started = True
        asks = isinstance(content, ApprovalRequest | Question)
        requesting = isinstance(content, StatusReport) and content.message == "requesting"
        if not self._in_turn:
            return
        if asks or requesting:
            events.append(Alive())
        if not self._working and (asks or requesting or draft.type in _WORK):
            self._working = True
            if self._interrupt_due:
                self._interrupt_due = False
                events.append(Write(self._control("interrupt")))

    def _response(self, line: bytes) -> list[ProtocolEvent]:
        """The events of a response to one of our requests."""
        try:
            found = _response(line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return []
        answer = found.response
        request_id = answer.request_id if isinstance(answer.request_id, str) else ""
        error = None if answer.subtype == "success" else text(answer.error) or "Claude Code refused this"
        if found.type != "control_response":
            return []
        if request_id in self._unconfirmed:
            self._unconfirmed.discard(request_id)
            return [Reply(request_id, error)]
        if error is None or request_id.startswith("end"):
            return []
        if request_id == self._initialize and self._options.system_prompt is not None:
            return [Ended(f"Claude Code did not take the system prompt: {error}")]
        return [Log(f"{request_id}: {error}")]

    def _decline(self, line: bytes) -> list[ProtocolEvent]:
        """Refuses a request of an unknown kind, on which the CLI would wait."""
        try:
            request_id = _question(line).request_id
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return []
        response = {"subtype": "error", "request_id": request_id, "error": "not supported by this host"}
        return [Write(_line({"type": "control_response", "response": response}))]

    def _control(self, subtype: str, **members: Any) -> bytes:
        return self._request(subtype, **members)[1]

    def _confirmed(self, subtype: str, **members: Any) -> Sent:
        request_id, line = self._request(subtype, **members)
        self._unconfirmed.add(request_id)
        return Sent(line, request_id)

    def _request(self, subtype: str, **members: Any) -> tuple[str, bytes]:
        """A control request's id and its line."""
        self._requests += 1
        request_id = f"{subtype}-{self._requests}"
        request = {"subtype": subtype, **members}
        return request_id, _line({"type": "control_request", "request_id": request_id, "request": request})


def _flag(name: str, value: str) -> list[str]:
    """A flag with its value; a value that begins with a dash cannot become a flag."""
    return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]


def _user(text: str, **members: Any) -> bytes:
    message = {"role": "user", "content": text}
    return _line({"type": "user", "message": message, "parent_tool_use_id": None, "session_id": "", **members})


def _line(members: dict[str, Any]) -> bytes:
    return encode(members) + b"\n"


def _why(cost: Cost) -> str:
    """The error of a failed result."""
    errors = cost.errors if isinstance(cost.errors, list) else []
    found = errors[0] if errors else cost.result
    return found if isinstance(found, str) else "Claude Code could not be started"
