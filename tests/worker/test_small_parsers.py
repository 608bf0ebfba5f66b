"""What each kind of gemini's, opencode's, Ollama's and aider's lines becomes, beyond the recordings."""

from __future__ import annotations

from typing import Any

import pytest

from agentrq_worker.providers.registry import make_parser
from tests.worker.made_lines import AIDER, DONE, OLLAMA, chunk
from tests.worker.parser_checks import as_json, contents, receive_all


def told(name: str, *lines: Any) -> list[dict[str, Any]]:
    return [as_json(draft) for draft in receive_all(make_parser(name), *lines)]


# Gemini ---------------------------------------------------------------------------------------------------------


def gemini(kind: str, **members: Any) -> dict[str, Any]:
    return {"type": kind, "timestamp": "2026-11-22T06:31:24.962Z", **members}


def test_gemini_lines_become_their_messages() -> None:
    messages = told(
        "gemini",
        gemini("init", session_id="s", model="m"),
        gemini("init", session_id="s", model="m"),
        gemini("message", role="assistant", content="whole"),
        gemini("error", severity="warning", message="loop"),
        gemini("error", severity="error", message="bad"),
        gemini("tool_use", tool_id="t", tool_name="ls", parameters={}),
        gemini("tool_result", tool_id="t", status="error", error={"type": "x", "message": "denied"}),
        gemini("result", status="error", error={"type": "x", "message": "API 500"}, stats={"input_tokens": 3}),
    )
    assert [message["type"] for message in messages] == [
        "init", "text", "status", "error", "tool_call", "tool_result", "cost",
    ]  # fmt: skip
    assert messages[1]["content"] == {"text": "whole", "blockId": "1.1"}
    assert messages[5]["content"] == {"toolUseId": "t", "output": "denied", "isError": True}
    assert (messages[6]["content"]["errors"], messages[6]["content"]["inputTokens"]) == (["API 500"], 3)


def test_a_gemini_that_ends_in_mid_text_closes_text_and_call() -> None:
    reader = make_parser("gemini")
    receive_all(reader, gemini("message", role="assistant", content="ha", delta=True), gemini("tool_use", tool_id="t"))
    receive_all(reader, gemini("message", role="assistant", content="lf", delta=True))
    assert [draft.type for draft in reader.close()] == ["text", "tool_result"]


# opencode -------------------------------------------------------------------------------------------------------


def opencode(kind: str, stamp: int = 1000, **members: Any) -> dict[str, Any]:
    return {"type": kind, "timestamp": stamp, "sessionID": "ses", **members}


def test_opencode_sums_its_steps_and_says_each_part_once() -> None:
    step = {"reason": "tool-calls", "cost": 0.25, "tokens": {"input": 10, "output": 2}}
    failed = {"callID": "c", "tool": "bash", "state": {"status": "error", "input": {"command": "x"}, "error": "no"}}
    messages = told(
        "opencode",
        opencode("step_start", part={}),
        opencode("reasoning", 1500, part={"id": "r", "text": "hm"}),
        *[opencode("text", part={"id": "p", "text": "hi"})] * 2,
        opencode("tool_use", part=failed),
        *[opencode("step_finish", part={"id": "f1", **step})] * 2,
        opencode("step_finish", 3500, part={"id": "f2", **step, "reason": "stop"}),
    )
    assert [message["type"] for message in messages] == ["init", "thinking", "text", "tool_call", "tool_result", "cost"]
    assert messages[4]["content"] == {"toolUseId": "c", "output": "no", "isError": True}
    cost = messages[5]["content"]
    assert (cost["totalCostUsd"], cost["inputTokens"], cost["outputTokens"], cost["durationMs"]) == (0.5, 20, 4, 2500)


def test_opencode_says_how_its_model_ended() -> None:
    ends = [opencode("step_finish", part={"id": reason, "reason": reason}) for reason in ("length", "error")]
    messages = told("opencode", *ends)
    assert [message["content"]["message"] for message in messages if message["type"] == "status"] == ["length", "error"]
    assert [message["content"]["isError"] for message in messages if message["type"] == "cost"] == [False, True]


BAD_ENDS: dict[str, tuple[list[Any], bytes]] = {
    "gemini": ([gemini("message", role="assistant", content="half", delta=True)], b'{"type":"result","status":\n'),
    "opencode": ([opencode("text", part={"id": "t", "text": "half"})], b'{"type":"step_finish","part":7}'),
    "ollama": ([chunk(content="half")], b'{"model":"m","done":true,"total_duration":1e}'),
    "aider": ([{"type": "line", "text": "half"}], b'{"type":"exit","code":0,}'),
}


