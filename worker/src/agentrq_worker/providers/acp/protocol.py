"""Drives an Agent Client Protocol agent (v1, JSON-RPC 2.0 over stdio). Pure.

Owns the handshake (with model and mode), prompts, cancelling and answers, as written. Does not own what the agent's
lines mean (acp/parser.py). Offers the agent no file system and no terminals: it has its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
from msgspec import Raw

from agentrq.wire.commands import Options
from agentrq.wire.messages import Error, SessionTotal, StatusReport
from agentrq_worker.providers.acp import approvals
from agentrq_worker.providers.acp.model_and_mode import Change, Setup
from agentrq_worker.providers.acp.parser import AcpParser
from agentrq_worker.providers.acp.wire import Result, decode_result, params_decoder
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.json_line import mapping, text
from agentrq_worker.providers.jsonrpc.parser import AgentRequest, RpcError, RpcLine, is_given
from agentrq_worker.providers.jsonrpc.protocol import CLIENT, JsonRpcProtocol, ends
from agentrq_worker.providers.protocol import CommandRefused, Ended, ProtocolEvent, Reply, Sent, Write
from agentrq_worker.providers.running_cost import RunningCost

PROTOCOL: Final = 1
AUTH_REQUIRED: Final = -32000
REQUEST_CANCELLED: Final = -32800
_CAPABILITIES: Final = {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
_API_KEY: Final = re.compile("api[-_ ]?key", re.IGNORECASE)
_ASKING: Final = frozenset({"default", "plan"})
"""The permission modes that allow nothing of themselves which a policy could deny."""
_REPEATS_LATE: Final = ("gemini-cli",)
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
        self._repeats_late = False
        self._setup = Setup(Result())
        self._steps: list[tuple[Change, str, bool]] = []  # what is still to be set, and whether it has to be
        self._prompt_id: int | None = None
        """The request of the turn under way."""
        self._cancel_next = False  # an interrupt came before the turn's prompt could be written
        self._cancels: list[str] = []  # confirmations of the turn's interrupts

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
        self._repeats_late = mapping(result.agent_info).get("name") in _REPEATS_LATE
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
            return self._not_resumed(RpcError(message="this agent does not support resuming a session"))
        self._parser.running_cost.resume(self._parser.total.cost_usd)
        self._parser.replaying = True
        again = {"sessionId": resume} | params
        return [Write(self._request(method, again, lambda raw: self._resumed(raw, resume), self._not_resumed))]

    def _not_begun(self, error: RpcError) -> list[ProtocolEvent]:
        if error.code == AUTH_REQUIRED and not self._authenticated:
            return self._authenticate(error, self._options.resume)
        return [Ended(f"The agent could not begin a session: {error.text}")]

    def _not_resumed(self, error: RpcError) -> list[ProtocolEvent]:
        self._parser.running_cost = RunningCost()
        self._parser.replaying = False
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
                params = {"methodId": name}
                begin = partial(self._begin_again, resume)
                return [Write(self._request("authenticate", params, begin, lambda error: [Ended(why)]))]
        return [Ended(why)]

    def _begin_again(self, resume: str | None, raw: Raw) -> list[ProtocolEvent]:
        return self._begin_session(resume)

    def _began(self, raw: Raw) -> list[ProtocolEvent]:
        result = _read(raw)
        session = text(result.session_id)
        if not session:
            return [Ended("The agent began a session without an id")]
        return [*self._parser.begin(session, result), *self._set_up(result)]

    def _resumed(self, raw: Raw, session: str) -> list[ProtocolEvent]:
        if not self._repeats_late:
            return self._history_over(raw, session)
        # Any request will do: its response comes between the history's messages, or after all of them.
        self._parser.history_seen = False

        def responded(_: object) -> list[ProtocolEvent]:
            again = self._parser.history_seen
            return self._resumed(raw, session) if again else self._history_over(raw, session)

        return [Write(self._request("_agentrq/settled", {}, responded, responded))]

    def _history_over(self, raw: Raw, session: str) -> list[ProtocolEvent]:
        self._parser.replaying = False
        result = _read(raw)
        return [*self._parser.begin(session, result), *self._set_up(result)]

    def _set_up(self, result: Result) -> list[ProtocolEvent]:
        """Sets model and permission mode, before the first prompt."""
        self._setup = Setup(result)
        mode = self._options.permission_mode or "bypassPermissions"
        if self._options.approvals is not None and mode not in _ASKING:
            mode = "default"  # the agent has to ask for what a policy decides
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
        """Sets one after another: an agent may carry out requests at the same time."""
        if not self._steps:
            return self._finish_handshake()
        change, what, needed = self._steps.pop(0)

        def failed(error: RpcError) -> list[ProtocolEvent]:
            text = f"The agent's {what} could not be set: {error.text}"
            if needed:
                return [Ended(text)]
            # An agent may forbid bypassing permissions: it asks, and policy or people answer.
            return [DraftMessage("status", StatusReport("permission_mode", text)), *self._next_step()]

        method, params = change
        return [Write(self._request(method, self._of_session(params), lambda raw: self._next_step(), failed))]

    def _of_session(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"sessionId": self._parser.session} | params

    # -- turns

    def _begin_turn(self, text: str) -> bytes:
        self._parser.turn += 1
        self._prompt_id = self._next_id
        prompt = self._of_session({"prompt": [{"type": "text", "text": text}]})
        request = self._request("session/prompt", prompt, self._turn_over, self._turn_failed)
        cancelled, self._cancel_next = self._cancel_next, False
        return request + (self._cancel() if cancelled else b"")

    def _turn_over(self, raw: Raw) -> list[ProtocolEvent]:
        result = _read(raw)
        if not isinstance(result.stop_reason, str):
            return self._turn_failed(RpcError(message="The prompt was answered without a stopReason"))
        return self._after_turn(self._parser.end_turn(result.stop_reason, result))

    def _turn_failed(self, error: RpcError) -> list[ProtocolEvent]:
        return self._after_turn(self._parser.fail_turn(error))

    def _after_turn(self, drafts: list[DraftMessage]) -> list[ProtocolEvent]:
        self._prompt_id = None
        confirmed, self._cancels = self._cancels, []
        return [*drafts, *map(Reply, confirmed)]

    def interrupt(self) -> Sent:
        """Cancels the turn. The response to the prompt confirms it: ``session/cancel`` itself has none."""
        if self._prompt_id is None:
            self._cancel_next = not self.is_ready  # the prompt waits for the handshake: its turn ends as it begins
            return Sent(b"")
        confirmation = self._new_confirmation()
        self._cancels.append(confirmation)
        return Sent(self._cancel(), confirmation)

    def _cancel(self) -> bytes:
        return self._notify("session/cancel", self._of_session({}))

    def stop(self) -> bytes:
        """Cancels a turn under way, so that its tools end; the end of stdin ends the agent."""
        return b"" if self._prompt_id is None else self._cancel()

    def end_turn(self, reason: str) -> list[DraftMessage]:
        """Like `AgentProtocol.end_turn`; a response that comes after all ends nothing any more."""
        if self._awaited.pop(self._prompt_id, None) is None:
            return []
        self._prompt_id = None
        self._cancels.clear()
        return self._parser.fail_turn(RpcError(message=reason))

    # -- the rest

    def set_model(self, model: str) -> Sent:
        """Chooses another of the agent's models; its response confirms it."""
        return self._change(self._setup.model, model)

    def set_permission_mode(self, mode: str) -> Sent:
        """Chooses another of the agent's modes; its response confirms it."""
        if self._options.approvals is not None and mode not in _ASKING:
            raise CommandRefused(f"a policy decides on approvals: use one of {', '.join(sorted(_ASKING))}")
        return self._change(self._setup.mode, mode)

    def _change(self, find: Callable[[str], Change], wanted: str) -> Sent:
        if not self.is_ready:
            raise CommandRefused("the agent is not ready yet")
        method, params = find(wanted)
        return self._confirmed(method, self._of_session(params))

    def _result(self, request: AgentRequest, answer: Any) -> Any:
        params = params_decoder.decode(request.params if is_given(request.params) else b"{}")
        return approvals.reply(request.method, params, answer)

    def _withdrawal(self, request: AgentRequest) -> Any:
        return approvals.withdrawal(request.method)

    def _notified(self, event: RpcLine) -> list[ProtocolEvent]:
        withdrawn, self._parser.withdrawn = self._parser.withdrawn, None
        if withdrawn is None:
            return []
        # The agent has cancelled its own request, which is owed a response all the same.
        error = {"code": REQUEST_CANCELLED, "message": "Request cancelled"}
        return [Write(self._line({"id": withdrawn.id, "error": error}))]


def _read(raw: Raw) -> Result:
    """The result as far as it can be read."""
    try:
        return decode_result(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Result()
