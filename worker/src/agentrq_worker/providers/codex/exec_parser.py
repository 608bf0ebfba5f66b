"""Reads `codex exec --json` as typed messages.

Owns the mapping of its output lines; their shapes are those of codex-rs/exec (`exec_events.rs`) and of the
recordings in tests/transcripts. Does not own how codex is started or resumed.

What the format asks of a reader: one process is one turn and counts its items from 0; an `item.started` may lack its
`item.completed`; `usage` is the thread's running sum, which a resumed process goes on from; there is no cost in USD.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from msgspec import UNSET

from agentrq.wire.messages import Error, Init, SessionTotal, StatusReport, Text, Thinking
from agentrq_worker.providers import json_line
from agentrq_worker.providers.codex.exec_wire import (
    CollabInput,
    Item,
    ItemCompleted,
    ItemStarted,
    ItemUpdated,
    PlanDelta,
    StreamError,
    ThreadStarted,
    TurnCompleted,
    TurnFailed,
    TurnStarted,
    decoder,
    tags,
)
from agentrq_worker.providers.codex.tool_inputs import ChangeInput, CommandInput, SearchInput
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.parser import NO_TURNS, OutputParser, Reader

_UNANSWERED = "Interrupted: the turn ended before the tool answered"
_RETRY = re.compile(r"Reconnecting\b.*\d+/\d+", re.DOTALL)
_TOOLS = frozenset({"command_execution", "file_change", "mcp_tool_call", "web_search", "collab_tool_call"})
_BAD_STATUSES = frozenset({"failed", "declined"})


class CodexExecParser(OutputParser):
    """Reads `codex exec --json`."""

    _decoder = decoder
    _tags = tags
    _turn_ends = frozenset({"turn.completed", "turn.failed"})

    def __init__(self, total: SessionTotal = NO_TURNS, epoch: int = 1) -> None:
        super().__init__(total, epoch)
        self._whole: set[int] = set()  # items of the batch that are texts, thoughts, warnings
        self._todo = ""
        self._thread: Any = None
        # A recovered session resumes its thread, whose sum is what the session has had of it so far.
        self._usage = (total.input_tokens, total.output_tokens)

    def _thread_started(self, event: ThreadStarted, line: bytes) -> list[DraftMessage]:
        drafts = self._end_batch()
        if self._thread is not None and event.thread_id != self._thread:
            self._usage = (0, 0)
        self._thread = event.thread_id
        drafts.append(DraftMessage("init", Init(provider_session_id=json_line.optional(event.thread_id))))
        return drafts

    def _end_batch(self) -> list[DraftMessage]:
        """Closes what is open: the next items may have the same ids."""
        drafts = self.close(_UNANSWERED)
        self._whole.clear()
        self._todo = ""
        return drafts

    def _item_started(self, event: ItemStarted, line: bytes) -> list[DraftMessage]:
        item = event.item
        kind = item.type
        if kind in _TOOLS:
            return self._tool(item, line)
        if kind == "todo_list":
            return self._todo_list(item)
        return [] if kind in _WHOLE else [DraftMessage(*json_line.unknown(line))]

    def _item_updated(self, event: ItemUpdated, line: bytes) -> list[DraftMessage]:
        kind = event.item.type
        if kind == "todo_list":
            return self._todo_list(event.item)
        return [] if kind in _TOOLS or kind in _WHOLE else [DraftMessage(*json_line.unknown(line))]

    def _item_completed(self, event: ItemCompleted, line: bytes) -> list[DraftMessage]:
        item = event.item
        kind = item.type
        if kind in _TOOLS:
            return self._tool(item, line, done=True)
        if kind == "todo_list":
            return self._todo_list(item)
        if kind not in _WHOLE:
            return [DraftMessage(*json_line.unknown(line))]
        words = item.message if kind == "error" else item.text
        if not json_line.is_text(words):
            return [DraftMessage(*json_line.malformed(f"{kind} item", "its text is missing", line))]
        if hash(line) in self._whole:  # the same line once more
            return []
        self._whole.add(hash(line))
        passed = json_line.passed(words)
        if kind == "agent_message":
            return [DraftMessage("text", Text(text=passed))]
        if kind == "reasoning":
            return [DraftMessage("thinking", Thinking(text=passed))]
        # An error item is a warning ("non-fatal", exec_events.rs); what fails comes as an event of type error.
        return [DraftMessage("status", StatusReport(subtype="warning" if kind == "error" else "plan", message=passed))]

    def _tool(self, item: Item, line: bytes, done: bool = False) -> list[DraftMessage]:
        if item.id is None:
            return [DraftMessage(*json_line.malformed(f"{item.type} item", "it has no id", line))]
        drafts: list[DraftMessage] = []
        self._call(item.id, _name(item), _input(item), None, drafts, line)
        if done:
            self._result(item.id, _output(item), _failed(item), None, drafts, line)
        return drafts

    def _todo_list(self, item: Item) -> list[DraftMessage]:
        steps = [json_line.mapping(step) for step in item.items] if isinstance(item.items, list) else []
        open_steps = [step for step in steps if step.get("completed") is not True]
        message = f"{len(steps) - len(open_steps)} of {len(steps)} done"
        if open_steps:
            message += f"; next: {json_line.text(open_steps[0].get('text'))}"
        if message == self._todo:
            return []
        self._todo = message
        return [DraftMessage("status", StatusReport(subtype="todo_list", message=message))]

    def _turn_completed(self, event: TurnCompleted, line: bytes) -> list[DraftMessage]:
        drafts = self._end_batch()
        usage = json_line.mapping(event.usage)
        now = (json_line.whole(usage.get("input_tokens")), json_line.whole(usage.get("output_tokens")))
        if now == (0, 0):  # it does not say: the sum is where it was
            drafts.append(self._cost(0.0, 0, 0, num_turns=1, is_error=False))
            return drafts
        before, self._usage = self._usage, now
        # No turn is free, so an unmoved or lower sum is that of another thread, or of one turn.
        goes_on = now != before and now[0] >= before[0] and now[1] >= before[1]
        spent = (now[0] - before[0], now[1] - before[1]) if goes_on else now
        drafts.append(self._cost(0.0, spent[0], spent[1], num_turns=1, is_error=False))
        return drafts

    def _turn_failed(self, event: TurnFailed, line: bytes) -> list[DraftMessage]:
        drafts = self._end_batch()
        error = json_line.text(json_line.mapping(event.error).get("message")) or "The turn failed"
        drafts.append(self._cost(0.0, 0, 0, num_turns=1, is_error=True, errors=[error]))
        return drafts

    def _error(self, event: StreamError, line: bytes) -> list[DraftMessage]:
        message = json_line.text(json_line.value(event.message)) or "unknown"
        if _RETRY.match(message):
            return [DraftMessage("status", StatusReport(subtype="retry", message=message))]
        return [DraftMessage("error", Error(message=message))]

    def _silent(self, event: TurnStarted | PlanDelta, line: bytes) -> list[DraftMessage]:
        return []

    _readers: ClassVar[Mapping[type, Reader]] = {
        ThreadStarted: _thread_started,
        TurnStarted: _silent,
        TurnCompleted: _turn_completed,
        TurnFailed: _turn_failed,
        ItemStarted: _item_started,
        ItemUpdated: _item_updated,
        ItemCompleted: _item_completed,
        PlanDelta: _silent,
        StreamError: _error,
    }


_WHOLE = frozenset({"agent_message", "reasoning", "plan", "error"})
"""The items that are published whole, when they are completed."""


def _name(item: Item) -> str:
    """The tool's name: the item's type, or the usual name of an MCP server's tool."""
    if item.type == "mcp_tool_call":
        return f"mcp__{json_line.text(item.server)}__{json_line.text(item.tool)}"
    if item.type == "collab_tool_call":
        return json_line.text(item.tool) or "collab_tool_call"
    return item.type or ""


