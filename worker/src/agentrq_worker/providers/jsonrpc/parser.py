"""JSON-RPC lines as typed messages: what Codex app-server and ACP agents share on the reading side.

Owns the outer shape of a line (with or without its ``jsonrpc`` member) and the way from a method to its reader.
Does not own what is written (jsonrpc/protocol.py), nor what any method means (one parser a protocol).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec
from msgspec import Raw

from agentrq.wire.messages import ApprovalResolved, SessionTotal
from agentrq_worker.providers import json_line
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.json_line import ABSENT
from agentrq_worker.providers.parser import NO_TURNS, OutputParser, Reader


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
        """What it says; the details in ``data`` where they say more."""
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
    """Whether the member is there and not null."""
    return len(raw) > 0 and not (len(raw) == 4 and bytes(raw) == b"null")


_error = msgspec.json.Decoder(RpcError).decode
_ASKS = frozenset({"approval_request", "question"})
MethodReader = Callable[[Any, Any, bytes], list[DraftMessage]]
"""A method of a parser that reads one JSON-RPC method: (parser, its params, its line)."""


def read_error(raw: Raw) -> RpcError:
    """The error as far as it can be read."""
    try:
        return _error(raw)
    except (ValueError, RecursionError):
        return RpcError(message=json_line.text(json_line.value(raw)) or None)


class JsonRpcParser(OutputParser):
    """Reads a JSON-RPC peer. ``event`` is the line read last, for the protocol that speaks with the same peer."""

    _decoder = msgspec.json.Decoder(RpcLine)
    _tags = None
    _params: ClassVar[msgspec.json.Decoder[Any]]
    _methods: ClassVar[Mapping[str, MethodReader]]
    _requests: ClassVar[Mapping[str, MethodReader]]

    def __init__(self, total: SessionTotal = NO_TURNS, epoch: int = 1) -> None:
        super().__init__(total, epoch)
        self.event: RpcLine | None = None
        self.driven = False
        """A protocol speaks with the peer and knows which of its requests failed; else this is a recording."""
        self._pending: set[str] = set()

    def receive(self, line: bytes) -> list[DraftMessage]:
        """As `OutputParser.receive`."""
        self.event = None
        return super().receive(line)

    def request_id(self, raw: Raw) -> str:
        """A peer's request id as the session's clients see it: unique over the session's epochs."""
        found = json_line.value(raw)
        name = found if isinstance(found, str) else bytes(raw).decode("utf-8", "replace")
        return name if self._epoch == 1 else f"{self._epoch}.{name}"

    def is_open(self, request_id: str) -> bool:
        """Whether a request waits for its answer."""
        return request_id in self._pending

    def resolved(self, request_id: str) -> bool:
        """A request is answered or withdrawn; False if it was not open."""
        if request_id not in self._pending:
            return False
        self._pending.discard(request_id)
        return True

    def _withdraw(self, raw: Raw) -> list[DraftMessage]:
        """The peer wants no answer any more; nothing, if it had one."""
        request_id = self.request_id(raw)
        if not self.resolved(request_id):
            return []
        return [DraftMessage("approval_resolved", ApprovalResolved(request_id, "withdrawn", "agent"))]

    def _read(self, event: RpcLine, line: bytes) -> list[DraftMessage]:
        self.event = event
        method = event.method
        if isinstance(method, str):
            asked = is_given(event.id)
            reader = (self._requests if asked else self._methods).get(method)
            if reader is None:
                return [DraftMessage(*json_line.unknown(line))]
            try:
                params = self._params.decode(event.params if is_given(event.params) else NO_PARAMS)
            except (ValueError, RecursionError) as error:
                return [DraftMessage(*json_line.malformed(method, str(error), line))]
            if asked:
                request_id = self.request_id(event.id)
                if request_id in self._pending:  # the same line once more
                    return []
                drafts = reader(self, params, line)
                if drafts[-1].type in _ASKS:  # else it was not to be understood
                    self._pending.add(request_id)
                return drafts
            return reader(self, params, line)
        if is_given(event.id) and (len(event.result) or is_given(event.error)):
            return self._response(event, line)
        self.event = None
        return [DraftMessage(*json_line.unknown(line))]

    def _response(self, event: RpcLine, line: bytes) -> list[DraftMessage]:
        """What a response says, by its shape alone: a recording does not tell what was asked."""
        raise NotImplementedError

    _readers: ClassVar[Mapping[type, Reader]] = {RpcLine: _read}
