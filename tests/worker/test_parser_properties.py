"""What holds of every parser for any input: it never raises, never calls a tool twice, and says only what a
subscriber can read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.registry import make_parser, parser_names
from tests.worker.made_lines import MADE
from tests.worker.parser_checks import as_json, contents, run_parser
from tests.worker.recordings import RECORDINGS, provider_of

TRANSCRIPTS = {
    name: [recording.read_bytes().split(b"\n") for recording in RECORDINGS if provider_of(recording) == name]
    for name in parser_names()
} | {name: [lines] for name, lines in MADE.items()}
LINES = {name: [line for lines in found for line in lines if line] for name, found in TRANSCRIPTS.items()}
NAMES = st.sampled_from(sorted(parser_names()))
SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


# Trouble on the way ---------------------------------------------------------------------------------------------


@st.composite
def troubled(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    """A recording with lines dropped, doubled, moved, cut and overwritten."""
    name = draw(NAMES)
    lines = list(draw(st.sampled_from(TRANSCRIPTS[name])))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(lines) - 1))
        what = draw(st.sampled_from(["drop", "double", "again", "move", "cut", "garble", "insert"]))
        if what == "drop" and len(lines) > 1:
            del lines[at]
        elif what == "double":
            lines.insert(at, lines[at])
        elif what == "again":
            lines += lines[at:]
        elif what == "move":
            lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(at))
        elif what == "cut":
            lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
        elif what == "garble" and lines[at]:
            place = draw(st.integers(0, len(lines[at]) - 1))
            lines[at] = lines[at][:place] + draw(st.binary(min_size=1, max_size=4)) + lines[at][place + 1 :]
        else:
            lines.insert(at, draw(st.sampled_from(LINES[name])))
    return name, lines


@SETTINGS
@given(troubled())
def test_a_troubled_recording_is_survived(case: tuple[str, list[bytes]]) -> None:
    run_parser(*case)


@SETTINGS
@given(troubled())
def test_a_line_says_the_same_with_its_newline(case: tuple[str, list[bytes]]) -> None:
    name, lines = case
    lines = [line.replace(b"\n", b"") for line in lines]
    assert [*map(as_json, run_parser(name, [line + b"\n" for line in lines]))] == [
        *map(as_json, run_parser(name, lines))
    ]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_an_object_over_several_lines_may_hold_blank_ones(end: bytes) -> None:
    lines = [b"{", b'  "type": "agent_message_of_tomorrow",', b"", b'  "n": 1', b"}"]
    (draft,) = run_parser("claude", [line + end for line in lines])
    assert as_json(draft) == {"type": "unknown", "content": {"type": "agent_message_of_tomorrow", "n": 1}}


# Any object, known types above all ------------------------------------------------------------------------------

SCALARS: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.builds(list)
    | st.builds(dict)
    | st.sampled_from(["", "x", "text", "tool_use", "tool_result", "init", "result", "success", "command_execution"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def paths(value: Any) -> list[tuple[Any, ...]]:
    """The way to every member within a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way for key, inner in items for way in ((key,), *((key, *rest) for rest in paths(inner)))]


@st.composite
def bent(draw: st.DrawFn) -> tuple[str, bytes]:
    """A line of a recording in which some members are absent or have any value."""
    name = draw(NAMES)
    line = json.loads(draw(st.sampled_from(LINES[name])))
    for _ in range(draw(st.integers(1, 3))):
        ways = [way for way in paths(line) if way != ("type",)]
        if not ways:
            break
        *outer, last = draw(st.sampled_from(ways))
        place = line
        for key in outer:
            place = place[key]
        if draw(st.booleans()):
            place[last] = draw(VALUES)
        else:
            del place[last]
    return name, json.dumps(line).encode()


@SETTINGS
@given(bent())
def test_members_of_any_kind_are_survived(case: tuple[str, bytes]) -> None:
    name, line = case
    drafts = run_parser(name, [line, line])
    # Nothing is dropped for its shape: what is not understood is said to be so.
    assert all(draft.type != "error" or as_json(draft)["content"].get("code") != "invalid_json" for draft in drafts)


KEYS = ["type", "message", "item", "event", "x", "method", "params", "id", "result", "error", "part", "done", "text"]


@SETTINGS
@given(NAMES, st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5))
def test_any_object_is_survived(name: str, line: dict[str, Any]) -> None:
    run_parser(name, [json.dumps(line).encode()])


@SETTINGS
@given(NAMES, st.binary(max_size=200))
def test_any_bytes_are_survived(name: str, line: bytes) -> None:
    drafts = run_parser(name, [line])
    assert bool(drafts) == bool(line.strip())