def _input(item: Item) -> Any:
    if item.type == "command_execution":
        return CommandInput(json_line.passed_or(item.command, ""))
    if item.type == "file_change":
        return ChangeInput(json_line.passed_or(item.changes, []))
    if item.type == "web_search":
        return _search(item)
    if item.type == "collab_tool_call":
        return CollabInput(json_line.passed_or(item.receiver_thread_ids, []), json_line.passed_or(item.prompt, UNSET))
    return json_line.passed_or(item.arguments, {})


def _output(item: Item) -> Any:
    if item.type == "command_execution":
        return json_line.passed_or(item.aggregated_output, "")
    if item.type == "web_search":
        return _search(item)
    if item.type == "collab_tool_call":
        return json_line.passed_or(item.agents_states, {})
    if item.type == "file_change":
        return json_line.text(item.status) or "completed"
    error = json_line.passed_or(item.error, None)
    if error is not None:
        return json_line.optional(json_line.mapping(json_line.value(item.error)).get("message")) or error
    return json_line.passed_or(item.result, "")


def _search(item: Item) -> SearchInput:
    return SearchInput(json_line.passed_or(item.query, ""), json_line.passed_or(item.action, UNSET))


def _failed(item: Item) -> bool:
    if json_line.text(item.status) in _BAD_STATUSES or json_line.passed_or(item.error, None) is not None:
        return True
    return item.exit_code is not None and item.exit_code != 0
