"""What a lane makes of drafts, without a publisher."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agentrq.wire.ids import Cursor
from agentrq.wire.keys import Keys
from agentrq.wire.messages import LIVE_ONLY, Text, TextDelta
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
