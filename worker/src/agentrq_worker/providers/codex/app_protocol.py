"""How `codex app-server` is spoken with: JSON-RPC lines without their ``jsonrpc`` member (codex 0.169). Pure.

Owns the handshake, turns, steering, interrupts and answers, as written. What the server says is app_parser.py's.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Raw

from agentrq.wire.commands import Options
from agentrq.wire.messages import Error, SessionTotal
from agentrq_worker.providers.codex import app_approvals
from agentrq_worker.providers.codex.app_parser import CodexAppParser
from agentrq_worker.providers.codex.app_wire import params_decoder
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.jsonrpc.parser import RpcError, RpcLine, is_given
from agentrq_worker.providers.jsonrpc.protocol import CLIENT, JsonRpcProtocol, PeerRequest, ends, nothing
from agentrq_worker.providers.protocol import CommandRefused, Ended, Late, ProtocolEvent, Write

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
        self._interrupting = False
        self._next_turn: dict[str, Any] = {}  # what has been changed since the last turn

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
        said: list[ProtocolEvent] = [*self.tell_unsupported()]
        said.append(Write(self._notify("initialized") + self._thread(params)))
        return said

    def _thread(self, params: dict[str, Any]) -> bytes:
        resume = self._options.resume
        if resume is None:
            return self._request("thread/start", params, self._began, ends("codex could not begin a thread"))
        again = {"threadId": resume, "excludeTurns": True} | params
        return self._request("thread/resume", again, self._began, lambda error: self._not_resumed(error, params))

    def _began(self, result: Raw) -> list[ProtocolEvent]:
        if self._parser.thread is None:
            return [Ended("codex began a thread without an id")]
        return self._is_ready()

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
        params = {"threadId": self._parser.thread, "input": _input(text)} | self._next_turn
        self._next_turn = {}
        return self._request("turn/start", params, self._turn_began, self._turn_failed)

    def _turn_began(self, result: Raw) -> list[ProtocolEvent]:
        turn = self._parser.turn
        if turn is None:
            return []
        early, self._steers = self._steers, []
        said: list[ProtocolEvent] = [Write(self._steer(text, turn)) for text in early]
        if self._interrupting:
            said.append(Write(self._interrupt(turn)))
        return said

    def _turn_failed(self, error: RpcError) -> list[ProtocolEvent]:
        early, self._steers = self._steers, []
        return [*map(Late, early), *self._parser.failed_turn(error.text)]

    def _notified(self, event: RpcLine) -> list[ProtocolEvent]:
        if event.method == "turn/completed" and self._parser.turn is None:
            self._interrupting = False
        return self._turn_began(event.params) if event.method == "turn/started" else []

    def steer(self, text: str) -> bytes:
        """The request that joins a prompt to the running turn."""
        turn = self._parser.turn
        if turn is None:
            self._steers.append(text)
            return b""
        return self._steer(text, turn)

    def _steer(self, text: str, turn: str) -> bytes:
        params = {"threadId": self._parser.thread, "expectedTurnId": turn, "input": _input(text)}
        return self._request("turn/steer", params, nothing, lambda error: [Late(text)])

    def interrupt(self) -> bytes:
        """The request that ends the running turn."""
        turn = self._parser.turn
        if turn is None:
            self._interrupting = True
            return b""
        return self._interrupt(turn)

    def _interrupt(self, turn: str) -> bytes:
        self._interrupting = False
        params = {"threadId": self._parser.thread, "turnId": turn}
        return self._request("turn/interrupt", params, nothing, lambda error: [])

    def stop(self) -> bytes:
        """A turn under way is ended, so that its tools are; the end of stdin ends the server."""
        return b"" if self._parser.turn is None else self._interrupt(self._parser.turn)

    # -- the rest

    def set_model(self, model: str) -> bytes:
        """Goes with the next turn."""
        self._next_turn["model"] = model
        return b""

    def set_permission_mode(self, mode: str) -> bytes:
        """Goes with the next turn."""
        policy, sandbox = self._mode(mode)
        self._next_turn |= {"approvalPolicy": policy, "sandboxPolicy": {"type": _SANDBOXES[sandbox]}}
        return b""

    def _mode(self, mode: str) -> tuple[str, str]:
        """A mode's approval policy and sandbox. Raises `CommandRefused` for one that codex does not have."""
        if mode not in MODES:
            raise CommandRefused(f"codex has no permission mode {mode!r}; modes are {', '.join(MODES)}")
        # What a policy is to decide has to be asked for.
        return MODES[mode if self._options.approvals is None or mode == "plan" else "untrusted"]

    def _reply(self, asked: PeerRequest, answer: Any) -> Any:
        params = params_decoder.decode(asked.params if is_given(asked.params) else b"{}")
        return app_approvals.reply(asked.method, params, answer)


def _input(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]
