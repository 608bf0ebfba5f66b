"""What a lane makes of drafts, without a publisher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentrq.wire.ids import Cursor
from agentrq.wire.keys import Keys
from agentrq.wire.messages import LIVE_ONLY, Cost, Text, TextDelta, ThinkingDelta
from agentrq_worker.providers import json_line
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.redis_clock import RedisClock
from agentrq_worker.stream.buffer_budget import BufferBudget
from agentrq_worker.stream.event_log import EventLog


@pytest.fixture
def lane(tmp_path: Path) -> EventLog:
    return EventLog(
        Keys("agentrq"),
        "s",
        Cursor(3, 7),
        {"claim": "mine"},
        BufferBudget(1 << 20, 0, tmp_path),
        lambda _: None,
        RedisClock(),
    )


def test_kept_and_live_messages_are_counted_apart_and_keep_their_order(lane: EventLog) -> None:
    drafts = [
        DraftMessage("text_delta", TextDelta("a", "b", 0)),
        DraftMessage("text_delta", TextDelta("b", "b", 1)),
        DraftMessage("text", Text("ab", "b")),
        DraftMessage("text_delta", TextDelta("c", "b2", 0)),
        DraftMessage("text", Text(json_line.passed(msgspec.Raw(b'"c"')), "b2")),
    ]
    lane.add_messages(drafts[:3])
    lane.add_messages(drafts[3:])
    found = [msgspec.json.decode(json) for entry in lane.waiting.peek(100, 1 << 20) for json in entry.jsons]
    assert [message["id"] for message in found] == ["3-d1", "3-d2", "3-8", "3-d3", "3-9"]
    assert [message.get("cursor") for message in found] == [None, None, "3-8", None, "3-9"]
    assert [message["type"] in LIVE_ONLY for message in found] == [True, True, False, True, False]
    assert [message["content"]["text"] for message in found] == ["a", "b", "ab", "c", "c"]


@pytest.mark.parametrize(
    "draft", [DraftMessage("text_delta", TextDelta("a\ud800", "b", 0)), DraftMessage("text", Text("a\ud800"))]
)
def test_what_json_in_utf8_has_no_place_for_is_replaced(lane: EventLog, draft: DraftMessage) -> None:
    lane.add_messages([draft, draft])
    (entry,) = lane.waiting.peek(100, 1 << 20)
    assert [msgspec.json.decode(json)["content"]["text"] for json in entry.jsons] == ["a\ufffd"] * 2


def repeated(lane: EventLog) -> list[dict[str, Any]]:
    """What is published once more."""
    lane.waiting.clear()
    lane.repeat_open_texts()
    return [msgspec.json.decode(json) for entry in lane.waiting.peek(1000, 1 << 30) for json in entry.jsons]


def test_texts_under_way_are_repeated_as_one_delta_each(lane: EventLog) -> None:
    pieces = [DraftMessage("text_delta", TextDelta("ab", "b", 2 * number), "toolu_1") for number in range(2000)]
    thought = DraftMessage("thinking_delta", ThinkingDelta(msgspec.Raw(rb'"a \ud83d"'), "t", 0))  # type: ignore[arg-type]
    lane.add_messages([*pieces, thought])
    text, thinking = repeated(lane)
    assert (text["type"], text["parentId"], text["id"]) == ("text_delta", "toolu_1", "3-d2002")
    assert text["content"] == {"text": "ab" * 2000, "blockId": "b", "offset": 0}
    assert thinking["content"] == {"text": "a \ufffd", "blockId": "t", "offset": 0}
    assert "cursor" not in text


@pytest.mark.parametrize(
    "end",
    [
        DraftMessage("text", Text("whole", "b")),
        DraftMessage("text_delta", TextDelta("", "b", 3, abandoned=True)),
        DraftMessage("cost", Cost(0.0, 1, 1, 1, 1, False)),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_text_that_has_ended_is_not_repeated(lane: EventLog, end: DraftMessage, at_once: bool) -> None:
    lane.add_messages([DraftMessage("text_delta", TextDelta("who", "b", 0))])
    assert len(repeated(lane)) == 1
    if at_once or end.type == "text_delta":
        lane.add_messages([end])
    else:
        lane.add_message(end.type, end.content)
    assert repeated(lane) == []


def test_a_text_without_end_fills_no_memory(lane: EventLog) -> None:
    for number in range(1100):
        lane.add_messages([DraftMessage("text_delta", TextDelta("x" * 1000, "b", 1000 * number)) for _ in range(2)])
    lane.add_messages([DraftMessage("text_delta", TextDelta("y", f"short {number}", 0)) for number in range(10)])
    assert [each["content"]["text"] for each in repeated(lane)] == ["y"] * 10
    for number in range(1000):
        lane.add_messages([DraftMessage("text_delta", TextDelta("z", f"many {number}", 0))])
    assert len(repeated(lane)) == 64