@pytest.mark.parametrize("name", sorted(BAD_ENDS))
def test_a_turn_whose_last_line_cannot_be_read_has_failed(name: str) -> None:
    lines, last = BAD_ENDS[name]
    drafts = receive_all(make_parser(name), *lines, last)
    assert [text["text"].strip() for text in contents(drafts, "text")] == ["half"]
    assert [(cost["isError"], cost["errors"]) for cost in contents(drafts, "cost")] == [
        (True, ["The line that ends the turn could not be read"])
    ]


def test_an_opencode_step_that_cannot_be_read_ends_no_turn_if_another_follows() -> None:
    drafts = receive_all(make_parser("opencode"), b'{"type":"step_finish","part":{"reason":"tool-calls","x":}}')
    assert [draft.type for draft in drafts] == ["error"]


def test_what_gemini_says_after_its_result_is_published_once_it_is_silent() -> None:
    reader = make_parser("gemini")
    piece = gemini("message", role="assistant", content="late ", delta=True)
    drafts = receive_all(reader, gemini("init", session_id="s"), gemini("result", status="success"), piece, piece)
    assert [draft.type for draft in drafts] == ["init", "cost", "text_delta", "text_delta"]
    assert [text["text"] for text in contents(reader.finish_texts(), "text")] == ["late late "]
    assert reader.finish_texts() == []


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("gemini", gemini("result", status="success", stats={"input_tokens": 5})),
        ("opencode", opencode("step_finish", part={"id": "f", "reason": "stop", "cost": 0.5})),
    ],
)
def test_a_turns_end_that_is_read_twice_is_counted_once(name: str, end: dict[str, Any]) -> None:
    assert len(contents(receive_all(make_parser(name), end, end), "cost")) == 1


def test_opencode_errors_end_the_turn() -> None:
    error = {"name": "ProviderAuthError", "data": {"message": "no key"}}
    messages = told("opencode", opencode("error", error=error), opencode("error", error=None))
    assert [message["type"] for message in messages] == ["init", "error", "cost", "error", "cost"]
    assert messages[1]["content"] == {"message": "no key", "code": "ProviderAuthError"}
    assert messages[4]["content"]["errors"] == ["The turn failed"]


# Ollama ---------------------------------------------------------------------------------------------------------


def test_ollama_chunks_become_their_messages() -> None:
    messages = told("ollama", *OLLAMA)
    assert [message["type"] for message in messages] == [
        "init", "thinking_delta", "thinking_delta", "thinking", "text_delta", "text_delta", "text", "tool_call",
        "tool_result", "cost", "text_delta", "text", "error", "cost", "error",
    ]  # fmt: skip
    by_type = {message["type"]: message["content"] for message in messages[:10]}
    assert by_type["thinking"]["text"] == "Let me think."
    assert by_type["text"]["text"] == "The answer is 42."
    assert by_type["tool_call"] == {"toolUseId": "c1", "name": "ls", "input": {"path": "."}}
    cost = by_type["cost"]
    assert (cost["durationMs"], cost["inputTokens"], cost["outputTokens"], cost["isError"]) == (1500, 26, 8, False)
    assert messages[13]["content"]["errors"] == ["model runner has stopped"]
    assert messages[13]["content"]["sessionTotal"]["numTurns"] == 2
    assert messages[14]["content"]["code"] == "not_resumed"


def test_raw_ollama_chunks_need_no_runner_of_ours() -> None:
    call = {"function": {"name": "f"}}
    messages = told("ollama", chunk(content="hi"), chunk(content="", tool_calls=[call, call]),
                    DONE | {"done_reason": "length"})  # fmt: skip
    assert messages[0] == {"type": "init", "content": {"model": "m"}}
    ids = [message["content"]["toolUseId"] for message in messages if message["type"] == "tool_call"]
    assert len(set(ids)) == 2
    assert {"type": "status", "content": {"subtype": "done", "message": "length"}} in messages
    assert [message["type"] for message in told("ollama", {"x": 1})] == ["unknown"]


# aider ----------------------------------------------------------------------------------------------------------


def line(text: str, own: bool = True) -> dict[str, Any]:
    return {"type": "line", "text": text, "own": own}


def analytics(event: str, **properties: Any) -> dict[str, Any]:
    return {"type": "analytics", "event": event, "properties": properties}


