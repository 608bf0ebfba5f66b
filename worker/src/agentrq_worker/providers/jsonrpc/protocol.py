"""The client's side of JSON-RPC over lines: what Codex app-server and ACP agents share on the writing side. Pure.

Owns the ids of our requests and what their responses lead to, the answers to the agent's requests, and the prompt that
waits for the handshake. Does not own any method (codex/app_protocol.py, acp/protocol.py), nor what the agent's lines
mean (a `JsonRpcParser`).
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from msgspec import Raw

from agentrq.wire.codec import encode
from agentrq.wire.commands import Options
from agentrq.wire.messages import Error
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.json_line import value
from agentrq_worker.providers.jsonrpc.parser import (
    AgentRequest,
    JsonRpcParser,
    RpcError,
    RpcLine,
    error_code,
    is_given,
    read_error,
)
from agentrq_worker.providers.parser import LineInPieces, Spent
from agentrq_worker.providers.protocol import (
    AgentProtocol,
    CommandRefused,
    Ended,
    ProtocolEvent,
    Ready,
    Reply,
    Sent,
    Write,
)

CLIENT: Final = {"name": "agentrq", "title": "agentrq", "version": "1"}
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
PARSE_ERROR: Final = -32700
_HEAD: Final = re.compile(
    rb'[^{]*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(-?\d{1,18}|"[\w.~-]{1,100}")\s*,\s*"(method|result|error)"'
)
"""How a request or a response begins: in a line that cannot be read this much may be known all the same."""

OnResult: TypeAlias = Callable[[Raw], list[ProtocolEvent]]
OnError: TypeAlias = Callable[[RpcError], list[ProtocolEvent]]


class JsonRpcProtocol(AgentProtocol):
    """One session with a JSON-RPC agent; `receive` never raises."""

    version: bool
    """Whether lines carry ``"jsonrpc": "2.0"``."""

    def __init__(self, options: Options, parser: JsonRpcParser) -> None:
        self._options = options
        self._parser = parser
        parser.driven = True
        self._next_id = 1
        self._awaited: dict[int | None, tuple[OnResult, OnError]] = {}  # our requests without a response yet
        self._confirmations = 0
        self._ready = False
        self._early_prompt: str | None = None  # came before the handshake was over

    @property
    def is_ready(self) -> bool:
        """Like `AgentProtocol.is_ready`: the handshake is over."""
        return self._ready

    def command(self, program: list[str], options: Options) -> list[str]:
        """The program as it is: the handshake tells it its options."""
        return program

    def prompt(self, text: str) -> bytes:
        """The request of a turn, once the handshake is over."""
        if not self._ready:
            self._early_prompt = text if self._early_prompt is None else f"{self._early_prompt}\n\n{text}"
            return b""
        return self._begin_turn(text)

    def receive(self, line: bytes) -> list[ProtocolEvent]:
        """The messages of one line, and what is written for it."""
        try:
            events: list[ProtocolEvent] = [*self._parser.read(line)]
        except LineInPieces as found:
            return self.receive_pieces(found)
        if self._parser.event is not None:
            events += self._handle(self._parser.event)
        elif events:  # it could not be read
            events += self._lost(line, "could not be read")
        return events

    def receive_lost(self, head: bytes, size: int) -> list[ProtocolEvent]:
        """Like `AgentProtocol.receive_lost`: what waits for a lost response fails, a lost request is answered."""
        return [*super().receive_lost(head, size), *self._lost(head, f"is over the size limit ({size} bytes)")]

    def finish_texts(self) -> list[DraftMessage]:
        """Like `AgentProtocol.finish_texts`."""
        return self._parser.finish_texts()

    def spent(self) -> Spent:
        """Like `AgentProtocol.spent`."""
        return self._parser.spent()

    def close(self, reason: str) -> list[DraftMessage]:
        """Like `AgentProtocol.close`."""
        return self._parser.close(reason)

    def answer(self, request_id: str, answer: Any) -> bytes:
        """The response to an open request of the agent. Raises `CommandRefused` for an answer that does not fit it."""
        request = self._parser.open_requests.get(request_id)
        if request is None:
            raise CommandRefused("no such request is open")
        return self._respond(request_id, self._result(request, answer))

    def withdraw(self, request_id: str) -> bytes:
        """Like `AgentProtocol.withdraw`."""
        request = self._parser.open_requests.get(request_id)
        return b"" if request is None else self._respond(request_id, self._withdrawal(request))

    # -- for the agents' protocols

    @abstractmethod
    def _begin_turn(self, text: str) -> bytes:
        """The request of a turn."""

    @abstractmethod
    def _result(self, request: AgentRequest, answer: Any) -> Any:
        """The result for an agent's request. Raises `CommandRefused` for an answer that does not fit it."""

    @abstractmethod
    def _withdrawal(self, request: AgentRequest) -> Any:
        """The result for an agent's request that nobody will answer."""

    def _notified(self, event: RpcLine) -> list[ProtocolEvent]:
        """What a notification leads to, beside its messages."""
        return []

    def _request(self, method: str, params: Any, on_result: OnResult, on_error: OnError) -> bytes:
        request_id, self._next_id = self._next_id, self._next_id + 1
        self._awaited[request_id] = (on_result, on_error)
        return self._line({"id": request_id, "method": method, "params": params})

    def _new_confirmation(self) -> str:
        self._confirmations += 1
        return f"confirmation {self._confirmations}"

    def _confirmed(self, method: str, params: Any, confirmation: str | None = None) -> Sent:
        """A request that carries out a command: its response confirms or refuses the command."""
        confirmation = confirmation or self._new_confirmation()
        data = self._request(
            method, params, lambda _: [Reply(confirmation)], lambda error: [Reply(confirmation, error.text)]
        )
        return Sent(data, confirmation)

    def _notify(self, method: str, params: Any = None) -> bytes:
        return self._line({"method": method} if params is None else {"method": method, "params": params})

    def _finish_handshake(self) -> list[ProtocolEvent]:
        """The handshake is over: writes the prompt that waited for it."""
        self._ready = True
        early, self._early_prompt = self._early_prompt, None
        return [Ready()] if early is None else [Ready(), Write(self._begin_turn(early))]

    def _line(self, members: dict[str, Any]) -> bytes:
        head = {"jsonrpc": "2.0"} if self.version else {}
        return encode(head | members) + b"\n"

    # -- lines of the agent

    def _handle(self, event: RpcLine) -> list[ProtocolEvent]:
        if not isinstance(event.method, str):
            return self._responded(event)
        if not is_given(event.id):
            return self._notified(event)
        if self._parser.request_id(event.id) in self._parser.open_requests:
            return []
        # Without a response the agent would wait for ever.
        if self._parser.handles(event.method):
            error = {"code": INVALID_PARAMS, "message": f"The params of {event.method} could not be read"}
        else:
            error = {"code": METHOD_NOT_FOUND, "message": f"Not supported by this client: {event.method}"}
        return [Write(self._line({"id": event.id, "error": error}))]

    def _lost(self, line: bytes, why: str) -> list[ProtocolEvent]:
        """What the loss of a line leads to: a response that never comes, or a request that nobody reads."""
        found = _HEAD.match(line)
        if found is None:
            return []
        if found[2] == b"method":
            error = {"code": PARSE_ERROR, "message": f"The request {why}"}
            return [Write(self._line({"id": Raw(found[1]), "error": error}))]
        _, on_error = self._awaited.pop(_number(Raw(found[1])), (nothing, _ignore))
        return on_error(RpcError(message=f"The agent's response {why}"))

    def _respond(self, request_id: str, result: Any) -> bytes:
        request = self._parser.close_request(request_id)
        assert request is not None
        return self._line({"id": request.id, "result": result})

    def _responded(self, event: RpcLine) -> list[ProtocolEvent]:
        """What the response to a request of ours leads to."""
        # Some agents give a number back as a text.
        awaited = self._awaited.pop(_number(event.id), None)
        failed = read_error(event.error) if is_given(event.error) else None
        if failed is None and not len(event.result):
            failed = RpcError(message="The response has neither a result nor an error")
        if awaited is None:
            return [] if failed is None else told("The agent reports an error")(failed)
        on_result, on_error = awaited
        return on_result(event.result) if failed is None else on_error(failed)


def _number(raw: Raw) -> int | None:
    """The id of one of our requests in a response to it; None for what cannot be one."""
    found = value(raw)
    if isinstance(found, str):
        return int(found) if found.isdecimal() and len(found) < 20 else None
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _ignore(error: RpcError) -> list[ProtocolEvent]:
    return []


def nothing(result: Raw) -> list[ProtocolEvent]:
    """For a request whose result does not matter."""
    return []


def ends(what: str) -> OnError:
    """Handles the error of a request that the session cannot do without: the session ends."""
    return lambda error: [Ended(f"{what}: {error.text}")]


def told(what: str) -> OnError:
    """Handles the error of a request that the session can do without: it becomes an `error` message."""
    return lambda error: [DraftMessage("error", Error(f"{what}: {error.text}", error_code(error)))]
