"""JSON-RPC lines as typed messages: what Codex app-server and ACP agents share on the reading side. Pure.

Owns the outer shape of a line (with or without its ``jsonrpc`` member), the way from a method to its reader, and which
requests of the agent are open. Does not own what is written (jsonrpc/protocol.py), nor what any method means (one
parser an agent).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from agentrq.wire.messages import ApprovalResolved, Error, SessionTotal
from agentrq_worker.providers import json_line
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.json_line import ABSENT
from agentrq_worker.providers.parser import NO_TURNS, OutputParser, Reader
from agentrq_worker.providers.span_ids import SpanIds


class RpcLine(msgspec.Struct, gc=False):
    """One line of either direction: a request (method, id), a notification (method), a response (id)."""

    id: Raw = ABSENT
    method: Any = None
    params: Raw = ABSENT
    result: Raw = ABSENT
    error: Raw = ABSENT


class RpcError(msgspec.Struct, frozen=True):
    """The ``error`` of a response."""

    code: Any = None
    message: Any = None
    data: Any = None

    @property
    def text(self) -> str:
        """The message, with the details in ``data`` where they say more."""
        said = json_line.text(self.message) or "unknown error"
        details = json_line.mapping(self.data)
        more = (
            json_line.text(details.get("message"))
            or json_line.text(details.get("details"))
            or json_line.text(self.data)
        )
        return f"{said}: {more}" if more and more not in said else said


NO_PARAMS = Raw(b"{}")


def is_given(raw: Raw) -> bool:
    """Whether the member is present and not null."""
    return len(raw) > 0 and not (len(raw) == 4 and bytes(raw) == b"null")


_error = msgspec.json.Decoder(RpcError).decode
_ASKS = frozenset({"approval_request", "question"})
MethodReader = Callable[[Any, Any, bytes], list[DraftMessage]]
"""A method of a parser that reads one JSON-RPC method: (parser, its params, its line)."""


class AgentRequest(NamedTuple):
    """A request of the agent that waits for an answer; ``id`` is the agent's own."""

    id: Raw
    method: str
    params: Raw


def read_error(raw: Raw) -> RpcError:
    """Reads the ``error`` of a response, as far as it can be read."""
    try:
        return _error(raw)
    except (ValueError, RecursionError):
        return RpcError(message=json_line.text(json_line.value(raw)) or None)


class JsonRpcParser(OutputParser):
    """Reads a JSON-RPC agent. ``event`` is the line read last, for the protocol that speaks with the same agent."""

    _decoder = msgspec.json.Decoder(RpcLine)
    _tags = None
    _params: ClassVar[msgspec.json.Decoder[Any]]
    _methods: ClassVar[Mapping[str, MethodReader]]
    _requests: ClassVar[Mapping[str, MethodReader]]

    def __init__(self, total: SessionTotal = NO_TURNS, epoch: int = 1) -> None:
        super().__init__(total, epoch)
        self.event: RpcLine | None = None
        self.driven = False
        """A protocol speaks with the agent and knows which of its requests a response answers; else: a recording."""
        self.open_requests: dict[str, AgentRequest] = {}
        """The agent's requests that wait for an answer, by the ids that clients see (unique in the session)."""
        self.withdrawn: AgentRequest | None = None
        """The request that the agent withdrew last, for the protocol to respond to."""
        self._request_ids = SpanIds(epoch)  # the agent's own: an id's bytes, so that 1 and "1" are two

    def read(self, line: bytes) -> list[DraftMessage]:
        """Like `OutputParser.read`."""
        self.event = None
        return super().read(line)

    def request_id(self, raw: Raw) -> str:
        """The id that clients see of the agent's open request ``raw``; empty if it is not open."""
        return self._request_ids.public(bytes(raw)) or ""

    def close_request(self, request_id: str) -> AgentRequest | None:
        """Closes a request that is answered or withdrawn; returns it, or None if it was not open."""
        self._request_ids.close_public(request_id)
        return self.open_requests.pop(request_id, None)

    def take_request(self, request_id: str) -> str | None:
        """Like `OutputParser.take_request`."""
        request = self.close_request(request_id)
        return None if request is None else _id_text(request.id)

    def handles(self, method: str) -> bool:
        """Whether clients are asked what the agent asks by this method."""
        return method in self._requests

    def _withdraw(self, raw: Raw) -> list[DraftMessage]:
        """The `approval_resolved` of a request that the agent wants no answer to any more; empty if it had one."""
        request_id = self.request_id(raw)
        self.withdrawn = self.close_request(request_id)
        if self.withdrawn is None:
            return []
        return [DraftMessage("approval_resolved", ApprovalResolved(request_id, "withdrawn", "agent"))]

    def _forget_requests(self) -> None:
        """Ends the span of the agent's request ids in a recording, at a turn's end: its answers are not to be seen.

        Where a protocol speaks with the agent, requests stay open until they are answered or withdrawn.
        """
        if not self.driven:
            self.open_requests.clear()
            self._request_ids.close_all()

    def _read(self, event: RpcLine, line: bytes) -> list[DraftMessage]:
        self.event = event
        method = event.method
        if isinstance(method, str):
            is_request = is_given(event.id)
            reader = (self._requests if is_request else self._methods).get(method)
            if reader is None:
                return [DraftMessage(*json_line.unknown(line))]
            try:
                params = self._params.decode(event.params if is_given(event.params) else NO_PARAMS)
            except (ValueError, RecursionError) as error:
                unread = json_line.malformed(method, str(error), line)
                return [DraftMessage(*unread), *self._after_unread(line, unread)]
            return self._request(event, reader, params, line) if is_request else reader(self, params, line)
        if is_given(event.id):
            return self._response(event, line)
        self.event = None
        if is_given(event.error):  # the agent could not read what it was sent
            failed = read_error(event.error)
            return [DraftMessage("error", Error(f"The agent reports an error: {failed.text}", error_code(failed)))]
        return [DraftMessage(*json_line.unknown(line))]

    def _request(self, event: RpcLine, reader: MethodReader, params: Any, line: bytes) -> list[DraftMessage]:
        """Opens a request of the agent, and tells it."""
        request = AgentRequest(event.id, str(event.method), event.params)
        before: list[DraftMessage] = []
        earlier = self.open_requests.get(self.request_id(event.id))
        if earlier is not None:
            if (earlier.method, bytes(earlier.params)) == (request.method, bytes(request.params)):
                return []  # the same line once more
            before = self._withdraw(event.id)  # the agent waits for one answer by this id: the newer request's
            self.withdrawn = None
        own_id = bytes(event.id)
        public = self._request_ids.open(own_id, _id_text(event.id))
        drafts = reader(self, params, line)
        if drafts[-1].type in _ASKS:
            self.open_requests[public] = request
        else:  # it could not be read
            self._request_ids.close(own_id)
        return before + drafts

    def _response(self, event: RpcLine, line: bytes) -> list[DraftMessage]:
        """The messages of a response by its shape alone: a recording does not tell what was asked."""
        raise NotImplementedError

    _readers: ClassVar[Mapping[type, Reader]] = {RpcLine: _read}


def _id_text(raw: Raw) -> str:
    """An agent's request id as a text; never empty."""
    return json_line.text(json_line.value(raw)) or bytes(raw).decode("utf-8", "replace")


def error_code(error: RpcError) -> str | UnsetType:
    """The code of an error as messages carry it."""
    return UNSET if error.code is None else str(error.code)
