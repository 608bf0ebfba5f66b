"""Events in words and texts in columns, without a terminal: nothing is lost, doubled or obeyed."""

import itertools
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrq.cli.event_text import LINE_CHARS, RESULT_LINES, clock, describe, dollars
from agentrq.cli.sanitize import one_line, sanitize_text
from agentrq.cli.terminal_renderer import Column, TerminalView, cells
from agentrq.wire.codec import decode_entry, encode
from agentrq.wire.events import Event, Message, make_message
from agentrq.wire.messages import TYPES, Text, TextDelta

GOLDEN = sorted((Path(__file__).parent.parent / "transcripts" / "golden").glob("*.ndjson"))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
MEMBERS = sorted({name for content in TYPES.values() for name in content.__struct_encode_fields__})


def message(kind: str, content: Any, **members: Any) -> Event:
    shown = {"sessionId": "s", "id": "1", "type": kind, "timestamp": 0, "cursor": "1-1", "content": content} | members
    event = decode_entry(b"message", encode(shown))
    assert event is not None
    return event


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_recorded_transcripts_are_put_into_words(path: Path) -> None:
    for line in path.read_bytes().split(b"\n")[:-1]:
        recorded = json.loads(line)
        said = describe(message(recorded["type"], recorded["content"]))
        assert said.kind == recorded["type"]
        assert said.body.strip()


@given(kind=st.sampled_from([*TYPES, "unknown"]), content=st.dictionaries(st.sampled_from(MEMBERS), ANY_JSON))
def test_any_content_is_put_into_words(kind: str, content: dict[str, Any]) -> None:
    shown: list[str] = []
    event = message(kind, content)
    assert describe(event).kind == kind
    TerminalView(lambda text, _: shown.append(text)).show(event)
    assert "\x1b" not in "".join(shown)


@given(st.text())
def test_sanitized_text_has_no_control_characters_but_newline_and_tab(text: str) -> None:
    harmless = sanitize_text(text)
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in harmless)
    assert sanitize_text(harmless) == harmless
    assert not set(one_line(text)) & {"\n", "\t"}


def test_control_characters_are_shown_in_place_of_themselves() -> None:
    assert sanitize_text("a\tb\r\nc\rd\x1b[2J\x00\x7f\x9b") == "a\tb\nc^Md^[[2J^@^?\ufffd"
    assert sanitize_text("Grüße 😀 👩‍👧 e\u0301") == "Grüße 😀 👩‍👧 e\u0301"


def test_a_tool_call_is_one_line_with_what_matters() -> None:
    for given_input, expected in (
        ({"description": "x", "command": "echo 1\necho 2"}, "Bash  echo 1 echo 2"),
        ({"file_path": "/a", "content": "long"}, "Bash  /a"),
        ({"a": 2, "b": 3}, 'Bash  {"a":2,"b":3}'),
        ({}, "Bash"),
        ("text", 'Bash  "text"'),
    ):
        assert describe(message("tool_call", {"toolUseId": "t", "name": "Bash", "input": given_input})).body == expected
    long = describe(message("tool_call", {"toolUseId": "t", "name": "B", "input": {"command": "x" * 1000}})).body
    assert len(long) < LINE_CHARS + 50
    assert long.endswith("… (1000 characters)")


def test_a_tool_result_is_shortened_to_its_first_lines() -> None:
    def body(output: Any, is_error: bool = False) -> str:
        return describe(message("tool_result", {"toolUseId": "t", "output": output, "isError": is_error})).body

    assert body("a\nb\n") == "a\nb"
    assert body("\n".join("abcdef")) == "a\nb\nc\nd\ne\n… 1 more line"
    assert body("\n".join("x" * 100)).count("\n") == RESULT_LINES
    assert body([{"type": "text", "text": "a"}, {"type": "image", "data": "…"}]) == "a\n[image]"
    assert body({"content": [{"type": "text", "text": "5"}], "structured_content": None}) == "5"
    assert body({"query": "q"}) == '{"query":"q"}'
    assert body("no", is_error=True) == "failed: no"


@given(request=st.text(min_size=1), command=st.text())
def test_an_approval_shows_its_whole_input_and_a_command_that_is_safe_to_paste(request: str, command: str) -> None:
    content = {"requestId": request, "name": "Bash", "input": {"command": command, "timeout": 5}}
    event = message("approval_request", content)
    body = describe(event).body
    for line in command.split("\n"):
        assert line in body
    assert "timeout: 5" in body
    *words, request_id, decision = shlex.split(body[body.rindex("agentrq answer") :], comments=True)
    assert words[:3] in (["agentrq", "answer", "s"], ["agentrq", "answer", "--"])
    assert (request_id, decision) == (decoded(event).request_id, "allow")


def decoded(event: Event) -> Any:
    assert isinstance(event, Message)
    return event.content


@pytest.mark.parametrize(
    ("subtype", "said", "shown"),
    [("status", "requesting", "requesting"), ("api_retry", "in 2 s", "api_retry: in 2 s"), ("status", None, "status")],
)
def test_a_report_of_status_does_not_say_status_twice(subtype: str, said: str | None, shown: str) -> None:
    report = {"subtype": subtype} if said is None else {"subtype": subtype, "message": said}
    assert describe(message("status", report)).body == shown


def test_amounts_and_times_are_shown_for_people() -> None:
    assert [dollars(amount) for amount in (0, 0.00186, 12.345)] == ["$0.00", "$0.0019", "$12.35"]
    assert clock(10**30) == "--:--:--"
    assert [cells(text) for text in ("abc", "漢字", "e\u0301")] == [3, 4, 1]


# -- columns


@given(st.lists(st.text(st.sampled_from("ab漢 \n\tcdefg"), max_size=40), max_size=8))
def test_a_column_keeps_its_width_and_every_character(pieces: list[str]) -> None:
    shown: list[str] = []
    column = Column(lambda text, _: shown.append(text))
    column.start()
    for piece in pieces:
        column.write(piece, "")
    lines = "".join(shown).split("\n")
    assert "".join("".join(pieces).split()) == "".join("".join(shown).split())
    assert all(cells(line) <= 11 + column._room for line in lines)
    assert all(line.startswith(" " * 11) for line in lines[1:])


@given(text=st.text(st.sampled_from("abc de\nf"), min_size=1), cuts=st.lists(st.integers(0, 50)), data=st.data())
def test_a_text_in_pieces_is_shown_once_whatever_is_missing(text: str, cuts: list[int], data: st.DataObject) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [(start, text[start:end]) for start, end in itertools.pairwise(places)]
    arriving = data.draw(st.lists(st.sampled_from(pieces), max_size=12)) if data.draw(st.booleans()) else pieces
    shown: list[str] = []
    view = TerminalView(lambda part, _: shown.append(part))

    def show(kind: str, content: Any) -> None:
        view.show(make_message(session_id="s", id="1", type=kind, timestamp=0, content=content))

    for offset, piece in arriving:
        show("text_delta", TextDelta(piece, "b", offset))
        if data.draw(st.booleans()):
            show("text", Text("|"))  # another text comes between
    show("text", Text(text, "b"))
    words = [line[11:] for line in "".join(shown).split("\n") if line[11:].strip() != "|"]
    assert "".join("".join(words).split()) == "".join(text.split())
