"""What front ends post, and what of it is asked of the session."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from agentrq_gateway.protocols import agui_request, ui_request
from agentrq_gateway.protocols.posted import InvalidPost


def user(text: str, **members: Any) -> dict[str, Any]:
    return {"id": "m1", "role": "user", "parts": [{"type": "text", "text": text}]} | members


def responded(approval: str, approved: bool, **members: Any) -> dict[str, Any]:
    part = {"type": "dynamic-tool", "toolName": "Bash", "toolCallId": "a", "state": "approval-responded"}
    return part | {"approval": {"id": approval, "approved": approved, **members}}


def test_the_last_message_is_the_prompt_and_the_same_message_the_same_command() -> None:
    body = {"id": "chat", "messages": [user("first"), user("second", id="m2")], "trigger": "submit-message"}
    posted = ui_request.read_post("chat", body, ())
    assert (posted.prompt, posted.answers, posted.mode) == ("second", (), "queue")
    assert ui_request.read_post("chat", body, ()).command_id == posted.command_id
    edited = {"messages": [user("other", id="m2")]}
    assert ui_request.read_post("chat", edited, ()).command_id != posted.command_id


def test_only_open_requests_are_answered() -> None:
    parts = [responded("old", True), responded("r1", True), responded("r2", False, reason="no"), responded("r1", False)]
    body = {"messages": [user("x"), {"id": "a", "role": "assistant", "parts": parts}]}
    posted = ui_request.read_post("chat", body, ("r1", "r2"))
    assert posted.prompt is None
    assert [(answer.request_id, answer.answer) for answer in posted.answers] == [
        ("r1", {"decision": "allow"}),
        ("r2", {"decision": "deny", "message": "no"}),
    ]


def test_a_question_is_answered_by_the_output_of_its_tool() -> None:
    part = {"type": "dynamic-tool", "toolName": "question", "toolCallId": "q", "state": "output-available"}
    body = {"messages": [{"id": "a", "role": "assistant", "parts": [part | {"output": {"answers": {"0": "red"}}}]}]}
    (answer,) = ui_request.read_post("chat", body, ("q",)).answers
    assert (answer.request_id, answer.answer) == ("q", {"answers": {"0": "red"}})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages"),
        ({"messages": [user("")]}, "messages"),
        ({"messages": [user("x", parts=[{"type": "file", "url": "data:"}])]}, "messages"),
        ({"messages": [user("x")], "trigger": "regenerate-message"}, "trigger"),
        ({"messages": [user("x")], "mode": "now"}, "mode"),
        ({"messages": [user("x")], "provider": 1}, "provider"),
        ({"messages": [user("x")], "options": []}, "options"),
    ],
)
def test_what_cannot_be_sent_is_named(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidPost) as refused:
        ui_request.read_post("chat", body, ())
    assert refused.value.field == field


WAITING = {"r": "approval", "q": "question"}


@pytest.mark.parametrize(
    ("entry", "answer"),
    [
        ({"interruptId": "r", "status": "resolved", "payload": {"approved": True}}, {"decision": "allow"}),
        ({"interruptId": "r", "status": "resolved", "payload": False}, "deny"),
        ({"interruptId": "r", "status": "cancelled"}, "deny"),
        (
            {"interruptId": "r", "status": "resolved", "payload": {"approved": True, "editedArgs": {"a": 1}}},
            {"decision": "allow", "input": {"a": 1}},
        ),
        (
            {"interruptId": "r", "status": "resolved", "payload": {"decision": "deny", "message": "no"}},
            {"decision": "deny", "message": "no"},
        ),
        ({"interruptId": "q", "status": "resolved", "payload": {"answers": {}}}, {"answers": {}}),
    ],
)
def test_an_entry_of_resume_is_an_answer(entry: dict[str, Any], answer: Any) -> None:
    posted = agui_request.read_input({"messages": [], "resume": [entry]}, WAITING)
    assert [each.answer for each in posted.answers] == [answer]


def test_what_resume_names_and_is_not_open_is_left_out() -> None:
    entry = {"interruptId": "gone", "status": "resolved", "payload": {"approved": True}}
    assert agui_request.read_input({"messages": [], "resume": [entry]}, WAITING).answers == ()


def test_the_command_of_an_agui_message_has_its_id_where_that_can_be() -> None:
    message = {"id": "0b34f9b2-8c4f", "role": "user", "content": "hi"}
    assert agui_request.read_input({"messages": [message]}, {}).command_id == "0b34f9b2-8c4f"
    odd = agui_request.read_input({"messages": [message | {"id": "a b"}]}, {})
    assert (odd.prompt, odd.command_id.startswith("fe-")) == ("hi", True)


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(max_size=8),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = some.sampled_from(
    ["messages", "resume", "forwardedProps", "trigger", "mode", "provider", "options", "parts", "role", "type", "state",
     "approval", "content", "interruptId", "status", "payload", "toolName", "toolCallId", "text", "id"]
)  # fmt: skip
BODIES = some.recursive(
    JSON | some.sampled_from(["user", "assistant", "text", "approval-responded", "question", "r", "resolved"]),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(NAMES, inner, max_size=6),
    max_leaves=25,
)


@given(some.dictionaries(NAMES, BODIES))
def test_any_body_is_read_or_refused(body: dict[str, Any]) -> None:
    for read in (
        lambda: ui_request.read_post("chat", body, ("r",)),
        lambda: agui_request.read_input(body, WAITING),
        lambda: agui_request.read_ids(body),
    ):
        with contextlib.suppress(InvalidPost):
            read()
