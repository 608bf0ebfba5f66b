"""The interface of a parser: a pure state machine from one agent's output lines to typed messages.

Owns the interface, and what every provider needs: one `tool_call` a call, the calls that are still open, the
sums over the session. Does not own a provider's format (one module each), message ids, cursors or statuses.

What the session learns from drafts: a `cost` ends a turn, `approval_request` and `question` wait for an answer,
`approval_resolved` ends that wait, `init` brings the provider's session id.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from agentrq.wire.messages import Cost, SessionTotal, ToolCall, ToolResult
from agentrq_worker.providers import json_line
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.indented_object import IndentedObject
from agentrq_worker.providers.span_ids import SeenLines, SpanIds

NO_TURNS = SessionTotal()
INTERRUPTED = "Interrupted: the runner ended before the tool answered"

Reader = Callable[[Any, Any, bytes], list[DraftMessage]]
"""A method of a parser that reads one kind of event: (parser, event, its line)."""


class Spent(NamedTuple):
    """What an agent has told of the cost of a turn."""

    cost_usd: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0


class UnknownParser(ValueError):
    """No parser has this name; the message lists those that do."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"Unknown parser {name!r}; parsers are {', '.join(sorted(known))}")
        self.name = name


class LineInPieces(Exception):
    """A line holds its objects among other bytes; each of ``pieces`` is to be read as if it had come alone.

    ``before`` and ``after`` are what was read before and behind them.
    """

    def __init__(
        self, pieces: list[bytes], before: Sequence[DraftMessage] = (), after: Sequence[DraftMessage] = ()
    ) -> None:
        super().__init__(f"{len(pieces)} objects in a line")
        self.pieces = pieces
        self.before = before
        self.after = after


