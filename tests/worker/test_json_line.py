"""Lines that hold an object among other bytes: each object is read, for every parser and protocol; no line is fatal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrq.wire.commands import Options
from agentrq.wire.messages import SessionTotal
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.json_line import EXCERPT
from agentrq_worker.providers.protocol import Ended
from agentrq_worker.providers.registry import make_parser, make_protocol
from tests.worker.parser_checks import contents, receive_all

TEXT = b'{"type":"assistant","message":{"id":"m","content":[{"type":"text","text":"hi"}]}}'
RESULT = b'{"type":"result","subtype":"success","is_error":false,"num_turns":1,"uuid":"r"}'
NOISE = {
    "byte order mark": b"\xef\xbb\xbf",
    "NULs": b"\0\0\0",
    "window title, ended by BEL": b"\x1b]0;agent {busy\x07".replace(b"{", b""),
    "window title, ended by ST": b"\x1b]2;agent\x1b\\",
    "colour": b"\x1b[1;32m",
    "cursor": b"\x1b[?25l\x1b[2K",
    "keypad": b"\x1b=\x1b>",
    "several": b"\xef\xbb\xbf \x1b[0m\x1b[K\r",
    "progress bar": b"Loading 50%\rLoading 100%\r",
}


def types(drafts: Any) -> list[str]:
    return [draft.type for draft in drafts if isinstance(draft, DraftMessage)]


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE.keys())
def test_a_terminals_escape_sequences_cost_no_object(noise: bytes) -> None:
    claude = make_parser("claude")
    assert types(receive_all(claude, noise + TEXT, noise + RESULT + b"\x1b[0m\0\n")) == ["text", "cost"]


def test_several_objects_in_one_line_are_read_one_after_the_other() -> None:
    assert types(receive_all(make_parser("claude"), TEXT + b" \x1b[0m" + RESULT)) == ["text", "cost"]


def test_an_object_with_prose_behind_it_is_read_and_the_prose_is_told() -> None:
    drafts = receive_all(make_parser("claude"), RESULT + b"Segmentation fault")
    assert types(drafts) == ["cost", "error"]
    assert contents(drafts, "error")[0]["excerpt"] == "Segmentation fault"


def test_an_object_quoted_in_prose_is_not_read() -> None:
    assert types(receive_all(make_parser("claude"), b"debug: got " + TEXT)) == ["error"]


def test_the_line_that_ends_the_turn_is_read_behind_prose_that_did_not_end_its_line() -> None:
    assert types(receive_all(make_parser("claude"), b"warning: no terminal" + RESULT)) == ["error", "cost"]


@pytest.mark.parametrize("indent", [1, 2, "\t"])
def test_an_object_over_several_lines_is_read(indent: Any) -> None:
    lines = json.dumps(json.loads(RESULT) | {"usage": {"input_tokens": 3}, "errors": [], "n": [1, {}]}, indent=indent)
    (cost,) = contents(receive_all(make_parser("claude"), *(line.encode() + b"\n" for line in lines.splitlines())))
    assert cost["inputTokens"] == 3


def test_a_stray_brace_costs_no_line_that_follows() -> None:
    drafts = receive_all(make_parser("claude"), b"{\n", b'  "type": 1,\n', TEXT, b"{\n", b"{\n", RESULT)
    assert types(drafts) == ["error", "text", "error", "error", "cost"]
    assert contents(drafts, "error")[0]["excerpt"] == '{ "type": 1,'


def test_an_object_over_several_lines_has_a_bound() -> None:
    claude = make_parser("claude")
    assert receive_all(claude, b"{\n", *([b" " * 1023 + b"\n"] * 1024)) == []
    assert types(receive_all(claude, b" " * 1023 + b"\n", RESULT)) == ["error", "cost"]


def test_a_brace_at_the_end_is_told() -> None:
    claude = make_parser("claude")
    assert receive_all(claude, b"{") == []
    assert types(claude.close()) == ["error"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("claude", b'{"duration_ms":5,"type":"result","subtype":"success","result":"it is done'),
        ("claude", b'{"type": "result", "is_error": fals'),
        ("codex", b'{"type":"turn.completed","usage":{"input_tok'),
    ],
)
def test_a_turns_last_line_that_cannot_be_read_ends_the_turn(name: str, line: bytes) -> None:
    drafts = receive_all(make_parser(name), line)
    assert types(drafts) == ["error", "cost"]
    (cost,) = contents(drafts, "cost")
    assert (cost["isError"], cost["errors"]) == (True, ["The line that ends the turn could not be read"])


def test_a_runners_own_lines_are_read_among_its_agents() -> None:
    runner = make_protocol("runner", "s", Options(), "claude", SessionTotal(), 1)
    events = runner.receive(b"\xef\xbb\xbf" + TEXT + RESULT + b'{"type":"agent_stopped"}\n')
    assert types(events) == ["text", "cost"]
    assert events[-1] == Ended()
    assert runner.receive(b'\x1b[0m{"type":"agent_error","message":"no"}') == [Ended("no")]


@pytest.mark.parametrize("name", ["claude", "codex", "acp", "gemini", "opencode", "ollama", "aider"])
@given(
    lines=st.lists(
        st.lists(
            st.sampled_from([TEXT, RESULT, b"{", b"}", b"\0", b"\x1b[0m", b'{"a":1e999}', b'{"type":NaN}', b"x", b" "])
        ).map(b"".join)
    )
)
def test_no_mixture_raises_or_is_read_without_end(name: str, lines: list[bytes]) -> None:
    parser = make_parser(name)
    for line in lines:
        for draft in parser.receive(line):
            if draft.type == "error":
                assert len(contents([draft])[0].get("excerpt", "")) <= EXCERPT
    parser.close()


def test_a_line_of_very_many_objects_is_not_taken_apart() -> None:
    assert types(receive_all(make_parser("claude"), TEXT * 101)) == ["error"]
    assert types(receive_all(make_parser("gemini"), b'{"a":1}' * 100)) == ["unknown"] * 100


@pytest.mark.parametrize("name", ["claude", "codex", "acp"])
def test_no_line_nests_the_reading(name: str) -> None:
    for line in (b"a\r{}" * 50_000, b"{}x" * 50_000, b"\x1b[0m{" * 50_000, b"{" * 50_000, b'{"type":"result"}x' * 99):
        parser = make_parser(name)
        parser.receive(line)
        parser.close()
