"""The client's side of JSON-RPC over lines: what Codex app-server and ACP agents share on the writing side. Pure.

Owns request ids, pending requests, answers to the peer's requests, and the prompt that waits for the handshake. Does
not own any method (app_protocol.py, acp/protocol.py) nor what the peer's lines mean (an `JsonRpcParser`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

from msgspec import Raw

from agentrq.wire.codec import encode
from agentrq.wire.commands import Options
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.jsonrpc.parser import JsonRpcParser, RpcError, RpcLine, is_given, read_error
from agentrq_worker.providers.protocol import AgentProtocol, CommandRefused, Ended, ProtocolEvent, Write

CLIENT: Final = {"name": "agentrq", "title": "agentrq", "version": "1"}
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602

Answered: TypeAlias = Callable[[Raw], list[ProtocolEvent]]
Failed: TypeAlias = Callable[[RpcError], list[ProtocolEvent]]


class PeerRequest(NamedTuple):
    """A request of the peer that waits for somebody's answer."""

    id: Raw
    method: str
    params: Raw


class JsonRpcProtocol(AgentProtocol):
    """One session with a JSON-RPC peer; `receive` never raises."""

    version: bool
    """Whether lines carry ``"jsonrpc": "2.0"``."""

    def __init__(self, options: Options, parser: JsonRpcParser) -> None:
        self._options = options
        self._parser = parser
        parser.driven = True
        self._next_id = 1
        self._waiting: dict[int, tuple[Answered, Failed]] = {}
        self._asked: dict[str, PeerRequest] = {}
        self._ready = False
        self._prompted = False
        self._early: str | None = None  # the prompt that came before the handshake was over
        self._held: list[DraftMessage] = []

    def command(self, program: list[str], options: Options) -> list[str]:
        """The program as it is: it is told its options in the handshake."""
        return program

    def prompt(self, text: str) -> bytes:
        """The request of a turn, once the handshake is over."""
        self._prompted = True
        if not self._ready:
            self._early = text if self._early is None else f"{self._early}\n\n{text}"
            return b""
        return self._begin_turn(text)

    def receive(self, line: bytes) -> list[ProtocolEvent]:
        """What one line means, and what is to be written for it."""
        said: list[ProtocolEvent] = []
        drafts = self._parser.receive(line)
        if not self._prompted:
            # Nobody has asked for anything yet: an `init` would be taken for the beginning of a turn.
            self._held += [draft for draft in drafts if draft.type == "init"]
            drafts = [draft for draft in drafts if draft.type != "init"]
        elif self._held:
            said += self._held
            self._held = []
        said += drafts
        event = self._parser.event
        if event is not None:
            said += self._handle(event)
        return said

    def close(self, reason: str) -> list[DraftMessage]:
        """What is left to say when the runner is gone."""
        return self._parser.close(reason)

    def answer(self, request_id: str, answer: Any) -> bytes:
        """The result of an open request of the peer."""
        asked = self._asked.get(request_id)
        if asked is None or not self._parser.is_open(request_id):
            raise CommandRefused("no such request is open")
        result = self._reply(asked, answer)
        del self._asked[request_id]
        self._parser.resolved(request_id)
        return self._line({"id": asked.id, "result": result})

    # -- for the protocols

    @abstractmethod
    def _begin_turn(self, text: str) -> bytes:
        """The request of a turn."""

    @abstractmethod
    def _reply(self, asked: PeerRequest, answer: Any) -> Any:
        """The result for a peer's request. Raises `CommandRefused` for an answer that does not fit it."""

    def _notified(self, event: RpcLine) -> list[ProtocolEvent]:
        """What is to be done for a notification; what it says is told by the parser."""
        return []

    def _request(self, method: str, params: Any, answered: Answered, failed: Failed) -> bytes:
        request_id, self._next_id = self._next_id, self._next_id + 1
        self._waiting[request_id] = (answered, failed)
        return self._line({"id": request_id, "method": method, "params": params})

    def _notify(self, method: str, params: Any = None) -> bytes:
        return self._line({"method": method} if params is None else {"method": method, "params": params})

    def _is_ready(self) -> list[ProtocolEvent]:
        """The handshake is over: what waited for it goes out."""
        self._ready = True
        early, self._early = self._early, None
        return [] if early is None else [Write(self._begin_turn(early))]

    def _line(self, members: dict[str, Any]) -> bytes:
        head = {"jsonrpc": "2.0"} if self.version else {}
        return encode(head | members) + b"\n"

    # -- lines of the peer

    def _handle(self, event: RpcLine) -> list[ProtocolEvent]:
        if not isinstance(event.method, str):
            return self._answered(event)
        if not is_given(event.id):
            return self._notified(event)
        request_id = self._parser.request_id(event.id)
        if not self._parser.is_open(request_id):
            # Unknown, or not to be read: without an answer the agent would wait for ever.
            error = {"code": METHOD_NOT_FOUND, "message": f"Not supported by this client: {event.method}"}
            return [Write(self._line({"id": event.id, "error": error}))]
        self._asked[request_id] = PeerRequest(event.id, event.method, event.params)
        return []

    def _answered(self, event: RpcLine) -> list[ProtocolEvent]:
        try:
            waiting = self._waiting.pop(int(bytes(event.id)), None)
        except ValueError:
            return []
        if waiting is None:
            return []
        answered, failed = waiting
        return failed(read_error(event.error)) if is_given(event.error) else answered(event.result)


def nothing(result: Raw) -> list[ProtocolEvent]:
    """For a request whose result does not matter."""
    return []


def ends(what: str) -> Failed:
    """For a request without which there is no session."""
    return lambda error: [Ended(f"{what}: {error.text}")]
