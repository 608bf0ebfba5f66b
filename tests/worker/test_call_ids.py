"""Agents number their tool calls in their own spans; subscribers see each call once, with an id of the session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.registry import make_parser
from tests.worker.parser_checks import contents, receive_all

Line = dict[str, Any]


class Format(NamedTuple):
    """How one agent tells a call with its result, and the end of a turn. ``mark`` makes each line another one."""

    parser: str
    call: Callable[[str, str, str], Line]  # own id, path, mark
    result: Callable[[str, str, str], Line]  # own id, output, mark
    end: Callable[[str], Line]


def _claude_block(kind: str, mark: str, block: Line) -> Line:
    return {"type": kind, "uuid": mark, "message": {"id": mark, "content": [block]}}


def _item(event: str, mark: str, own: str, **members: Any) -> Line:
    item = {"id": own, "type": "mcpToolCall", "tool": "read", "server": "s", **members}
    return {"method": f"item/{event}", "params": {"threadId": "t", "item": item, "startedAtMs": mark}}


def _update(kind: str, own: str, mark: str, **members: Any) -> Line:
    update = {"sessionUpdate": kind, "toolCallId": own, "_meta": {"mark": mark}, **members}
    return {"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "s", "update": update}}


FORMATS = [
    Format(
        "claude",
        lambda own, path, mark: _claude_block(
            "assistant", mark, {"type": "tool_use", "id": own, "name": "read", "input": {"path": path}}
        ),
        lambda own, output, mark: _claude_block(
            "user", mark, {"type": "tool_result", "tool_use_id": own, "content": output}
        ),
        lambda mark: {"type": "result", "subtype": "success", "uuid": mark, "is_error": False},
    ),
    Format(
        "gemini",
        lambda own, path, mark: {
            "type": "tool_use", "tool_id": own, "tool_name": "read", "parameters": {"path": path}, "timestamp": mark,
        },
        lambda own, output, mark: {
            "type": "tool_result", "tool_id": own, "status": "success", "output": output, "timestamp": mark,
        },
        lambda mark: {"type": "result", "status": "success", "stats": {}, "timestamp": mark},
    ),
    Format(
        "codex",
        lambda own, path, mark: _item("started", mark, own, arguments={"path": path}, status="inProgress"),
        lambda own, output, mark: _item(
            "completed", mark, own, arguments={"path": ""}, status="completed", result=output
        ),
        lambda mark: {
            "method": "turn/completed", "params": {"threadId": "t", "turn": {"id": mark, "status": "completed"}},
        },
    ),
    Format(
        "acp",
        lambda own, path, mark: _update(
            "tool_call", own, mark, title="read", status="in_progress", rawInput={"path": path}
        ),
        lambda own, output, mark: _update("tool_call_update", own, mark, status="completed", rawOutput=output),
        lambda mark: {"jsonrpc": "2.0", "id": 3, "result": {"stopReason": "end_turn"}},
    ),
]  # fmt: skip


@pytest.fixture(params=FORMATS, ids=lambda form: form.parser)
def form(request: pytest.FixtureRequest) -> Format:
    found: Format = request.param
    return found


def calls(drafts: list[DraftMessage]) -> list[tuple[str, str, str | None]]:
    """Id and path of each call, with what its result says."""
    outputs = {result["toolUseId"]: result["output"] for result in contents(drafts, "tool_result")}
    return [
        (call["toolUseId"], call["input"]["path"], outputs.get(call["toolUseId"]))
        for call in contents(drafts, "tool_call")
    ]


def round_of(form: Format, own: str, path: str, mark: str) -> list[Line]:
    return [form.call(own, path, f"{mark}c"), form.result(own, f"of {path}", f"{mark}r")]


def test_an_agent_that_numbers_its_calls_anew_in_each_round_loses_none(form: Format) -> None:
    drafts = receive_all(
        make_parser(form.parser),
        *round_of(form, "Read:0", "/a", "1"), *round_of(form, "Read:0", "/b", "2"), form.end("e1"),
        *round_of(form, "Read:0", "/c", "3"), form.end("e2"),
    )  # fmt: skip
    assert calls(drafts) == [
        ("Read:0", "/a", "of /a"), ("Read:0~2", "/b", "of /b"), ("Read:0~3", "/c", "of /c"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["acp", "codex"]
)  # the formats whose lines carry neither a time nor an id of their own
def test_the_same_words_in_two_turns_are_two_calls(name: str) -> None:
    form = next(form for form in FORMATS if form.parser == name)
    turn = [*round_of(form, "r", "/a", "1"), form.end("e")]
    assert [call[0] for call in calls(receive_all(make_parser(name), *turn, *turn))] == ["r", "r~2"]


def test_a_later_owner_gives_other_ids(form: Format) -> None:
    drafts = receive_all(make_parser(form.parser, epoch=3), *round_of(form, "r", "/a", "1"))
    assert calls(drafts) == [("3.r", "/a", "of /a")]


def test_a_line_read_twice_is_one_call(form: Format) -> None:
    call, result = round_of(form, "r", "/a", "1")
    drafts = receive_all(make_parser(form.parser), call, call, result, result, call, result, form.end("e"))
    assert calls(drafts) == [("r", "/a", "of /a")]
    assert len(contents(drafts, "tool_result")) == 1


@pytest.mark.parametrize("name", ["acp", "codex", "gemini"])
def test_a_call_that_the_turn_cut_is_closed_and_its_late_result_published(name: str) -> None:
    form = next(form for form in FORMATS if form.parser == name)
    reader = make_parser(name)
    call, result = round_of(form, "r", "/a", "1")
    (cut,) = contents(receive_all(reader, call, form.end("e")), "tool_result")
    assert (cut["toolUseId"], cut["isError"]) == ("r", True)
    (late,) = contents(receive_all(reader, result), "tool_result")
    assert (late["toolUseId"], late["output"], late["isError"]) == ("r~2", "of /a", False)


def test_an_acp_agent_that_makes_the_same_call_again_in_one_turn() -> None:
    # The announcement is the same word for word; that it was not merely repeated shows in what follows.
    announce = _update("tool_call", "r", "", title="read")
    update = "tool_call_update"
    given = [_update(update, "r", "", rawInput={"path": path}, status="pending") for path in ("/a", "/b")]
    done = [_update(update, "r", "", status="completed", rawOutput=output) for output in ("of /a", "of /b")]
    drafts = receive_all(make_parser("acp"), announce, given[0], done[0], announce, given[1], done[1])
    assert calls(drafts) == [("r", "/a", "of /a"), ("r~2", "/b", "of /b")]
