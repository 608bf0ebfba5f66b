"""Drives a runner by the runner protocol (docs/reference/runner-protocol.md): JSON lines both ways. Pure.

Owns what is written to a runner and the meaning of its own lines. Does not own the meaning of an agent's events (a
parser).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from agentrq.wire.codec import encode
from agentrq.wire.commands import Options
from agentrq.wire.messages import SessionTotal
from agentrq_worker.providers.answers import summarize_answer
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.parser import LineInPieces, OutputParser, Spent, UnknownParser
from agentrq_worker.providers.protocol import (
    AgentProtocol,
    Alive,
    CommandRefused,
    Ended,
    Log,
    ProtocolEvent,
    Ready,
    Sent,
)
from agentrq_worker.providers.refusals import unsupported

_ALIVE: Final = Alive()  # such a runner says so as it starts, to be resumed too


class _Line(msgspec.Struct, gc=False):
    type: Any = None
    event: msgspec.Raw = msgspec.Raw()
    message: Any = None
    accepts: Any = None
    parser: Any = None
    adapter: Any = None  # the older spelling of ``parser``


_TYPE: Final = b'{"type":"'
_OWN: Final = (b'{"type":"agent_', b'{"type":"ready"', b'{"type":"pong"')
_HEAD: Final = max(map(len, _OWN))
_EVENT: Final = b'{"type":"agent_event","event":'
_decode = msgspec.json.Decoder(_Line).decode


class RunnerProtocol(AgentProtocol):
    """One session with one runner; `receive` never raises."""

    def __init__(
        self,
        session_id: str,
        options: Options,
        parser: str,
        make: Callable[[str, SessionTotal], OutputParser],
        total: SessionTotal,
    ) -> None:
        """``make(name, total)`` makes a parser; ``parser`` names the one to begin with."""
        self._session_id = session_id
        self._options = options
        self._make = make
        self._name = parser
        self._parser = make(parser, total)
        self.tells_turn_end = self._parser.ends_each_turn  # a simple runner just exits when it has answered
        self._introduced = False
        self._heard = False
        self._accepts: list[Any] = []  # the commands that the runner accepts beside prompts and the stop
        self._foreign = b"\n"  # no line begins so
        """How the last line of the agent itself began: most lines begin like the one before."""

    def command(self, program: list[str], options: Options) -> list[str]:
        """The program as it is: the first query tells it its options."""
        return program

    def prompt(self, text: str) -> bytes:
        """The line that hands over a prompt; the first one carries the start options."""
        query: dict[str, Any] = {"type": "query", "sessionId": self._session_id, "prompt": text}
        if not self._introduced:
            self._introduced = True
            query |= msgspec.to_builtins(self._options)
            if self._options.config_dir is not None:
                query["claudeConfigDir"] = self._options.config_dir
        return encode(query) + b"\n"

    @property
    def is_ready(self) -> bool:
        """Like `AgentProtocol.is_ready`: a runner that was prompted owes its first line."""
        return self._heard or not self._introduced

    def interrupt(self) -> Sent:
        """The line that ends the running turn, for a runner that accepts it; its `cost` message confirms it."""
        self._require("interrupt")
        return Sent(self._command("interrupt"))

    def answer(self, request_id: str, answer: Any) -> bytes:
        """The line that answers an open request, for a runner that accepts answers."""
        self._require("answer")
        summarize_answer(answer)  # an answer to nothing is refused here
        own_id = self._parser.take_request(request_id)
        if own_id is None:
            raise CommandRefused("no such request is open")
        return self._command("answer", requestId=own_id, answer=answer)

    def withdraw(self, request_id: str) -> bytes:
        """Like `AgentProtocol.withdraw`."""
        own_id = self._parser.take_request(request_id)
        accepted = own_id is not None and "answer" in self._accepts
        return self._command("withdraw", requestId=own_id) if accepted else b""

    def stop(self) -> bytes:
        """The line that asks the runner to end."""
        return self._command("stop")

    def _require(self, command: str) -> None:
        if command not in self._accepts:
            raise CommandRefused(unsupported(command))

    def _command(self, kind: str, **members: Any) -> bytes:
        return encode({"type": kind, "sessionId": self._session_id, **members}) + b"\n"

    def receive(self, line: bytes) -> Sequence[ProtocolEvent]:
        """The events of one line."""
        try:
            # Nearly every line: by itself here, for a call costs as much as the comparison.
            return self._parser.read(line) if line.startswith(self._foreign) else self._read(line)
        except LineInPieces as found:
            return self.receive_pieces(found)

    def _read(self, line: bytes) -> Sequence[ProtocolEvent]:
        # The type tells a runner's own objects from its agent's. It may be any member; where it is the first, as in
        # nearly every line, an agent's line need not be decoded twice.
        if not self._heard:
            self._heard = True
            return [Ready(), *self._read(line)]
        head = line[:_HEAD]
        if len(head) == _HEAD and head.startswith(_TYPE) and not head.startswith(_OWN):
            self._foreign = head
            return self._parser.read(line)
        try:
            said = _decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return self._parser.read(line)
        kind = said.type
        if not isinstance(kind, str):  # not an object of the runner itself
            return self._parser.read(line)
        if kind == "agent_event":
            return self._parser.read(bytes(said.event) or line)
        if kind == "ready":
            self._accepts = said.accepts if isinstance(said.accepts, list) else []
            return []
        if kind == "pong":
            return []
        if kind == "agent_started":
            return [*self._choose(said.parser or said.adapter), *self.tell_unsupported(), _ALIVE]
        if kind == "agent_stopped":
            return [Ended()]
        if kind == "agent_error":
            return [Ended(said.message if isinstance(said.message, str) and said.message else "The runner failed")]
        if kind == "agent_log":
            whole = line.removesuffix(b"\n")
            return [Log(said.message if isinstance(said.message, str) else whole.decode("utf-8", "replace"))]
        return self._parser.read(line)

    def receive_lost(self, head: bytes, size: int) -> list[ProtocolEvent]:
        """Like `AgentProtocol.receive_lost`: a turn whose last line is lost ends all the same."""
        return [*super().receive_lost(head, size), *self._parser.read_lost(head.removeprefix(_EVENT))]

    def end_turn(self, reason: str) -> list[DraftMessage]:
        """Like `AgentProtocol.end_turn`."""
        return self._parser.lost_end(reason)

    def finish_texts(self) -> list[DraftMessage]:
        """Like `AgentProtocol.finish_texts`."""
        return self._parser.finish_texts()

    def spent(self) -> Spent:
        """Like `AgentProtocol.spent`."""
        return self._parser.spent()

    def close(self, reason: str) -> list[DraftMessage]:
        """Like `AgentProtocol.close`."""
        return self._parser.close(reason)

    def _choose(self, name: Any) -> list[DraftMessage]:
        """Reads on with the parser that the runner names (`replay` does); closes what the former one left open."""
        if not isinstance(name, str) or name == self._name:
            return []
        before = self._parser
        try:
            self._parser = self._make(name, before.total)
        except UnknownParser:
            return []  # a name of a newer protocol: the parser in use reads on
        self._name = name
        self.tells_turn_end = self._parser.ends_each_turn
        return before.close()
