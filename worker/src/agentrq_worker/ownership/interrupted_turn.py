"""Reads back from the stream what the last owner of a session left open. Decides nothing about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from agentrq.wire.codec import decode_entry
from agentrq.wire.events import Message
from agentrq.wire.messages import ApprovalRequest, ApprovalResolved, Cost, Error, Prompt, Question, ToolCall, ToolResult
from agentrq_worker.session_types import InterruptedRequest, InterruptedTurn

PAGE: Final = 100
MOST_PAGES: Final = 100
_TYPES: Final = ("tool_", "prompt", "approval_", "question", "cost", "error")
_TELLING: Final = tuple(f'"type":"{name}'.encode() for name in _TYPES)

Entries = list[tuple[bytes, bytes | int]]
"""Ids with messages; where a message is too large, its size in bytes."""


class StoredAnswer(NamedTuple):
    """An answer to a request of an interrupted turn."""

    answer: Any
    by: str


def read_stored_answers(data: str) -> dict[str, StoredAnswer]:
    """The answers as the state keeps them, by request id (`OpenRequests.kept`). Raises ValueError."""
    return msgspec.json.decode(data, type=dict[str, StoredAnswer]) if data else {}


async def read_interrupted_turn(
    read: Callable[[str, int], Awaitable[Entries]], stored_answers: Mapping[str, StoredAnswer] | None = None
) -> InterruptedTurn:
    """Read the turn that was under way, back to the end of the turn before it, at most 10 000 events.

    Its prompt is not where to stop: later prompts may have joined it, and requests of a turn interrupted earlier are
    still open.

    ``read(end, count)`` answers at most ``count`` entries from ``end`` backwards, the newest first; none at the end.
    ``stored_answers`` are the answers that came for requests which no resumed agent has asked again yet.
    """
    cut = InterruptedTurn("", [], [], {})
    answered: set[str] = set()
    seen: set[str] = set()
    end, earlier = "+", False
    for _ in range(MOST_PAGES):
        entries = await read(end, PAGE)
        for place, value in entries:
            end = f"({place.decode()}"
            message = _telling(value)
            if message is None:
                continue
            content = message.content
            if isinstance(content, Cost):
                return cut
            if isinstance(content, Prompt) and not earlier:
                cut = cut._replace(prompt=content.text)
            elif isinstance(content, Error):
                earlier = earlier or content.code == "turn_interrupted"
            elif isinstance(content, ToolResult):
                answered.add(content.tool_use_id)
            elif isinstance(content, ToolCall) and content.tool_use_id not in answered:
                cut.open_calls.append((content.tool_use_id, message.parent_id))
            elif isinstance(content, ApprovalResolved):
                cut.decisions.setdefault(content.request_id, f"{content.decision} by {content.by}")
            elif isinstance(content, ApprovalRequest | Question) and content.request_id not in seen:
                seen.add(content.request_id)
                carried = _carried(content, message.timestamp, place.decode())
                if stored_answers and content.request_id in stored_answers:
                    cut.requests.append(carried._replace(**stored_answers[content.request_id]._asdict()))
                elif content.request_id not in cut.decisions:
                    cut.requests.append(carried)
        if not entries:
            break
    return cut


def _telling(value: bytes | int) -> Message | None:
    """The message, if it may open or close something; the others are not even decoded."""
    if isinstance(value, int) or not any(mark in value[:600] for mark in _TELLING):
        return None
    event: Any = decode_entry(b"message", value)
    return event if isinstance(event, Message) else None


def _carried(content: ApprovalRequest | Question, timestamp: int, cursor: str) -> InterruptedRequest:
    if isinstance(content, ApprovalRequest):
        return InterruptedRequest(content.request_id, content.name, content.input, timestamp, cursor=cursor)
    return InterruptedRequest(content.request_id, "", content.questions, timestamp, cursor=cursor)
