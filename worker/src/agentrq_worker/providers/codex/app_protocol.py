"""Drives `codex app-server` (codex 0.169) over JSON-RPC lines without a ``jsonrpc`` member. Pure.

Owns the handshake, turns, steering, interrupts and answers, as written. What the server says is app_parser.py's.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Raw

from agentrq.wire.commands import Options
from agentrq.wire.messages import Error, SessionTotal
from agentrq_worker.providers.codex import app_approvals
from agentrq_worker.providers.codex.app_parser import CodexAppParser
from agentrq_worker.providers.codex.app_wire import Params, params_decoder
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.jsonrpc.parser import AgentRequest, RpcError, RpcLine, is_given
from agentrq_worker.providers.jsonrpc.protocol import CLIENT, JsonRpcProtocol, ends, nothing, told
from agentrq_worker.providers.protocol import (
    Background,
    CommandRefused,
    Ended,
    Late,
    ProtocolEvent,
    Sent,
    SettingsRefused,
    TurnSeemsOver,
    TurnStarted,
    Write,
)

MODES: Final = {
    "bypassPermissions": ("never", "danger-full-access"),
    "default": ("on-request", "workspace-write"),
    "acceptEdits": ("on-request", "workspace-write"),
    "auto": ("on-request", "workspace-write"),
    "dontAsk": ("never", "workspace-write"),
    "plan": ("never", "read-only"),
    # Not read-only: codex 0.169 runs what was allowed in its sandbox first, and on a busy machine it often takes that
    # sandbox's refusal for the command's own answer, instead of running it again outside.
    "untrusted": ("untrusted", "workspace-write"),
}
"""Permission modes as codex's approval policy and sandbox."""

_SANDBOXES: Final = {
    "danger-full-access": "dangerFullAccess",
    "workspace-write": "workspaceWrite",
    "read-only": "readOnly",
}


