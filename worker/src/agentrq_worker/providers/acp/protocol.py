"""How an Agent Client Protocol agent is spoken with (v1, JSON-RPC 2.0 over stdio). Pure.

Owns the handshake (with model and mode), prompts, cancelling and answers, as written. What the agent says is
acp/parser.py's. Offers the agent no file system and no terminals: it has its own.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from msgspec import Raw

from agentrq.wire.commands import Options
from agentrq.wire.messages import Error, SessionTotal, StatusReport
from agentrq_worker.providers.acp import approvals as acp_asks
from agentrq_worker.providers.acp.model_and_mode import Change, Setup
from agentrq_worker.providers.acp.parser import AcpParser
from agentrq_worker.providers.acp.wire import Result, decode_result, params_decoder
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.json_line import mapping, text
from agentrq_worker.providers.jsonrpc.parser import RpcError, is_given
from agentrq_worker.providers.jsonrpc.protocol import (
    CLIENT,
    Answered,
    Failed,
    JsonRpcProtocol,
    PeerRequest,
    ends,
    nothing,
)
from agentrq_worker.providers.protocol import CommandRefused, Ended, ProtocolEvent, Write

PROTOCOL: Final = 1
AUTH_REQUIRED: Final = -32000
_CAPABILITIES: Final = {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
_API_KEY: Final = re.compile("api[-_ ]?key", re.IGNORECASE)
_ASKING: Final = frozenset({"default", "plan"})
"""The permission modes that allow nothing of themselves which a policy could deny."""
_LATE: Final = ("gemini-cli",)
"""Agents that answer `session/load` before they have repeated the history (gemini 0.61)."""


class AcpProtocol(JsonRpcProtocol):
    """One session of one ACP agent."""

    version = True
    _parser: AcpParser

    def __init__(self, options: Options, total: SessionTotal, epoch: int) -> None:
        """``options.cwd`` is absolute here: the protocol has to be told."""
        super().__init__(options, AcpParser(total, epoch))
        self._parser.cwd, self._parser.model = options.cwd, options.model
        self._recovered = epoch > 1
        self._agent: dict[str, Any] = {}  # agentCapabilities
        self._auth: list[dict[str, Any]] = []
        self._authenticated = False
        self._late = False
        self._setup = Setup(Result())
        self._steps: list[tuple[Change, str, bool]] = []  # what is still to be set, and whether it has to be
        self._in_turn = False
        self._interrupting = False

    # -- the handshake

    def open(self) -> bytes:
        """The first request."""
        params = {"protocolVersion": PROTOCOL, "clientCapabilities": _CAPABILITIES, "clientInfo": CLIENT}
        return self._request("initialize", params, self._initialized, ends("The agent refused to begin"))

    def _initialized(self, raw: Raw) -> list[ProtocolEvent]:
        result = _read(raw)
        if result.protocol_version != PROTOCOL:
            return [Ended(f"The agent speaks version {result.protocol_version} of ACP, not {PROTOCOL}")]
        self._agent = mapping(result.agent_capabilities)
        self._late = mapping(result.agent_info).get("name") in _LATE
        methods = result.auth_methods if isinstance(result.auth_methods, list) else []
        self._auth = [mapping(method) for method in methods]
        if self._options.additional_directories and not self._session_capability("additionalDirectories"):
            self.unsupported = [*self.unsupported, "additional_directories"]
        return [*self.tell_unsupported(), *self._begin_session(self._options.resume)]

    def _session_capability(self, name: str) -> bool:
        return isinstance(mapping(self._agent.get("sessionCapabilities")).get(name), dict)

    def _begin_session(self, resume: str | None) -> list[ProtocolEvent]:
        params: dict[str, Any] = {"cwd": self._options.cwd or "/", "mcpServers": []}
        if self._options.additional_directories and self._session_capability("additionalDirectories"):
            params["additionalDirectories"] = self._options.additional_directories
        if resume is None:
            return [Write(self._request("session/new", params, self._began, self._not_begun))]
        if self._session_capability("resume"):
            method = "session/resume"
        elif self._agent.get("loadSession") is True:
            method = "session/load"
        else:
            return self._not_resumed(RpcError(message="this agent can resume no session"))
        self._parser.resumed = self._parser.replaying = True
        again = {"sessionId": resume} | params
        return [Write(self._request(method, again, lambda raw: self._resumed(raw, resume), self._not_resumed))]

    def _not_begun(self, error: RpcError) -> list[ProtocolEvent]:
        if error.code == AUTH_REQUIRED and not self._authenticated:
            return self._authenticate(error, self._options.resume)
        return [Ended(f"The agent could not begin a session: {error.text}")]

    def _not_resumed(self, error: RpcError) -> list[ProtocolEvent]:
        self._parser.resumed = self._parser.replaying = False
        if error.code == AUTH_REQUIRED and not self._authenticated:
            return self._authenticate(error, self._options.resume)
        reason = f"The agent could not resume {self._options.resume}: {error.text}"
        if not self._recovered:
            return [Ended(reason)]
        lost = DraftMessage("error", Error(f"{reason}; a new session begins", "not_resumed"))
        return [lost, *self._begin_session(None)]

    def _authenticate(self, error: RpcError, resume: str | None) -> list[ProtocolEvent]:
        """Once, by a method that takes a key from the environment: no other works without a person."""
        self._authenticated = True
        offered = ", ".join(f"{text(method.get('id'))} ({text(method.get('name'))})" for method in self._auth)
        why = f"The agent asks for authentication ({error.text}); it offers: {offered or 'nothing'}. Log in with the \
agent's own program on this machine, or pass its API key by env or pass_env"
        for method in self._auth:
            name = text(method.get("id"))
            if method.get("type") == "env_var" or _API_KEY.search(name):
                again: Answered = lambda raw: self._begin_session(resume)  # noqa: E731 - typed
                params = {"methodId": name}
                return [Write(self._request("authenticate", params, again, lambda failed: [Ended(why)]))]
        return [Ended(why)]

    def _began(self, raw: Raw) -> list[ProtocolEvent]:
        if self._parser.session is None:
            return [Ended("The agent began a session without an id")]
        return self._set_up(_read(raw))

    def _resumed(self, raw: Raw, session: str) -> list[ProtocolEvent]:
        if not self._late:
            return self._settled(raw, session)
        # Any request does: it is answered between the messages, and there are none once all has been repeated.
        self._parser.repeated = False

        def answered(_: object) -> list[ProtocolEvent]:
            return self._resumed(raw, session) if self._parser.repeated else self._settled(raw, session)

        return [Write(self._request("_agentrq/settled", {}, answered, answered))]

    def _settled(self, raw: Raw, session: str) -> list[ProtocolEvent]:
        self._parser.replaying = False
        result = _read(raw)
        init = self._parser.begin(session, result)
        if self._prompted:
            return [*init, *self._set_up(result)]
        self._held += init
        return self._set_up(result)

    def _set_up(self, result: Result) -> list[ProtocolEvent]:
        """Model and permission mode, before the first prompt."""
        self._setup = Setup(result)
        mode = self._options.permission_mode or "bypassPermissions"
        if self._options.approvals is not None and mode not in _ASKING:
            mode = "default"  # what a policy is to decide has to be asked for
        self._steps = []
        try:
            if self._options.model is not None:
                self._steps.append((self._setup.model(self._options.model), "model", True))
            if (change := self._setup.first_mode(mode)) is not None:
                self._steps.append((change, "permission mode", mode not in ("bypassPermissions", "default")))
        except CommandRefused as refused:
            return [Ended(str(refused))]
        return self._next_step()

    def _next_step(self) -> list[ProtocolEvent]:
        """One after another: an agent may take up requests at the same time."""
        if not self._steps:
            return self._is_ready()
        change, what, needed = self._steps.pop(0)

        def failed(error: RpcError) -> list[ProtocolEvent]:
            text = f"The agent's {what} could not be set: {error.text}"
            if needed:
                return [Ended(text)]
            # Bypassing permissions is not everywhere allowed: the agent asks, and is answered by policy or people.
            return [DraftMessage("status", StatusReport("permission_mode", text)), *self._next_step()]

        return [Write(self._set(change, lambda raw: self._next_step(), failed))]

    def _set(self, change: Change, done: Answered, failed: Failed) -> bytes:
        method, params = change
        return self._request(method, {"sessionId": self._parser.session} | params, done, failed)

    def _change(self, change: Change, what: str) -> bytes:
        def failed(error: RpcError) -> list[ProtocolEvent]:
            return [DraftMessage("error", Error(f"The agent's {what} could not be set: {error.text}", "not_set"))]

        return self._set(change, nothing, failed)

    # -- turns

    def _begin_turn(self, text: str) -> bytes:
        self._in_turn = True
        params = {"sessionId": self._parser.session, "prompt": [{"type": "text", "text": text}]}
        request = self._request("session/prompt", params, self._turn_over, self._turn_failed)
        interrupting, self._interrupting = self._interrupting, False
        return request + (self.interrupt() if interrupting else b"")

    def _turn_over(self, raw: Raw) -> list[ProtocolEvent]:
        self._in_turn = False
        self._asked.clear()
        if isinstance(_read(raw).stop_reason, str):
            return []  # the parser has said it
        return self._turn_failed(RpcError(message="The prompt was answered without a stopReason"))

    def _turn_failed(self, error: RpcError) -> list[ProtocolEvent]:
        self._in_turn = False
        self._asked.clear()
        return [*self._parser.failed_turn(error)]

    def interrupt(self) -> bytes:
        """Cancels the turn; what the agent has asked is answered so, as the protocol demands."""
        if not self._in_turn:
            self._interrupting = True  # the handshake is not over: the turn ends as it begins
            return b""
        data = self._notify("session/cancel", {"sessionId": self._parser.session})
        for asked in self._asked.values():
            if asked.method == acp_asks.PERMISSION:
                data += self._line({"id": asked.id, "result": acp_asks.CANCELLED})
        self._asked.clear()
        return data

    def stop(self) -> bytes:
        """A turn under way is cancelled, so that its tools are; the end of stdin ends the agent."""
        return self.interrupt() if self._in_turn else b""

    # -- the rest

    def set_model(self, model: str) -> bytes:
        """Another of the agent's models."""
        return self._change(self._setup.model(model), "model")

    def set_permission_mode(self, mode: str) -> bytes:
        """Another of the agent's modes."""
        if self._options.approvals is not None and mode not in _ASKING:
            raise CommandRefused(f"a policy decides on approvals: use one of {', '.join(sorted(_ASKING))}")
        return self._change(self._setup.mode(mode), "permission mode")

    def _reply(self, asked: PeerRequest, answer: Any) -> Any:
        params = params_decoder.decode(asked.params if is_given(asked.params) else b"{}")
        return acp_asks.reply(asked.method, params, answer)


def _read(raw: Raw) -> Result:
    try:
        return decode_result(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Result()
