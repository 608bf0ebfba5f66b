"""The reducer from events to a transcript: Python's and JavaScript's draw the same, whatever was cut."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from agentrq.client.transcript import DEEPEST, Transcript
from agentrq.wire.codec import decode_entry, decode_messages, encode
from tests.clients.node import CLIENT, needs_node, run_node
from tests.worker.recordings import TRANSCRIPTS

GOLDEN = sorted((TRANSCRIPTS / "golden").glob("*.messages.ndjson"))
Events = list[dict[str, Any]]


def event(cursor: str, **members: Any) -> dict[str, Any]:
    epoch, seq = map(int, cursor.split("-"))
    return {"cursor": cursor, "sessionId": "s", "timestamp": 1000 * epoch + seq} | members


def message(cursor: str, type: str, content: dict[str, Any], **members: Any) -> dict[str, Any]:
    return event(cursor, id=cursor, type=type, content=content, **members)


def piece(text: str, offset: int, block: str = "b", **content: Any) -> dict[str, Any]:
    about = {"text": text, "offset": offset, "blockId": block} | content
    return {"sessionId": "s", "id": "d", "timestamp": 1, "type": "text_delta", "content": about}


def recorded(path: Any) -> Events:
    """A golden transcript as a worker publishes it: statuses and receipts around it, deltas without a cursor."""
    events = [event("0-1", status="queued"), event("1-1", status="starting"), event("1-2", status="running")]
    receipt = {"commandId": "c", "command": "prompt", "outcome": "rejected", "reason": "no"}
    seq = 3
    for line in path.read_text().split("\n")[:-1]:
        said = json.loads(line)
        made = message(f"1-{seq}", **said) if "delta" not in said["type"] else piece("", 0) | said
        seq += "cursor" in made
        events.append(made)
    return [*events, event("2-1", **receipt), event("2-2", status="done", reason="stopped")]


def decoded(one: dict[str, Any]) -> Any:
    data = json.dumps(one).encode()
    if "content" in one:
        return decode_messages(b"[" + data + b"]")[0]
    return decode_entry(b"status" if "status" in one else b"receipt", data)


def drawn(events: Events) -> dict[str, Any]:
    """Python's transcript as JSON."""
    transcript = Transcript()
    for one in events:
        transcript.apply(decoded(one))
    shown: dict[str, Any] = json.loads(
        encode(
            {
                "entries": transcript.entries,
                "open": list(transcript.open.values()),
                "waiting": list(transcript.waiting),
                "cursor": str(transcript.cursor) if transcript.cursor else None,
                "status": transcript.status,
            }
        )
    )
    return shown


def drawn_by_js(lists: Sequence[Events]) -> list[dict[str, Any]]:
    """JavaScript's transcripts of several lists of events."""
    given = "".join(json.dumps(events) + "\n" for events in lists)
    return [json.loads(line) for line in run_node(CLIENT / "tests" / "draw.js", given=given).split("\n")[:-1]]


def with_cuts(events: Events, dice: random.Random) -> Events:
    """The same as a reader gets it whose connection is cut: some events again, live pieces lost or from their start."""
    delivered: Events = []
    start = 0
    while start < len(events):
        end = min(len(events), start + dice.randrange(1, 12))
        drops = dice.random() < 0.4
        delivered += [one for one in events[start:end] if "cursor" in one or not drops]
        start = end if dice.random() < 0.6 else max(0, end - dice.randrange(1, 5))
        if start < end:
            end = start
    return delivered


@needs_node
def test_both_draw_every_golden_transcript_alike_also_cut_anywhere() -> None:
    dice = random.Random(20)
    whole = [recorded(path) for path in GOLDEN]
    cut = [with_cuts(events, dice) for events in whole for _ in range(10)]
    expected = [drawn(events) for events in whole]
    assert drawn_by_js(whole) == expected
    assert all(one["open"] == [] and len(one["entries"]) > 3 for one in expected)
    for place, (events, by_js) in enumerate(zip(cut, drawn_by_js(cut), strict=True)):
        assert drawn(events) == expected[place // 10] == by_js


MADE: dict[str, tuple[Events, str]] = {
    "half a text, its pieces twice": (
        [piece("half 🦊", 0), piece("half 🦊", 0), piece("🦊 written", 5), piece("lost", 99)],
        "half 🦊 written",
    ),
    "a text that was joined in its middle": ([piece("later", 50), piece("all of it so far", 0)], "all of it so far"),
    "an abandoned text": ([piece("half", 0), piece("", 4, abandoned=True), piece("late", 0)], ""),
    "a text that came whole, and a late piece": (
        [piece("half", 0), message("1-1", "text", {"text": "half", "blockId": "b"}), piece("late", 0)],
        "",
    ),
    "a text whose worker died": ([event("1-1", status="running"), piece("half", 0), event("2-1", status="idle")], ""),
}


@needs_node
def test_both_show_half_written_texts_alike() -> None:
    lists = [events for events, _ in MADE.values()]
    assert drawn_by_js(lists) == [drawn(events) for events in lists]


@pytest.mark.parametrize("name", MADE)
def test_a_half_written_text_is_shown_once_and_whole(name: str) -> None:
    events, expected = MADE[name]
    assert "".join(block["text"] for block in drawn(events)["open"]) == expected


def request(cursor: str, name: str) -> dict[str, Any]:
    return message(cursor, "approval_request", {"requestId": name, "name": "Bash", "input": {"command": "ls"}})


HOSTILE: list[Events] = [
    [message("1-1", "tool_result", {"toolUseId": "none", "output": None, "isError": True})],
    [message("1-1", "approval_resolved", {"requestId": "none", "decision": "allow", "by": "alice"})],
    [
        request("1-1", "one"),
        request("1-2", "two"),
        message("1-3", "approval_resolved", {"requestId": "one", "decision": "deny", "by": "bob"}),
    ],
    [message("1-1", "tool_call", {"toolUseId": "own", "name": "Task", "input": {}}, parentId="own")],
    [
        message(f"1-{at}", "tool_call", {"toolUseId": str(at), "name": "Task", "input": {}}, parentId=str(at - 1))
        for at in range(1, 40)
    ],
    [message("1-1", "surprise", {"any": [1, None, {"thing": "é"}]}), message("1-2", "unknown", {})],
    [event("1-9", status="idle"), event("1-8", status="running"), event("1-10", status="waiting")],
]


@needs_node
def test_both_draw_what_agents_should_not_say_alike() -> None:
    assert drawn_by_js(HOSTILE) == [drawn(events) for events in HOSTILE]


def test_sub_agents_within_sub_agents_stop_nesting() -> None:
    (entry,) = drawn(HOSTILE[4])["entries"]
    depth = 1
    while children := entry.get("children"):
        entry, depth = children[0], depth + 1
    assert depth == DEEPEST


def test_an_answered_request_waits_no_more_and_says_by_whom() -> None:
    shown = drawn(HOSTILE[2])
    assert shown["waiting"] == ["two"]
    assert shown["entries"][0]["resolved"] == {"decision": "deny", "by": "bob", "timestamp": 1003}
