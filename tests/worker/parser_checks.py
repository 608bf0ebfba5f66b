"""What holds of every draft, whatever line it came of; and short ways to look into drafts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from agentrq.wire.codec import decode_messages, encode
from agentrq.wire.events import Message, make_message
from agentrq.wire.messages import TYPES
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.parser import OutputParser
from agentrq_worker.providers.registry import make_parser


def as_json(draft: DraftMessage) -> dict[str, Any]:
    """The draft as it stands on the wire, without a place."""
    found: dict[str, Any] = {"type": draft.type}
    if draft.parent_id is not None:
        found["parentId"] = draft.parent_id
    found["content"] = msgspec.json.decode(encode(draft.content))
    return found


def read_back(draft: DraftMessage) -> Message:
    """The message that a subscriber makes of the draft."""
    message = make_message(
        session_id="s",
        id="m",
        type=draft.type,
        timestamp=1,
        content=draft.content,
        parent_id=draft.parent_id,
    )
    encoded = msgspec.json.encode([message])
    assert b"\n" not in encoded
    (found,) = decode_messages(encoded)
    return found


def check(draft: DraftMessage) -> None:
    """A subscriber gets the draft as the type it claims to be, members absent rather than null."""
    found = read_back(draft)
    assert found.type == draft.type
    assert found.parent_id == draft.parent_id
    if draft.type == "unknown":
        assert isinstance(found.content, dict)
        return
    assert type(found.content) is TYPES[draft.type]
    assert type(draft.content) is TYPES[draft.type]
    members = msgspec.json.decode(msgspec.json.encode(draft.content))
    assert None not in members.values()


def receive_all(parser: OutputParser, *received: bytes | dict[str, Any]) -> list[DraftMessage]:
    """The drafts of several lines, given as bytes or as objects; each is checked."""
    drafts = []
    for line in received:
        drafts += parser.receive(line if isinstance(line, bytes) else msgspec.json.encode(line))
    for draft in drafts:
        check(draft)
    return drafts


def contents(drafts: list[DraftMessage], *types: str) -> list[dict[str, Any]]:
    """The contents of the drafts of these types (of all, if none is named), as on the wire."""
    return [as_json(draft)["content"] for draft in drafts if not types or draft.type in types]


def check_all(drafts: Sequence[DraftMessage]) -> None:
    for draft in drafts:
        check(draft)
    calls = [content["toolUseId"] for content in contents(list(drafts), "tool_call")]
    results = [content["toolUseId"] for content in contents(list(drafts), "tool_result")]
    assert len(calls) == len(set(calls))
    assert len(results) == len(set(results))
    assert set(calls) <= set(results), "close answers what was left open"


def run_parser(name: str, lines: Sequence[bytes]) -> list[DraftMessage]:
    reader = make_parser(name)
    drafts = [draft for line in lines for draft in reader.receive(line)]
    drafts += reader.close()
    check_all(drafts)
    return drafts
