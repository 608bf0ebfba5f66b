"""Claude Code driven directly: its command line, and what is written to its stdin (`stream-json` both ways). Pure.

Owns the flags, the prompts, the control requests and when they take effect. Does not own what its output means
(claude/parser.py) nor the shapes of answers (claude/answers.py). Sources: `claude --help` and behaviour of CLI 2.1.330,
`SDKUserMessage` and `SDKControlRequest` of `@anthropic-ai/claude-agent-sdk` 0.3.330.

What was measured and decides: nothing is printed before the first prompt, not even on `--resume`, whose history is not
repeated. An interrupt between a prompt and the turn's beginning is acknowledged and lost. A prompt of priority "next"
joins the turn at the next tool result, or follows it as a turn of its own; one of priority "now" aborts tools.
Closing stdin alone lets the running tool and every background task end first.
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
from agentrq_worker.providers.parser import NO_TURNS, LineInPieces
from agentrq_worker.providers.protocol import AgentProtocol, Alive, CommandRefused, Ended, Log, ProtocolEvent, Write

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
"""The permission modes that allow nothing of themselves which a policy could deny."""

_WORK: Final = frozenset({"text", "thinking", "text_delta", "thinking_delta", "tool_call"})
_PLAIN: Final = _WORK | {"tool_result"}
"""Types that mean nothing more to a turn that is known to be under way."""


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
        """With ``options.approvals``, whoever's, the agent asks for what it would else be allowed at once."""
        self._options = options
        self._parser = ClaudeParser(total, epoch)
        self._asks = options.approvals is not None
        self._requests = 0
        self._started = False  # a first init came
        self._working = False  # the turn has begun: an interrupt takes effect
        self._interrupt_due = False

    def command(self, program: list[str], options: Options) -> list[str]:
        """The program with the flags of the options."""
        mode = options.permission_mode or BYPASS
        if self._asks and mode not in _ASKING:
            mode = "default"
        given: dict[str, Any] = {
            "permission-mode": mode,
            "model": options.model,
            "append-system-prompt": options.system_prompt,
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

    def prompt(self, text: str) -> bytes:
        """The user's message."""
        self._working = False
        return _user(text)

    def steer(self, text: str) -> bytes:
        """The user's message, for the running turn's next request to the model."""
        return _user(text, priority="next")

    def interrupt(self) -> bytes:
        """The control request; sent once more when the turn begins, should it not have yet."""
        self._interrupt_due = not self._working
        return self._control("interrupt")

    def set_model(self, model: str) -> bytes:
        """The control request: for the next requests to the model."""
        return self._control("set_model", model=model)

    def set_permission_mode(self, mode: str) -> bytes:
        """The control request. Raises `CommandRefused` for a mode that would pass a policy by."""
        if self._asks and mode not in _ASKING:
            raise CommandRefused(f"a policy decides on approvals: use one of {', '.join(sorted(_ASKING))}")
        return self._control("set_permission_mode", mode=mode)

    def answer(self, request_id: str, answer: Any) -> bytes:
        """The control response. Raises `CommandRefused` if it does not fit or the request is closed."""
        request = self._parser.asked.get(request_id)
        if request is None:
            raise CommandRefused("no such request is open")
        response = {"subtype": "success", "request_id": request_id, "response": answers.reply(request, answer)}
        return _line({"type": "control_response", "response": response})

    def stop(self) -> bytes:
        """Ends turn, tools and background tasks within a tenth of a second; an older CLI only knows the first."""
        return self._control("interrupt") + self._control("end_session")

    def receive(self, line: bytes) -> Sequence[ProtocolEvent]:
        """What one line means."""
        try:
            drafts = self._parser.read(line)
        except LineInPieces as found:
            return self.receive_pieces(found)
        if len(drafts) == 1 and self._working and drafts[0].type in _PLAIN:  # nearly every line
            return drafts
        if not drafts:
            return self._response(line) if b'"control_response"' in line else []
        said: list[ProtocolEvent] = []
        for draft in drafts:
            self._note(draft, said)
            said.append(draft)
            if isinstance(draft.content, Cost):
                self._working = self._interrupt_due = False
                if draft.content.is_error and not self._started:
                    said.append(Ended(_why(draft.content)))
            elif draft.type == "unknown" and b'"control_request"' in line:
                said += self._decline(line)
        return said

    def close(self, reason: str) -> list[DraftMessage]:
        """What is left to say when the runner is gone: answers for the tool calls that will get none."""
        return self._parser.close(reason)

    def _note(self, draft: DraftMessage, said: list[ProtocolEvent]) -> None:
        """Whether a draft shows that a turn is under way, background tasks' included."""
        content = draft.content
        if isinstance(content, Init):
            self._started = True
        asks = isinstance(content, ApprovalRequest | Question)
        requesting = isinstance(content, StatusReport) and content.message == "requesting"
        if asks or requesting:
            said.append(Alive())
        if not self._working and (asks or requesting or draft.type in _WORK):
            self._working = True
            if self._interrupt_due:
                self._interrupt_due = False
                said.append(Write(self._control("interrupt")))

    def _response(self, line: bytes) -> list[ProtocolEvent]:
        """Of the answers to our own requests only errors are told."""
        try:
            found = _response(line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return []
        answer = found.response
        if found.type != "control_response" or answer.subtype != "error" or str(answer.request_id).startswith("end"):
            return []
        return [Log(f"{answer.request_id}: {answer.error}")]

    def _decline(self, line: bytes) -> list[ProtocolEvent]:
        """A request that nobody here can answer must not block the CLI."""
        try:
            request_id = _question(line).request_id
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return []
        response = {"subtype": "error", "request_id": request_id, "error": "not supported by this host"}
        return [Write(_line({"type": "control_response", "response": response}))]

    def _control(self, subtype: str, **members: Any) -> bytes:
        self._requests += 1
        request = {"subtype": subtype, **members}
        return _line({"type": "control_request", "request_id": f"{subtype}-{self._requests}", "request": request})


def _flag(name: str, value: str) -> list[str]:
    """A value that begins with a dash must not become a flag of its own."""
    return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]


def _user(text: str, **members: Any) -> bytes:
    message = {"role": "user", "content": text}
    return _line({"type": "user", "message": message, "parent_tool_use_id": None, "session_id": "", **members})


def _line(members: dict[str, Any]) -> bytes:
    return encode(members) + b"\n"


def _why(cost: Cost) -> str:
    """The first words of a result that is an error."""
    errors = cost.errors if isinstance(cost.errors, list) else []
    found = errors[0] if errors else cost.result
    return found if isinstance(found, str) else "Claude Code could not be started"