@SETTINGS
@given(NAMES, VALUES.filter(lambda value: not isinstance(value, dict)))
def test_a_line_that_is_no_object_is_an_error_that_quotes_it(name: str, value: Any) -> None:
    line = json.dumps(value)
    (content,) = contents(run_parser(name, [line.encode()]), "error")
    assert content == {
        "message": f"Not a JSON object: {line[:100]}",
        "code": "invalid_json",
        "excerpt": line[:100],
    }


# Text of every kind ---------------------------------------------------------------------------------------------


def update(**members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "s", "update": members}}


SAYS: dict[str, Callable[[str], dict[str, Any]]] = {
    "acp": lambda words: update(sessionUpdate="agent_message_chunk", content={"type": "text", "text": words}),
    "claude": lambda words: {"type": "assistant", "message": {"content": [{"type": "text", "text": words}]}},
    "codex": lambda words: {"type": "item.completed", "item": {"type": "agent_message", "text": words}},
    "gemini": lambda words: {"type": "message", "role": "assistant", "content": words, "delta": True},
    "ollama": lambda words: {"message": {"role": "assistant", "content": words}},
    "opencode": lambda words: {"type": "text", "part": {"text": words}},
}
SPEAKERS = st.sampled_from(sorted(SAYS))
CALLS: dict[str, tuple[bytes, bytes]] = {
    "acp": (
        b'{"method":"session/update","params":{"update":{"sessionUpdate":"tool_call","toolCallId":"t",'
        b'"status":"in_progress","rawInput":',
        b"}}}",
    ),
    "claude": (
        b'{"type":"assistant","message":{"content":[{"type":"tool_use","id":"t","name":"n","input":',
        b"}]}}",
    ),
    "codex": (
        b'{"type":"item.started","item":{"id":"t","type":"mcp_tool_call","server":"s","tool":"t","arguments":',
        b"}}",
    ),
    "gemini": (b'{"type":"tool_use","tool_id":"t","tool_name":"n","parameters":', b"}"),
    "ollama": (b'{"message":{"tool_calls":[{"function":{"name":"n","arguments":', b"}}]}}"),
    "opencode": (b'{"type":"tool_use","part":{"callID":"t","tool":"n","state":{"input":', b"}}}"),
}


@SETTINGS
@given(SPEAKERS, st.text(min_size=1, max_size=300), st.booleans())
def test_text_arrives_as_it_was_said(name: str, words: str, escaped: bool) -> None:
    line = json.dumps(SAYS[name](words), ensure_ascii=escaped).encode("utf-8")
    assert texts(run_parser(name, [line])) == [words]


def texts(drafts: list[DraftMessage]) -> list[str]:
    return [content["text"] for content in contents(drafts, "text")]


@pytest.mark.parametrize("name", sorted(SAYS))
@pytest.mark.parametrize(
    ("words", "arrives"),
    [
        ("a\u2028b\u2029c\u0085d", "a\u2028b\u2029c\u0085d"),
        ("\x00\x1f\x7f\ufeff", "\x00\x1f\x7f\ufeff"),
        ("\ud800", "\ufffd"),
        ("a\udc00\ud800b", "a\ufffd\ufffdb"),
        ("\U0001f600", "\U0001f600"),
    ],
)
def test_odd_characters(name: str, words: str, arrives: str) -> None:
    lines = [json.dumps(SAYS[name](words)).encode()]
    if words == arrives:
        lines.append(json.dumps(SAYS[name](words), ensure_ascii=False).encode())
    for line in lines:
        assert texts(run_parser(name, [line])) == [arrives]


@pytest.mark.parametrize("name", sorted(SAYS))
def test_bytes_that_are_no_utf_8_become_replacement_characters(name: str) -> None:
    line = json.dumps(SAYS[name]("@")).encode().replace(b"@", b"a\xff\xc3b")
    assert texts(run_parser(name, [line])) == ["a\ufffd\ufffdb"]
    (draft,) = run_parser(name, [b'{"type":"new","x":"\xff\\ud800"}'])
    assert as_json(draft) == {"type": "unknown", "content": {"type": "new", "x": "\ufffd\ufffd"}}


