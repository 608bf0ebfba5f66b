"""What an adapter is: a pure state machine from the lines of one agent to typed messages, without any IO.

Owns the interface, and what every provider needs: one `tool_call` a call, the calls that are still open, the
sums over the session. Does not own a provider's format (one module each), message ids, cursors or statuses.

What the session learns from drafts: a `cost` ends a turn, `approval_request` and `question` wait for an answer,
`approval_resolved` ends that wait, `init` brings the provider's session id.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec
from msgspec import UNSET, UnsetType

from agentrq.wire.messages import Cost, SessionTotal, ToolCall, ToolResult
from agentrq_worker.providers import json_line
from agentrq_worker.providers.draft_message import DraftMessage

NO_TURNS = SessionTotal()
INTERRUPTED = "Interrupted: the runner ended before the tool answered"


Reader = Callable[[Any, Any, bytes], list[DraftMessage]]
"""A method of an adapter that reads one kind of event: (adapter, event, its line)."""


class OutputParser(ABC):
    """Reads one agent's output for one writer of a session.

    ``total`` is what earlier writers of the session have summed up. ``epoch`` is this writer's: it keeps tool call
    ids apart where a provider counts them anew in each process.
    """

    _decoder: ClassVar[msgspec.json.Decoder[Any]]
    _readers: ClassVar[Mapping[type, Reader]]
    _tags: ClassVar[frozenset[str] | None]

    def __init__(self, total: SessionTotal = NO_TURNS, epoch: int = 1) -> None:
        self.total = total
        """Sums over the session's turns so far, earlier writers' included."""
        self._decode: Callable[[bytes], Any] = self._decoder.decode
        self._epoch = epoch
        self._calls: set[str] = set()
        self._open: dict[str, str | None] = {}  # the calls without a result yet, with the sub-agent that made them

    def receive(self, line: bytes) -> list[DraftMessage]:
        """The messages that one whole line (without or with its newline) brings, in order. Never raises."""
        try:
            if not line.isascii():
                str(line, "utf-8")  # msgspec.Raw does not check it, and subscribers would get the bytes
            event = self._decode(line)
        except (ValueError, RecursionError):
            return self._rescue(line)
        return self._readers[type(event)](self, event, line)

    def _rescue(self, line: bytes) -> list[DraftMessage]:
        found = json_line.rescue(line, self._decode, self._tags)
        if found is None:
            return []
        if isinstance(found, json_line.Unread):
            return [DraftMessage(found.type, found.content)]
        line, event = found
        return self._readers[type(event)](self, event, line)

    def close(self, reason: str = INTERRUPTED) -> list[DraftMessage]:
        """A `tool_result` with ``isError`` and ``reason`` as output for every call that is still open.

        For a turn that was cut: the runner died, so nothing else will answer them.
        """
        drafts = [
            DraftMessage("tool_result", ToolResult(tool_use_id=call, output=reason, is_error=True), parent)
            for call, parent in self._open.items()
        ]
        self._open.clear()
        return drafts

    def _call(self, call: str, name: str, given: Any, parent: str | None, drafts: list[DraftMessage]) -> None:
        if call not in self._calls:
            self._calls.add(call)
            self._open[call] = parent
            drafts.append(DraftMessage("tool_call", ToolCall(tool_use_id=call, name=name, input=given), parent))

    def _result(self, call: str, output: Any, is_error: bool, parent: str | None, drafts: list[DraftMessage]) -> None:
        # A call whose line was lost is answered all the same; a second answer to one call is a repeated line.
        if call in self._open or call not in self._calls:
            self._open.pop(call, None)
            self._calls.add(call)
            drafts.append(
                DraftMessage("tool_result", ToolResult(tool_use_id=call, output=output, is_error=is_error), parent)
            )

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
