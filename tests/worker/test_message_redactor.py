"""A secret that a runner prints in pieces: in no message, whole or live, and no text is changed otherwise."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from agentrq.wire.codec import encode
from agentrq.wire.messages import Cost, Error, Prompt, Text, TextDelta, ThinkingDelta, ToolCall, ToolResult
from agentrq_worker.process.redact import Redactor
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.streamed_text import Block
from agentrq_worker.stream.message_redactor import MessageRedactor
from tests.attacks import attack

KEY = "shop-9f8e7d6c5b47"  # no form of it begins as it ends


def published(redactor: MessageRedactor, *drafts: DraftMessage) -> list[Any]:
    """The contents that would be published, as readers have them."""
    return [msgspec.json.decode(msgspec.json.encode(draft.content)) for draft in redactor.drafts(drafts)]


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[begin:end] for begin, end in itertools.pairwise(places)]


SECRETS = st.text("abAB-é", min_size=8, max_size=12)
WORDS = st.text("abAB-é ", max_size=12)


@attack(
    "printing a secret in pieces: token by token, over the chunks of a text, in a text that a crash cuts",
    "`[redacted]` in the text; a live piece is held back while it ends like the beginning of a secret",
)
@given(
    st.lists(SECRETS, min_size=1, max_size=2),
    st.lists(st.one_of(WORDS, st.integers(0, 1)), max_size=6),
    st.lists(st.integers(0, 99)),
)
def test_no_piece_shows_more_than_the_whole(secrets: list[str], parts: list[str | int], cuts: list[int]) -> None:
    """What live readers have put together is always a beginning of what is kept in the end."""
    text = "".join(secrets[part % len(secrets)] if isinstance(part, int) else part for part in parts)
    redactor, block, live = MessageRedactor(Redactor(secrets)), Block("b"), ""
    whole = Redactor(secrets).text(text)
    for piece in pieces_of(text, cuts):
        for content in published(redactor, block.piece(piece)):
            assert content["offset"] == len(live)
            live += content["text"]
        assert whole.startswith(live)
    assert published(redactor, block.whole()) == [{"text": whole, "blockId": "b"}]
    assert all(secret not in whole for secret in secrets)


def test_text_is_held_back_only_while_it_may_become_a_secret() -> None:
    redactor, block = MessageRedactor(Redactor([KEY])), Block("b", thought=True)
    said = [
        published(redactor, block.piece(piece))
        for piece in ("the shop ", "sh", "op", "-9f", "x ", KEY[:-1], KEY[-1], "!")
    ]
    assert [[content["text"] for content in contents] for contents in said] == [
        ["the shop "], [], [], [], ["shop-9fx "], [], ["[redacted]"], ["!"],
    ]  # fmt: skip


def test_half_a_character_in_a_piece_harms_nothing() -> None:
    redactor = MessageRedactor(Redactor([KEY]))
    given: Any = Raw(rb'"a \ud83d"')
    (piece,) = redactor.drafts([DraftMessage("text_delta", TextDelta(given, "b", 0))])
    assert json.loads(encode(piece.content))["text"].startswith("a ")


def test_the_end_of_a_text_that_was_given_up_is_told() -> None:
    redactor, block = MessageRedactor(Redactor([KEY])), Block("b")
    assert len(published(redactor, block.piece(f"My key is {KEY[:9]}"))) == 1
    (end,) = published(redactor, block.abandon())
    assert end == {"text": "", "blockId": "b", "offset": 10, "abandoned": True}


def test_texts_under_way_do_not_mix() -> None:
    redactor, one, other = MessageRedactor(Redactor([KEY])), Block("1"), Block("2")
    assert published(redactor, one.piece(KEY[:9])) == []
    assert published(redactor, other.piece(KEY[9:])) == [{"text": KEY[9:], "blockId": "2", "offset": 0}]
    assert published(redactor, one.piece(KEY[9:])) == [{"text": "[redacted]", "blockId": "1", "offset": 0}]


def test_a_text_that_begins_anew_under_its_id_has_nothing_of_the_one_before() -> None:
    redactor = MessageRedactor(Redactor([KEY]))
    assert published(redactor, DraftMessage("text_delta", TextDelta(KEY[:9], "b", 0))) == []
    again = published(redactor, DraftMessage("text_delta", TextDelta("anew", "b", 0)))
    assert again == [{"text": "anew", "blockId": "b", "offset": 0}]
    for number in range(1000):  # an agent that never ends a text fills no memory
        published(redactor, DraftMessage("thinking_delta", ThinkingDelta("x", str(number), 0)))


@pytest.mark.parametrize(
    "content",
    [
        Text(f"it is {KEY}"), ToolCall("t", "Bash", {"command": f"curl -H {KEY}"}), ToolResult("t", [{"text": KEY}],
        False),
        Error("cut", "invalid_json", excerpt=KEY), Raw(json.dumps({"any": {KEY: [KEY]}}).encode()),
        msgspec.convert({"text": KEY}, Text),
        Cost(0.0, 1, 1, 1, 1, False, result=KEY),
    ],
)  # fmt: skip
def test_every_kind_of_message_is_redacted(content: Any) -> None:
    redactor = MessageRedactor(Redactor([KEY]))
    for kept in (redactor.content("any", content), *published(redactor, DraftMessage("any", content))):
        said = bytes(kept) if isinstance(kept, Raw) else json.dumps(kept).encode()
        assert KEY.encode() not in said
        assert b"[redacted]" in said


def test_what_a_client_wrote_is_its_own() -> None:
    prompt = Prompt(f"use {KEY}", "c")
    assert MessageRedactor(Redactor([KEY])).content("prompt", prompt) is prompt