def test_aiders_report_becomes_its_messages() -> None:
    messages = told("aider", *AIDER)
    assert [message["type"] for message in messages] == [
        "init", "status", "status", "text_delta", "text_delta", "text_delta", "text", "tool_call", "tool_result",
        "status", "cost",
    ]  # fmt: skip
    assert messages[6]["content"]["text"] == "I will add the function.\n\nhello.py\n"
    assert messages[7]["content"]["input"] == {"path": "hello.py"}
    cost = messages[-1]["content"]
    assert (cost["totalCostUsd"], cost["inputTokens"], cost["outputTokens"], cost["durationMs"]) == (
        0.0123, 2113, 310, 1200,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("printed", "figures"),
    [
        (["Tokens: 2.1k sent, 310 received. Cost: $0.01 message, $0.05 session."], (0.01, 2100, 310)),
        (["Tokens: 1,234 sent, 1.5k cache write, 2M cache hit, 1.2k received."], (0.0, 1234, 1200)),
        (["Tokens: 1k sent, 1 received. Cost: $0.5 message, $0.5 session."] * 2, (1.0, 2000, 2)),
        (["Tokens: many sent"], (0.0, 0, 0)),
    ],
)
def test_aiders_printed_cost_counts_where_its_log_is_silent(
    printed: list[str], figures: tuple[float, int, int]
) -> None:
    cost = told("aider", *map(line, printed), {"type": "exit", "code": 0})[-1]["content"]
    assert (cost["totalCostUsd"], cost["inputTokens"], cost["outputTokens"]) == figures


def test_an_aider_failure_is_told_by_its_own_words_or_its_exit_code() -> None:
    reader = make_parser("aider")
    drafts = receive_all(reader, line("litellm.AuthenticationError: no key"), {"type": "exit", "code": 0})
    assert contents(drafts, "error") == [
        {"message": "litellm.AuthenticationError: no key", "code": "AuthenticationError"}
    ]
    assert [draft.type for draft in drafts] == ["status", "error", "cost"]
    assert contents(drafts, "cost")[0]["errors"] == ["litellm.AuthenticationError: no key"]
    assert contents(receive_all(reader, {"type": "exit", "code": 2}), "cost")[0]["errors"] == [
        "aider ended with exit code 2"
    ]
    assert not contents(receive_all(reader, {"type": "exit", "code": 0}), "cost")[0]["isError"]


PROSE = [
    "ConnectionError is raised when",
    "litellm.APIError: x",
    "Warning: a",
    "Note: b",
    "Retrying in 1 s",
    "Aider v1",
    "Applied edit to x.py",
    "Commit 1a2b3c4 d",
    "Tokens: 1k sent, 1k received. Cost: $1 message, $1 session.",
]


def test_what_aiders_model_says_is_one_text_whatever_it_looks_like() -> None:
    drafts = receive_all(make_parser("aider"), *[line(text, own=False) for text in PROSE], {"type": "exit", "code": 0})
    (text,), (cost,) = contents(drafts, "text"), contents(drafts, "cost")
    assert text["text"].splitlines() == PROSE
    assert (cost["isError"], cost["totalCostUsd"]) == (False, 0.0)
    assert {draft.type for draft in drafts} == {"text_delta", "text", "cost"}


@pytest.mark.parametrize(
    ("told", "errors"),
    [
        (["message_send_starting", "message_send"], None),
        (["message_send_starting", "message_send", "message_send_starting"], ["litellm.RateLimitError: slow down"]),
        (["message_send"], None),
        ([], ["litellm.RateLimitError: slow down"]),
    ],
    ids=["tried again and answered", "second message not answered", "answered", "never answered"],
)
def test_an_aider_turn_fails_if_its_model_did_not_answer(told: list[str], errors: list[str] | None) -> None:
    retry = line("litellm.RateLimitError: slow down")
    drafts = receive_all(make_parser("aider"), retry, *map(analytics, told), {"type": "exit", "code": 0})
    assert contents(drafts, "cost")[0].get("errors") == errors
    assert len(contents(drafts, "error")) == len(errors or [])


def test_an_exception_in_aiders_log_is_the_turns_error() -> None:
    stumble = [analytics("message_send_starting"), analytics("message_send_exception", exception="KeyError: 'x'")]
    drafts = receive_all(make_parser("aider"), *stumble, {"type": "exit", "code": 0})
    assert contents(drafts, "error") == [{"message": "KeyError: 'x'"}]