class CodexAppProtocol(JsonRpcProtocol):
    """One session of `codex app-server`: one thread."""

    version = False
    _parser: CodexAppParser

    def __init__(self, options: Options, total: SessionTotal, epoch: int) -> None:
        super().__init__(options, CodexAppParser(total, epoch, resumed=options.resume is not None))
        self._recovered = epoch > 1
        self._steers: list[str] = []  # those that came before the turn's id was known
        self._early_interrupts: list[str] = []  # confirmations of those that came before the turn's id was known
        self._next_turn: dict[str, Any] = {}  # what has been changed since the last turn
        self._chosen: dict[str, str | None] = {}  # the same, as start options
        self._held: dict[str, str | None] = {"model": options.model, "permission_mode": options.permission_mode}
        self._in_turn = False  # a prompt was handed over, or codex began a turn of its own
        self._turns_ended = 0
        self._background: tuple[str, ...] = ()

    # -- the handshake

    def open(self) -> bytes:
        """The first request."""
        params = {"clientInfo": CLIENT, "capabilities": {"experimentalApi": True}}  # for excludeTurns
        return self._request("initialize", params, self._initialized, ends("codex app-server refused to begin"))

    def _initialized(self, result: Raw) -> list[ProtocolEvent]:
        options = self._options
        try:
            policy, sandbox = self._mode(options.permission_mode or "bypassPermissions")
        except CommandRefused as refused:
            return [Ended(str(refused))]
        params: dict[str, Any] = {"approvalPolicy": policy, "sandbox": sandbox}
        if options.cwd is not None:
            params["cwd"] = options.cwd
        if options.model is not None:
            params["model"] = options.model
        if options.system_prompt is not None:
            params["developerInstructions"] = options.system_prompt
        if options.additional_directories:
            params["config"] = {"sandbox_workspace_write.writable_roots": options.additional_directories}
        events: list[ProtocolEvent] = [*self.tell_unsupported()]
        events.append(Write(self._notify("initialized") + self._thread(params)))
        return events

    def _thread(self, params: dict[str, Any]) -> bytes:
        resume = self._options.resume
        if resume is None:
            return self._request("thread/start", params, self._began, ends("codex could not begin a thread"))
        again = {"threadId": resume, "excludeTurns": True} | params
        return self._request("thread/resume", again, self._began, lambda error: self._not_resumed(error, params))

    def _began(self, result: Raw) -> list[ProtocolEvent]:
        if self._parser.thread is None:
            return [Ended("codex began a thread without an id")]
        return self._finish_handshake()

    def _not_resumed(self, error: RpcError, params: dict[str, Any]) -> list[ProtocolEvent]:
        text = f"codex could not resume {self._options.resume}: {error.text}"
        if not self._recovered:
            return [Ended(text)]
        # Its worker may have been lost before the thread was ever written.
        self._parser.resumed = False
        start = self._request("thread/start", params, self._began, ends("codex could not begin a thread"))
        return [DraftMessage("error", Error(f"{text}; a new thread begins", "not_resumed")), Write(start)]

    # -- turns

    def _begin_turn(self, text: str) -> bytes:
        changed, self._next_turn = self._next_turn, {}
        chosen, self._chosen = self._chosen, {}
        self._in_turn = True
        params = {"threadId": self._parser.thread, "input": _input(text)} | changed
        return self._request(
            "turn/start", params, lambda _: self._turn_accepted(chosen), lambda error: self._turn_failed(error, chosen)
        )

    def _turn_accepted(self, chosen: dict[str, str | None]) -> list[ProtocolEvent]:
        self._held |= chosen
        return self._turn_began()

    def _turn_began(self) -> list[ProtocolEvent]:
        turn = self._parser.turn
        if turn is None:
            return []
        early, self._steers = self._steers, []
        events: list[ProtocolEvent] = [Write(self._steer(text, turn)) for text in early]
        interrupts, self._early_interrupts = self._early_interrupts, []
        return events + [Write(self._interrupt(turn, confirmation).data) for confirmation in interrupts]

    def _turn_failed(self, error: RpcError, chosen: dict[str, str | None]) -> list[ProtocolEvent]:
        self._in_turn = False
        early, self._steers = self._steers, []
        events: list[ProtocolEvent] = []
        if chosen:  # the turn that did not begin took none of it, and it may be why
            named = ", ".join(f"{name} {value}" for name, value in chosen.items())
            text = f"codex refused the turn that was to begin with {named}: what was set before holds again"
            restored = {name: self._chosen.get(name, self._held[name]) for name in chosen}
            events = [SettingsRefused(restored), DraftMessage("error", Error(text, "setting_refused"))]
        return [*map(Late, early), *events, *self._parser.failed_turn(error.text)]

    def _notified(self, event: RpcLine) -> list[ProtocolEvent]:
        parser = self._parser
        events: list[ProtocolEvent] = []
        if parser.turns_ended != self._turns_ended:
            self._turns_ended = parser.turns_ended
            self._in_turn = False
            self._early_interrupts.clear()
        elif event.method == "turn/started" and parser.turn is not None:
            if not self._in_turn:
                self._in_turn = True
                events.append(TurnStarted())
            events += self._turn_began()
        elif event.method in ("thread/status/changed", "thread/closed"):
            reason = parser.seems_over(event.method, _decode_params(event.params))
            events += [] if reason is None else [TurnSeemsOver(reason)]
        if parser.background != self._background:
            self._background = parser.background
            events.append(Background(self._background))
        return events

    def end_turn(self, reason: str) -> list[DraftMessage]:
        """Like `AgentProtocol.end_turn`."""
        self._in_turn = False
        return self._parser.end_turn(reason)

    def steer(self, text: str) -> bytes:
        """Joins a prompt to the running turn."""
        turn = self._parser.turn
        if turn is None:
            self._steers.append(text)
            return b""
        return self._steer(text, turn)

    def _steer(self, text: str, turn: str) -> bytes:
        params = {"threadId": self._parser.thread, "expectedTurnId": turn, "input": _input(text)}
        return self._request("turn/steer", params, nothing, lambda error: [Late(text)])

    def interrupt(self) -> Sent:
        """Ends the running turn; the response to the request confirms it."""
        turn, confirmation = self._parser.turn, self._new_confirmation()
        if turn is None:
            self._early_interrupts.append(confirmation)
            return Sent(b"", confirmation)
        return self._interrupt(turn, confirmation)

    def _interrupt(self, turn: str, confirmation: str) -> Sent:
        return self._confirmed("turn/interrupt", {"threadId": self._parser.thread, "turnId": turn}, confirmation)

    def stop(self) -> bytes:
        """Ends a turn under way, so that its tools end; the end of stdin ends the server."""
        turn = self._parser.turn
        if turn is None:
            return b""
        params = {"threadId": self._parser.thread, "turnId": turn}
        return self._request("turn/interrupt", params, nothing, told("codex could not interrupt the turn"))

    # -- the rest

    def set_model(self, model: str) -> Sent:
        """Changes it with the next turn."""
        self._next_turn["model"] = self._chosen["model"] = model
        return Sent(b"")

    def set_permission_mode(self, mode: str) -> Sent:
        """Changes it with the next turn."""
        policy, sandbox = self._mode(mode)
        self._next_turn |= {"approvalPolicy": policy, "sandboxPolicy": {"type": _SANDBOXES[sandbox]}}
        self._chosen["permission_mode"] = mode
        return Sent(b"")

    def _mode(self, mode: str) -> tuple[str, str]:
        """A mode's approval policy and sandbox. Raises `CommandRefused` for a mode that codex does not have."""
        if mode not in MODES:
            raise CommandRefused(f"codex has no permission mode {mode!r}; modes are {', '.join(MODES)}")
        # What a policy is to decide has to be asked for.
        return MODES[mode if self._options.approvals is None or mode == "plan" else "untrusted"]

    def _result(self, request: AgentRequest, answer: Any) -> Any:
        return app_approvals.reply(request.method, _decode_params(request.params), answer)

    def _withdrawal(self, request: AgentRequest) -> Any:
        return app_approvals.withdrawal(request.method, _decode_params(request.params))


def _decode_params(raw: Raw) -> Params:
    try:
        found: Params = params_decoder.decode(raw if is_given(raw) else b"{}")
    except (ValueError, RecursionError):  # told by the parser
        return Params()
    return found


def _input(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]