@pytest.mark.parametrize("name", sorted(CALLS))
@pytest.mark.parametrize("depth", [10, 500, 100_000])
def test_deep_nesting(name: str, depth: int) -> None:
    before, after = CALLS[name]
    deep = b"[" * depth + b"]" * depth
    drafts = [draft for draft in run_parser(name, [before + deep + after]) if draft.type not in ("init", "tool_result")]
    if depth < 1000:
        assert [draft.type for draft in drafts] == ["tool_call"]
    else:
        (content,) = contents(drafts, "error")
        assert (content["code"], content["excerpt"]) == ("malformed", before.decode()[:100].ljust(100, "[")[:100])
    assert contents(run_parser(name, [b"[" * 100_000]), "error")[0]["code"] == "invalid_json"
    assert contents(run_parser(name, [b'{"type":' * 100_000]), "error")[0]["code"] in ("malformed", "invalid_json")


@pytest.mark.parametrize("name", sorted(CALLS))
def test_duplicate_keys_and_large_numbers(name: str) -> None:
    before, after = CALLS[name]
    for value in (b'{"a":1,"a":2}', b"9" * 300, b"-1e300", b"0.1e-400"):
        assert "tool_call" in [draft.type for draft in run_parser(name, [before + value + after])]
    for line in LINES[name][:10]:
        run_parser(name, [line[:-1] + b',"type":"nothing","message":5,"item":5,"method":5,"params":5,"part":5}'])


@pytest.mark.parametrize("name", sorted(CALLS))
@pytest.mark.parametrize("number", [b"1e999", b"9" * 5000], ids=["1e999", "5000 digits"])
def test_numbers_out_of_range_do_not_raise(name: str, number: bytes) -> None:
    before, after = CALLS[name]
    reader = make_parser(name)
    for line in (before + number + after, b'{"type":"new","x":' + number + b"}", *broken_numbers(name, number)):
        assert reader.receive(line)


BROKEN_NUMBERS: dict[str, list[bytes]] = {
    "acp": [
        b'{"id":3,"result":{"stopReason":"end_turn","usage":{"inputTokens":%b}}}',
        b'{"id":%b,"method":"session/request_permission","params":{"toolCall":{"toolCallId":"t","rawInput":{"a":%b}}}}',
        b'{"method":"session/update","params":{"update":{"sessionUpdate":"plan","entries":[%b]}}}',
    ],
    "claude": [
        b'{"type":"result","total_cost_usd":%b}',
        b'{"type":"system","subtype":"x","y":%b}',
        b'{"type":"rate_limit_event","rate_limit_info":{"resetsAt":%b}}',
        b'{"type":"control_request","request_id":"r","request":{"subtype":"can_use_tool","tool_name":'
        b'"AskUserQuestion","input":{"questions":[%b]}}}',
    ],
    "codex": [
        b'{"type":"turn.completed","usage":{"input_tokens":%b}}',
        b'{"type":"error","message":%b}',
        b'{"type":"item.completed","item":{"id":"x","type":"mcp_tool_call","error":%b}}',
        b'{"method":"turn/completed","params":{"turn":{"durationMs":%b}}}',
        b'{"method":"item/completed","params":{"item":{"id":"x","type":"mcpToolCall","result":%b}}}',
        b'{"id":%b,"method":"item/commandExecution/requestApproval","params":{"command":%b}}',
    ],
    "gemini": [b'{"type":"result","stats":{"input_tokens":%b}}'],
    "ollama": [b'{"done":true,"eval_count":%b}'],
    "opencode": [b'{"type":"step_finish","part":{"reason":"stop","cost":%b}}', b'{"type":"error","error":%b}'],
}


def broken_numbers(name: str, number: bytes) -> list[bytes]:
    return [line.replace(b"%b", number) for line in BROKEN_NUMBERS[name]]


@pytest.mark.parametrize("name", sorted(parser_names()))
@pytest.mark.parametrize("line", [b"", b"\n", b" \t\r\n"])
def test_blank_lines_say_nothing(name: str, line: bytes) -> None:
    assert run_parser(name, [line]) == []


@pytest.mark.parametrize("name", sorted(parser_names()))
@pytest.mark.parametrize("line", [b'{"type":NaN}', b'{"type":"x"', b"{'a':1}", b"\xff", b"log: {}"])
def test_what_is_no_json_is_said_to_be_none(name: str, line: bytes) -> None:
    (content,) = contents(run_parser(name, [line]), "error")
    assert (content["code"], content["excerpt"]) == ("invalid_json", line.decode("utf-8", "replace"))


@pytest.mark.parametrize("name", sorted(parser_names()))
def test_an_excerpt_is_cut_between_characters(name: str) -> None:
    (content,) = contents(run_parser(name, ["\U0001f600".encode() * 200]), "error")
    assert content["excerpt"] == "\U0001f600" * 100