class OutputParser(ABC):
    """Reads one agent's output for one owner of a session.

    ``total`` is what earlier owners of the session have summed up. ``epoch`` is this owner's: it keeps tool call
    ids apart where a provider counts them anew in each process.
    """

    _decoder: ClassVar[msgspec.json.Decoder[Any]]
    _readers: ClassVar[Mapping[type, Reader]]
    _tags: ClassVar[frozenset[str] | None]
    ends_each_turn: ClassVar[bool] = False
    """The agent ends each turn by a line, whatever runs it: a process that exits before it has cut the turn."""
    _turn_ends: ClassVar[frozenset[str]] = frozenset()
    """The types of lines that end a turn: where one of these cannot be read, the turn ends all the same."""

    def __init__(self, total: SessionTotal = NO_TURNS, epoch: int = 1) -> None:
        self.total = total
        """Sums over the session's turns so far, earlier writers' included."""
        self._decode: Callable[[bytes], Any] = self._decoder.decode
        self._epoch = epoch
        self._indented: IndentedObject | None = None
        self._calls = SpanIds(epoch)
        self._parents: dict[str, str | None] = {}  # the sub-agent's call that made each open call, by public ids
        self._call_lines = SeenLines()  # since `close`
        self._result_lines = SeenLines()

    def receive(self, line: bytes) -> list[DraftMessage]:
        """The messages that one whole line (without or with its newline) brings, in order. Never raises."""
        try:
            return self.read(line)
        except LineInPieces as found:
            return [*found.before, *(draft for piece in found.pieces for draft in self.receive(piece)), *found.after]

    def read(self, line: bytes) -> list[DraftMessage]:
        """Like `receive`; raises `LineInPieces`, for a protocol that reads more in a line than the messages."""
        try:
            if not line.isascii():
                str(line, "utf-8")  # msgspec.Raw does not check it, and subscribers would get the bytes
            event = self._decode(line)
        except (ValueError, RecursionError):
            return self._rescue(line)
        return self._readers[type(event)](self, event, line)

    def _rescue(self, line: bytes) -> list[DraftMessage]:
        if self._indented is not None or IndentedObject.begins_with(line):
            return self._collect(line)
        found = json_line.rescue(line, self._decode, self._tags)
        if found is None:
            return []
        if isinstance(found, json_line.Pieces):
            after = [DraftMessage(*json_line.not_an_object(found.rest))] if found.rest else []
            raise LineInPieces(found.lines, after=after)
        if isinstance(found, json_line.Unread):
            return [DraftMessage(found.type, found.content), *self._after_unread(line, found)]
        line, event = found
        return self._readers[type(event)](self, event, line)

    def _after_unread(self, line: bytes, found: json_line.Unread) -> list[DraftMessage]:
        """What follows where ``line`` may have been the one that ends the turn: no other will come."""
        if found.type != "error" or json_line.first_type(line) not in self._turn_ends:
            return []
        at = line.find(b"{")
        if line[:at].strip():  # something was printed before it that did not end its line
            raise LineInPieces([line[:at], line[at:]])
        return self.lost_end("The line that ends the turn could not be read")

    def read_lost(self, head: bytes) -> list[DraftMessage]:
        """The messages for a line over the size limit, of which only the ``head`` is known: the end of its turn."""
        ends = json_line.first_type(head) in self._turn_ends
        return self.lost_end("The line that ends the turn is over the size limit") if ends else []

    def finish_texts(self) -> list[DraftMessage]:
        """The whole of each text whose pieces have come so far: the agent is silent between turns."""
        return []

    def _collect(self, line: bytes) -> list[DraftMessage]:
        """A line of an object that is printed over several lines, or the one that shows that it is none."""
        if self._indented is None:
            self._indented = IndentedObject()
            self._decode = _refuse  # the next lines are seen here, whatever they hold
            return []
        if self._indented.add(line) and not self._indented.is_whole:
            return []
        found = self._indented
        before = self._give_up_indented()
        raise LineInPieces([found.text] if found.is_whole else [line], [] if found.is_whole else before)

    def _give_up_indented(self) -> list[DraftMessage]:
        """Forget an object over several lines that has not come whole; returns its error."""
        lost, self._indented = self._indented, None
        self._decode = self._decoder.decode
        return [] if lost is None else [DraftMessage(*json_line.not_an_object(lost.text))]

    def lost_end(self, reason: str) -> list[DraftMessage]:
        """The end of a turn whose last line is lost: the turn failed, for all that is known of it."""
        return [*self.close(reason), self._cost(0.0, 0, 0, num_turns=1, is_error=True, errors=[reason])]

    def close(self, reason: str = INTERRUPTED) -> list[DraftMessage]:
        """A `tool_result` with ``isError`` and ``reason`` as output for every call that is still open.

        For the end of a turn and of the runner: nothing else will answer them. The agent may use their ids again.
        """
        return self._give_up_indented() + self._end_span(reason, set(self._parents))

    def _close_calls_of_turn(self, reason: str) -> list[DraftMessage]:
        """Like `close`, at a turn's end; calls of a sub-agent whose own call was answered go on in the background."""
        of_turn: set[str] = set()
        for call, parent in self._parents.items():  # a call stands behind the one that made it
            if parent is None or parent in of_turn:
                of_turn.add(call)
        return self._end_span(reason, of_turn)

    def _end_span(self, reason: str, calls: set[str]) -> list[DraftMessage]:
        """Like `close` does it for these open ``calls`` (public ids); others stay open."""
        drafts = [
            DraftMessage("tool_result", ToolResult(tool_use_id=call, output=reason, is_error=True), parent)
            for call, parent in self._parents.items()
            if call in calls
        ]
        self._calls.close_all(calls)
        self._parents = {call: parent for call, parent in self._parents.items() if call not in calls}
        self._call_lines = SeenLines()
        self._result_lines = SeenLines()
        return drafts

    def _call(
        self, own_id: str, name: str, given: Any, parent: str | None, drafts: list[DraftMessage], line: bytes | None
    ) -> None:
        """Adds the `tool_call` of the agent's call ``own_id``; ``line`` None where it cannot be a repeated one.

        Nothing for a call that is open already, and for a line that was read before in this turn.
        """
        repeated = line is not None and self._call_lines.see(own_id, line)
        if repeated or own_id in self._calls:
            return
        public = self._calls.open(own_id, own_id)
        self._parents[public] = parent
        drafts.append(DraftMessage("tool_call", ToolCall(tool_use_id=public, name=name, input=given), parent))

    def _result(
        self, own_id: str, output: Any, is_error: bool, parent: str | None, drafts: list[DraftMessage], line: bytes
    ) -> None:
        """Adds the `tool_result` of the agent's call ``own_id``, told by ``line``.

        Nothing for a line that was read before in this turn, and for a call's second result. A result without a call
        (its line was lost, or the turn ended before the tool did) has an id of its own and is published all the same.
        """
        repeated = self._result_lines.see(own_id, line)
        if repeated:
            return
        public = self._calls.close(own_id)
        if public is None:
            if repeated is False:
                return
            public = self._calls.give(own_id)
        self._parents.pop(public, None)
        drafts.append(
            DraftMessage("tool_result", ToolResult(tool_use_id=public, output=output, is_error=is_error), parent)
        )

    def spent(self) -> Spent:
        """What the agent has told of the cost of the turn under way; nothing from agents that tell it at the end only.

        A turn that is cut has no other figures.
        """
        return Spent()

    def take_request(self, request_id: str) -> str | None:
        """Closes the agent's open request that clients know by this id; returns the agent's own id for it.

        None if it is not open, and from parsers of agents that ask nothing.
        """
        return None

    def _call_id(self, own_id: str) -> str:
        """The public id of the call that the agent means by ``own_id``: the open one, else the one it made last."""
        return self._calls.latest(own_id) or own_id

    def _cost(
        self,
        cost_usd: float,
        input_tokens: int,
        output_tokens: int,
        num_turns: int,
        is_error: bool,
        duration_ms: int = 0,
        result: str | UnsetType = UNSET,
        errors: list[str] | UnsetType = UNSET,
    ) -> DraftMessage:
        before = self.total
        self.total = SessionTotal(
            cost_usd=before.cost_usd + cost_usd,
            input_tokens=before.input_tokens + input_tokens,
            output_tokens=before.output_tokens + output_tokens,
            num_turns=before.num_turns + num_turns,
        )
        content = Cost(
            total_cost_usd=cost_usd,
            duration_ms=duration_ms,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            num_turns=num_turns,
            is_error=is_error,
            result=result,
            errors=errors,
            session_total=self.total,
        )
        return DraftMessage("cost", content)


def _refuse(line: bytes) -> Any:
    """The decoder while an object over several lines is collected: every line takes the slow way."""
    raise ValueError("a line of an object over several lines")
