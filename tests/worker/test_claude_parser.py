"""What each kind of Claude Code's lines becomes, beyond what the recordings show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentrq.wire.messages import SessionTotal
from agentrq_worker.providers.claude.parser import ClaudeParser
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.parser import OutputParser, UnknownParser
from agentrq_worker.providers.registry import make_parser
from tests.worker.parser_checks import as_json, contents, receive_all

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"


@pytest.fixture
def claude() -> OutputParser:
    return make_parser("claude")


def assistant(*blocks: dict[str, Any], message: str = "msg_1", **members: Any) -> dict[str, Any]:
    return {"type": "assistant", "message": {"id": message, "content": list(blocks)}, **members}


def user(*blocks: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"type": "user", "message": {"role": "user", "content": list(blocks)}, **members}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def tool_use(call: str = "t1") -> dict[str, Any]:
    return {"type": "tool_use", "id": call, "name": "Bash", "input": {"command": "ls"}}


def result(total: float = 0.0, **members: Any) -> dict[str, Any]:
    return {"type": "result", "subtype": "success", "is_error": False, "total_cost_usd": total, **members}


def event(kind: str, **members: Any) -> dict[str, Any]:
    return {"type": "stream_event", "event": {"type": kind, **members}}


def delta(words: str, index: int = 0, kind: str = "text_delta") -> dict[str, Any]:
    member = "text" if kind == "text_delta" else "thinking"
    return event("content_block_delta", index=index, delta={"type": kind, member: words})


def control(request_id: str = "r1", **request: Any) -> dict[str, Any]:
    return {"type": "control_request", "request_id": request_id, "request": request}


def test_a_parser_is_found_by_its_name() -> None:
    assert type(make_parser("claude")) is ClaudeParser
    with pytest.raises(UnknownParser, match="Unknown parser 'gpt'; parsers are acp, aider, claude, codex"):
        make_parser("gpt")


def test_only_the_first_init_is_published_unless_something_changed(claude: OutputParser) -> None:
    init = {"type": "system", "subtype": "init", "session_id": "s1", "model": "m1", "permissionMode": "default"}
    drafts = receive_all(
        claude, init, init, init | {"model": "m2"}, init | {"model": "m2"}, init | {"session_id": "s2"}
    )
    assert [as_json(draft) for draft in drafts] == [
        {"type": "init", "content": {"providerSessionId": "s1", "model": "m1"}},
        {"type": "status", "content": {"subtype": "init", "message": "model m2, permission mode default"}},
        {"type": "init", "content": {"providerSessionId": "s2", "model": "m1"}},
    ]


def test_an_init_of_bare_bones_is_an_init(claude: OutputParser) -> None:
    drafts = receive_all(claude, {"type": "system", "subtype": "init", "tools": None, "cwd": None})
    assert [as_json(draft) for draft in drafts] == [{"type": "init", "content": {}}]


def test_blocks_carry_their_sub_agent(claude: OutputParser) -> None:
    blocks = ({"type": "thinking", "thinking": "hm"}, text("hi"), tool_use())
    drafts = receive_all(claude, assistant(*blocks, parent_tool_use_id="parent"))
    assert [(draft.type, draft.parent_id) for draft in drafts] == [
        ("thinking", "parent"),
        ("text", "parent"),
        ("tool_call", "parent"),
    ]
    assert claude.close()[0].parent_id == "parent"


def test_a_repeated_frame_says_nothing_twice(claude: OutputParser) -> None:
    first, grown = assistant(text("one")), assistant(text("one"), tool_use(), text("two"))
    drafts = receive_all(claude, first, first, grown, grown)
    assert [draft.type for draft in drafts] == ["text", "tool_call", "text"]


def test_the_same_words_in_another_message_or_kind_are_said(claude: OutputParser) -> None:
    frames = (
        assistant({"type": "thinking", "thinking": "one"}, text("one")),
        assistant(text("one"), message="msg_2"),
        assistant(text("one"), message="msg_2", parent_tool_use_id="t"),
    )
    assert [draft.type for draft in receive_all(claude, *frames)] == ["thinking", "text", "text", "text"]


def test_a_long_text_is_told_from_its_repeat(claude: OutputParser) -> None:
    long, other = "x" * 10_000, "x" * 9_999 + "y"
    drafts = receive_all(claude, assistant(text(long)), assistant(text(other)), assistant(text(long)))
    assert [content["text"] for content in contents(drafts)] == [long, other]


def test_the_same_transcript_in_the_next_turn_is_said_again(claude: OutputParser) -> None:
    turn = (assistant(text("one")), result(0.1, uuid="u", result_index=0))
    drafts = receive_all(claude, *turn, *turn)
    assert [draft.type for draft in drafts] == ["text", "cost", "text", "cost"]


def test_pieces_are_linked_to_their_whole(claude: OutputParser) -> None:
    drafts = receive_all(
        claude,
        event("message_start", message={"id": "msg_1"}),
        event("content_block_start", index=0, content_block={"type": "thinking"}),
        delta("h", kind="thinking_delta"),
        delta("m\U0001f600", kind="thinking_delta"),
        delta(".", kind="thinking_delta"),
        event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "x"}),
        assistant({"type": "thinking", "thinking": "hm\U0001f600."}),
        event("content_block_stop", index=0),
        event("content_block_start", index=1, content_block={"type": "tool_use"}),
        event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": "{"}),
        assistant(tool_use()),
        event("content_block_start", index=2, content_block={"type": "text"}),
        delta("yes", index=2),
        assistant(text("yes")),
        event("message_stop"),
    )
    assert contents(drafts, "thinking_delta") == [
        {"text": "h", "blockId": "msg_1:0", "offset": 0},
        {"text": "m\U0001f600", "blockId": "msg_1:0", "offset": 1},
        {"text": ".", "blockId": "msg_1:0", "offset": 3},
    ]
    assert contents(drafts, "thinking") == [{"text": "hm\U0001f600.", "blockId": "msg_1:0"}]
    assert contents(drafts, "text_delta") == [{"text": "yes", "blockId": "msg_1:2", "offset": 0}]
    assert contents(drafts, "text") == [{"text": "yes", "blockId": "msg_1:2"}]


def test_pieces_of_two_sub_agents_do_not_mix(claude: OutputParser) -> None:
    def of(parent: str, line: dict[str, Any]) -> dict[str, Any]:
        return line | {"parent_tool_use_id": parent}

    drafts = receive_all(
        claude,
        of("a", event("message_start", message={"id": "ma"})),
        of("b", event("message_start", message={"id": "mb"})),
        of("a", delta("aa")),
        of("b", delta("b")),
        of("a", delta("a")),
    )
    assert [(c["blockId"], c["offset"]) for c in contents(drafts)] == [("ma:0", 0), ("mb:0", 0), ("ma:0", 2)]


def test_pieces_without_a_known_message_are_let_go_and_named_ones_are_not(claude: OutputParser) -> None:
    assert receive_all(claude, delta("lost")) == []
    drafts = receive_all(claude, delta("found") | {"api_message_id": "msg_9"})
    assert contents(drafts) == [{"text": "found", "blockId": "msg_9:0", "offset": 0}]


def test_a_whole_that_came_in_one_piece_has_no_block_id(claude: OutputParser) -> None:
    assert contents(receive_all(claude, assistant(text("whole")))) == [{"text": "whole"}]


def test_a_whole_whose_pieces_were_lost_is_linked_to_no_others(claude: OutputParser) -> None:
    start = event("message_start", message={"id": "msg_1"})
    drafts = receive_all(claude, start, delta("a"), assistant(text("a")), assistant(text("b")))
    assert contents(drafts, "text") == [{"text": "a", "blockId": "msg_1:0"}, {"text": "b"}]


def test_a_message_of_several_blocks_in_one_frame_numbers_them(claude: OutputParser) -> None:
    drafts = receive_all(
        claude, event("message_start", message={"id": "msg_1"}), delta("a"), assistant(text("a"), text("b"))
    )
    assert contents(drafts, "text") == [{"text": "a", "blockId": "msg_1:0"}, {"text": "b", "blockId": "msg_1:1"}]


def test_tools_that_ran_at_the_api(claude: OutputParser) -> None:
    drafts = receive_all(
        claude,
        assistant({"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {"query": "x"}}),
        assistant({"type": "web_search_tool_result", "tool_use_id": "srv", "content": [{"url": "u"}]}),
    )
    assert contents(drafts) == [
        {"toolUseId": "srv", "name": "web_search", "input": {"query": "x"}},
        {"toolUseId": "srv", "output": [{"url": "u"}], "isError": False},
    ]


@pytest.mark.parametrize(
    ("content", "output"),
    [
        ("plain", "plain"),
        ([{"type": "text", "text": "a"}, {"type": "image"}], [{"type": "text", "text": "a"}, {"type": "image"}]),
        (None, ""),
        ({"odd": 1}, {"odd": 1}),
    ],
)
def test_a_tool_result_comes_as_it_is(claude: OutputParser, content: Any, output: Any) -> None:
    block = {"type": "tool_result", "tool_use_id": "t1", "content": content, "is_error": True}
    drafts = receive_all(claude, assistant(tool_use()), user(block, parent_tool_use_id="p"), user(block))
    assert contents(drafts, "tool_result") == [{"toolUseId": "t1", "output": output, "isError": True}]
    assert drafts[1].parent_id == "p"
    assert claude.close() == []


def test_null_and_absent_members_are_the_same(claude: OutputParser) -> None:
    block = {"type": "tool_use", "id": "t1", "name": "Bash", "input": None}
    drafts = receive_all(claude, assistant(block), user({"type": "tool_result", "tool_use_id": "t1", "is_error": None}))
    assert contents(drafts) == [
        {"toolUseId": "t1", "name": "Bash", "input": {}},
        {"toolUseId": "t1", "output": "", "isError": False},
    ]


def test_a_result_whose_call_was_lost_is_published(claude: OutputParser) -> None:
    block = {"type": "tool_result", "tool_use_id": "lost", "content": "x"}
    assert [draft.type for draft in receive_all(claude, user(block), assistant(tool_use("lost")))] == [
        "tool_result",
        "tool_call",
    ]


def test_close_answers_the_open_calls_once(claude: OutputParser) -> None:
    receive_all(claude, assistant(tool_use("t1"), tool_use("t2")))
    receive_all(claude, user({"type": "tool_result", "tool_use_id": "t1", "content": ""}))
    assert contents(claude.close()) == [
        {
            "toolUseId": "t2",
            "output": "Interrupted: the runner ended before the tool answered",
            "isError": True,
        }
    ]
    assert claude.close("again") == []


def test_what_is_said_in_the_users_name(claude: OutputParser) -> None:
    spoken = {"type": "user", "message": {"role": "user", "content": "hello"}}
    drafts = receive_all(claude, spoken | {"isReplay": True}, spoken, user(text("[Request interrupted by user]")))
    assert contents(drafts) == [
        {"subtype": "user", "message": "hello"},
        {"subtype": "user", "message": "[Request interrupted by user]"},
    ]


def test_unknown_blocks_are_passed_on_and_their_neighbours_read(claude: OutputParser) -> None:
    odd = {"type": "redacted_thinking", "data": "zzz"}
    drafts = receive_all(claude, assistant(text("a"), odd, text("b")), user({"type": "image", "source": 1}))
    assert [as_json(draft) for draft in drafts] == [
        {"type": "text", "content": {"text": "a"}},
        {"type": "unknown", "content": odd},
        {"type": "text", "content": {"text": "b"}},
        {"type": "unknown", "content": {"type": "image", "source": 1}},
    ]


def test_costs_are_one_turns_and_the_sum_the_sessions(claude: OutputParser) -> None:
    usage = {"usage": {"input_tokens": 10, "output_tokens": 2}, "num_turns": 1}
    drafts = receive_all(claude, result(0.25, **usage), result(0.75, **usage), result(0.75, **usage))
    assert [content["totalCostUsd"] for content in contents(drafts)] == [0.25, 0.5, 0.0]
    assert contents(drafts)[-1]["sessionTotal"] == {
        "costUsd": 0.75,
        "inputTokens": 30,
        "outputTokens": 6,
        "numTurns": 3,
    }
    assert claude.total == SessionTotal(cost_usd=0.75, input_tokens=30, output_tokens=6, num_turns=3)


def test_totals_go_on_over_a_recovery() -> None:
    total = SessionTotal(cost_usd=1.0, input_tokens=5, output_tokens=5, num_turns=2)
    drafts = receive_all(make_parser("claude", total), result(0.5, num_turns=1))
    assert contents(drafts)[0]["sessionTotal"] == {
        "costUsd": 1.5,
        "inputTokens": 5,
        "outputTokens": 5,
        "numTurns": 3,
    }


def test_a_sum_that_begins_anew_counts_in_full(claude: OutputParser) -> None:
    lines = (result(0.5, result_index=0), result(0.75, result_index=1), result(0.625, result_index=0), result(0.25))
    assert [content["totalCostUsd"] for content in contents(receive_all(claude, *lines))] == [0.5, 0.25, 0.625, 0.25]


HAD = SessionTotal(cost_usd=0.5, num_turns=2)


@pytest.mark.parametrize(
    ("first", "turns"),
    [
        ({}, [0.125, 0.25]),  # a sum of 0.625 goes on from what the session had
        ({"model_usage_since_last_result": {"m": {"costUSD": 0.625}}}, [0.625, 0.25]),  # the CLI says that it does not
        ({"modelUsage": {"m": {"outputTokens": 9}}, "usage": {"output_tokens": 9}}, [0.625, 0.25]),  # so do its tokens
        ({"modelUsage": {"m": {"outputTokens": 90}}, "usage": {"output_tokens": 9}}, [0.125, 0.25]),
    ],
)
def test_a_recovered_sessions_first_sum_may_go_on_or_begin_anew(first: Any, turns: list[float]) -> None:
    claude = make_parser("claude", HAD, epoch=2)
    drafts = receive_all(claude, result(0.625, **first), result(0.875))
    assert [content["totalCostUsd"] for content in contents(drafts)] == turns
    assert claude.total.cost_usd == 0.5 + sum(turns)


def test_a_first_sum_below_what_the_session_had_began_anew() -> None:
    drafts = receive_all(make_parser("claude", HAD, epoch=2), result(0.25), result(0.375))
    assert [content["totalCostUsd"] for content in contents(drafts)] == [0.25, 0.125]


@pytest.mark.parametrize("refused", [{"total_cost_usd": 0}, {"total_cost_usd": None}])
def test_a_refused_turn_without_a_sum_does_not_move_it(claude: OutputParser, refused: Any) -> None:
    failed = result(0.0, is_error=True, subtype="error_during_execution") | refused
    drafts = receive_all(claude, result(0.5), failed, result(0.75))
    assert [content["totalCostUsd"] for content in contents(drafts)] == [0.5, 0.0, 0.25]


def test_a_resumed_process_that_goes_on_from_a_saved_sum() -> None:
    spent = {"model_usage_since_last_result": {"m": {"costUSD": 0.125}}}
    drafts = receive_all(make_parser("claude"), result(4.0, result_index=0, **spent))
    assert contents(drafts)[0]["totalCostUsd"] == 0.125


def test_a_repeated_result_counts_once(claude: OutputParser) -> None:
    line = result(0.5, uuid="u1", usage={"input_tokens": 1, "output_tokens": 1})
    assert len(receive_all(claude, line, line)) == 1
    assert claude.total.input_tokens == 1


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"is_error": True, "result": "API Error"}, {"isError": True, "result": "API Error"}),
        ({"is_error": False, "result": "fine"}, {"isError": False, "result": "fine"}),
        ({"subtype": "error_max_turns", "is_error": True}, {"isError": True, "errors": ["error_max_turns"]}),
        ({"subtype": "error_max_turns", "is_error": None}, {"isError": True, "errors": ["error_max_turns"]}),
        ({"is_error": True, "errors": ["a", 2]}, {"isError": True, "errors": ["a", "2"]}),
        ({"result": 5}, {"isError": False}),
    ],
)
def test_how_a_turn_ended(claude: OutputParser, members: dict[str, Any], expected: dict[str, Any]) -> None:
    (content,) = contents(receive_all(claude, result() | members))
    ending = {name: content[name] for name in ("isError", "result", "errors") if name in content}
    assert ending == expected


@pytest.mark.parametrize("odd", [3.0, None, "x", True, [], {}, -1, 10**30, 1e300])
def test_numbers_of_any_kind_end_the_turn(claude: OutputParser, odd: Any) -> None:
    line = {"type": "result", "num_turns": odd, "duration_ms": odd, "total_cost_usd": odd, "usage": odd, "uuid": odd}
    (content,) = contents(receive_all(claude, line), "cost")
    assert content["numTurns"] == {3.0: 3, 10**30: 2**53, 1e300: 2**53}.get(
        odd if isinstance(odd, int | float) else 0, 0
    )
    assert 0 <= content["totalCostUsd"] <= 2**53


def test_a_permission_is_asked_once(claude: OutputParser) -> None:
    line = control(subtype="can_use_tool", tool_name="Bash", input={"command": "rm"}, tool_use_id="t1")
    drafts = receive_all(claude, line, line, control("r2", subtype="can_use_tool", tool_name="Edit"))
    assert [as_json(draft) for draft in drafts] == [
        {
            "type": "approval_request",
            "content": {"requestId": "r1", "name": "Bash", "input": {"command": "rm"}, "toolUseId": "t1"},
        },
        {"type": "approval_request", "content": {"requestId": "r2", "name": "Edit", "input": {}}},
    ]


def test_a_withdrawn_permission(claude: OutputParser) -> None:
    cancelled = {"type": "control_cancel_request", "request_id": "r1"}
    drafts = receive_all(claude, control(subtype="can_use_tool", tool_name="Bash"), cancelled, cancelled)
    assert [as_json(draft) for draft in drafts[1:]] == [
        {"type": "approval_resolved", "content": {"requestId": "r1", "decision": "withdrawn", "by": "agent"}}
    ]


def test_the_question_tool_asks_questions(claude: OutputParser) -> None:
    asked = {"question": "Which?", "header": "Pick", "options": [{"label": "A"}], "multiSelect": False}
    line = control(subtype="can_use_tool", tool_name="AskUserQuestion", input={"questions": [asked, {"question": "?"}]})
    (draft,) = receive_all(claude, line)
    assert as_json(draft) == {
        "type": "question",
        "content": {
            "requestId": "r1",
            "questions": [asked | {"id": "0"}, {"id": "1", "header": "", "question": "?"}],
        },
    }


@pytest.mark.parametrize("given", [None, {}, {"questions": []}, {"questions": "?"}])
def test_a_question_tool_without_questions_asks_permission(claude: OutputParser, given: Any) -> None:
    (draft,) = receive_all(claude, control(subtype="can_use_tool", tool_name="AskUserQuestion", input=given))
    assert draft.type == "approval_request"


def test_elicitations_and_dialogs_are_questions(claude: OutputParser) -> None:
    drafts = receive_all(
        claude,
        control("r1", subtype="elicitation", mcp_server_name="calc", message="Sure?", mode="form", requested_schema={}),
        control("r2", subtype="request_user_dialog", dialog_kind="login", payload={"title": "Log in"}),
        control("r3", subtype="request_user_dialog", dialog_kind="login"),
    )
    assert [(draft.type, content["questions"]) for draft, content in zip(drafts, contents(drafts), strict=True)] == [
        (
            "question",
            [{"id": "0", "header": "calc", "question": "Sure?", "mode": "form", "requestedSchema": {}}],
        ),
        ("question", [{"id": "0", "header": "login", "question": "Log in", "payload": {"title": "Log in"}}]),
        ("question", [{"id": "0", "header": "login", "question": "login", "payload": {}}]),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {"subtype": "api_retry", "attempt": 2, "max_retries": 5, "error_status": 429, "error": "rate_limit"},
            "rate_limit (429): retry 2 of 5 in 0 ms",
        ),
        ({"subtype": "status", "status": "compacting"}, "compacting"),
        ({"subtype": "status", "status": None}, None),
        ({"subtype": "status", "status": None, "compact_result": "success"}, "compaction: success"),
        ({"subtype": "session_state_changed", "state": "idle"}, "idle"),
        ({"subtype": "permission_denied", "tool_name": "Bash", "message": "no"}, "no"),
        ({"subtype": "hook_response", "hook_name": "PreToolUse", "outcome": "error"}, "PreToolUse: error"),
        ({"subtype": "task_updated", "patch": {"status": "killed"}}, "killed"),
        ({"subtype": "task_updated", "patch": None}, None),
        ({"subtype": "brand_new", "content": "words"}, "words"),
        ({"subtype": "brand_new", "content": {"a": 1}}, None),
    ],
)
def test_what_the_cli_says_of_itself(claude: OutputParser, line: dict[str, Any], message: str | None) -> None:
    (draft,) = receive_all(claude, {"type": "system"} | line)
    expected = {"subtype": line["subtype"]} | ({} if message is None else {"message": message})
    assert as_json(draft) == {"type": "status", "content": expected}


@pytest.mark.parametrize(
    ("line", "content"),
    [
        (
            {"type": "tool_progress", "tool_name": "Bash", "elapsed_time_seconds": 12.7},
            {"subtype": "tool_progress", "message": "Bash: 12 s"},
        ),
        (
            {"type": "tool_use_summary", "summary": "did it"},
            {"subtype": "tool_use_summary", "message": "did it"},
        ),
        ({"type": "auth_status", "isAuthenticating": True}, {"subtype": "auth_status"}),
    ],
)
def test_notices_with_a_type_of_their_own(claude: OutputParser, line: dict[str, Any], content: dict[str, Any]) -> None:
    assert contents(receive_all(claude, line), "status") == [content]


def test_a_compaction(claude: OutputParser) -> None:
    line = {"type": "system", "subtype": "compact_boundary"}
    metadata = {"trigger": "manual", "pre_tokens": 155_000.0}
    drafts = receive_all(claude, line | {"compact_metadata": metadata}, line)
    assert contents(drafts, "compaction") == [{"trigger": "manual", "preTokens": 155_000}, {"trigger": "auto"}]


@pytest.mark.parametrize(
    ("info", "content"),
    [
        (
            {"status": "rejected", "rateLimitType": "five_hour", "resetsAt": 1_795_331_000, "utilization": 0.915},
            {
                "scope": "five_hour",
                "message": "five_hour: rejected, 92% used",
                "resetsAt": 1_795_331_000_000,
            },
        ),
        (
            {"status": "allowed", "resetsAt": 1_795_331_000_123},
            {"scope": "unknown", "message": "unknown: allowed", "resetsAt": 1_795_331_000_123},
        ),
        (None, {"scope": "unknown", "message": "unknown: unknown"}),
    ],
)
def test_a_rate_limit(claude: OutputParser, info: Any, content: dict[str, Any]) -> None:
    drafts = receive_all(claude, {"type": "rate_limit_event", "rate_limit_info": info})
    assert contents(drafts, "rate_limit") == [content]


@pytest.mark.parametrize(
    "line",
    [
        {"type": "control_response", "response": {"subtype": "success"}},
        {"type": "keep_alive"},
        {"type": "transcript_mirror", "entries": []},
        event("ping"),
        event("message_delta", delta={"stop_reason": "end_turn"}),
    ],
)
def test_what_says_nothing(claude: OutputParser, line: dict[str, Any]) -> None:
    assert receive_all(claude, line) == []


@pytest.mark.parametrize(
    "line",
    [
        {"type": "brand_new", "deep": [{"a": None}]},
        {"no": "type"},
        {"type": 5},
        {"type": None},
        control(subtype="hook_callback", callback_id="x"),
    ],
)
def test_unknown_objects_are_passed_on_as_they_came(claude: OutputParser, line: dict[str, Any]) -> None:
    assert [as_json(draft) for draft in receive_all(claude, line)] == [{"type": "unknown", "content": line}]


def test_an_unknown_object_loses_its_line_end(claude: OutputParser) -> None:
    (draft,) = receive_all(claude, b' {"type":"new"}\r\n')
    assert bytes(draft.content) == b'{"type":"new"}'  # type: ignore[arg-type]  # unknown: a Raw


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"type":"assistant"}', "Malformed assistant (Object missing required field `message`): "),
        (b'{"type":"user","message":"hi"}', "Malformed user (Expected `object`, got `str` - at `$.message`): "),
        (b'{"type":"assistant","message":{"content":[{"type":"text"}]}}', "Malformed text block (a member is missing)"),
        (b'{"type":"user","message":{"content":[{"type":"tool_result"}]}}', "Malformed tool_result block "),
        (b'{"type":"control_request","request_id":5,"request":{}}', "Malformed control_request (Expected `str`"),
    ],
)
def test_a_known_type_without_what_it_is_about(claude: OutputParser, line: bytes, message: str) -> None:
    (content,) = contents(receive_all(claude, line), "error")
    assert content["code"] == "malformed"
    assert content["excerpt"] == line.decode()[:100]
    assert content["message"].startswith(message)


def test_an_api_error_is_an_error_with_its_words(claude: OutputParser) -> None:
    drafts = receive_all(claude, assistant(text("API Error: 500"), error="server_error"), assistant(error="overloaded"))
    assert [as_json(draft) for draft in drafts] == [
        {"type": "text", "content": {"text": "API Error: 500"}},
        {"type": "error", "content": {"message": "API Error: 500", "code": "server_error"}},
        {"type": "error", "content": {"message": "overloaded", "code": "overloaded"}},
    ]


def test_a_message_whose_content_is_a_string(claude: OutputParser) -> None:
    drafts = receive_all(claude, {"type": "assistant", "message": {"content": "hi"}})
    assert contents(drafts, "text") == [{"text": "hi"}]


def test_the_order_of_members_does_not_matter(claude: OutputParser) -> None:
    lines = (TRANSCRIPTS / "claude-tool.ndjson").read_bytes().splitlines()
    turned = [json.dumps(dict(reversed(json.loads(line).items()))).encode() for line in lines]
    straight = [as_json(draft) for line in lines for draft in make_parser("claude").receive(line)]
    assert [as_json(draft) for line in turned for draft in make_parser("claude").receive(line)] == straight


def use(call: str, parent: str | None = None, name: str = "Bash") -> dict[str, Any]:
    block = {"type": "tool_use", "id": call, "name": name, "input": {}}
    return {"type": "assistant", "parent_tool_use_id": parent, "message": {"id": f"m{call}", "content": [block]}}


def answer(call: str, parent: str | None = None) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": call, "content": "done"}
    return {"type": "user", "parent_tool_use_id": parent, "message": {"content": [block]}}


def test_a_call_whose_result_was_lost_is_answered_at_the_turns_end(claude: OutputParser) -> None:
    drafts = receive_all(claude, use("a"), use("s", name="Task"), use("b", "s"), result(0.1))
    results = [(content["toolUseId"], content["isError"]) for content in contents(drafts, "tool_result")]
    assert results == [("a", True), ("s", True), ("b", True)]
    assert drafts[-1].type == "cost"
    assert claude.close() == []


def test_the_calls_of_a_background_sub_agent_stay_open_over_turns(claude: OutputParser) -> None:
    drafts = receive_all(claude, use("s", name="Task"), answer("s"), use("b", "s"), use("a"), result(0.1))
    assert [content["toolUseId"] for content in contents(drafts, "tool_result")] == ["s", "a"]
    (late,) = receive_all(claude, answer("b", "s"))
    assert (as_json(late)["content"], late.parent_id) == ({"toolUseId": "b", "output": "done", "isError": False}, "s")


def test_a_parent_is_the_call_that_subscribers_know() -> None:
    turn = (use("s", name="Task"), use("b", "s"), answer("b", "s"), answer("s"), result(0.1))
    drafts = receive_all(make_parser("claude", epoch=2), *turn, *turn)
    assert [draft.parent_id for draft in drafts if draft.type == "tool_call"] == [None, "2.s", None, "2.s~2"]


def test_a_request_id_is_given_once_in_a_session(claude: OutputParser) -> None:
    ask = control(subtype="can_use_tool", tool_name="Bash", input={}, tool_use_id="a")
    assert [content["requestId"] for content in contents(receive_all(claude, ask, ask))] == ["r1"]
    assert isinstance(claude, ClaudeParser)
    claude.close_request("r1")
    assert [content["requestId"] for content in contents(receive_all(claude, ask))] == ["r1~2"]
    recovered = receive_all(make_parser("claude", epoch=2), use("a"), ask)
    assert contents(recovered, "approval_request")[0] | {"input": {}} == {
        "requestId": "2.r1",
        "name": "Bash",
        "input": {},
        "toolUseId": "2.a",
    }


def start(message: str = "m1") -> dict[str, Any]:
    return event("message_start", message={"id": message})


def abandoned(drafts: list[DraftMessage]) -> list[tuple[str, str, int]]:
    found = [(draft.type, as_json(draft)["content"]) for draft in drafts if draft.type.endswith("_delta")]
    return [(kind, each["blockId"], each["offset"]) for kind, each in found if each.get("abandoned")]


def test_a_message_that_is_begun_again_abandons_the_half_one(claude: OutputParser) -> None:
    drafts = receive_all(
        claude, start(), delta("The answer is"), {"type": "system", "subtype": "api_retry"},
        start("m2"), delta("The answer"),
        assistant(text("The answer"), message="m2"), result(0.1),
    )  # fmt: skip
    assert abandoned(drafts) == [("text_delta", "m1:0", 13)]


@pytest.mark.parametrize("end", ["result", "close"])
def test_what_is_half_said_at_the_end_is_abandoned(claude: OutputParser, end: str) -> None:
    receive_all(claude, start(), delta("Hm", kind="thinking_delta"))
    drafts = receive_all(claude, result(0.1)) if end == "result" else claude.close()
    assert abandoned(drafts) == [("thinking_delta", "m1:0", 2)]
    assert abandoned(claude.close()) == []


def test_a_message_whose_beginning_was_lost_abandons_the_half_one(claude: OutputParser) -> None:
    piece = delta("new") | {"api_message_id": "m2"}
    drafts = receive_all(claude, start(), delta("old"), piece)
    assert abandoned(drafts) == [("text_delta", "m1:0", 3)]
    assert contents(drafts)[-1] == {"text": "new", "blockId": "m2:0", "offset": 0}


def test_a_background_sub_agents_half_text_goes_on_over_the_turns_end(claude: OutputParser) -> None:
    of_sub = {"parent_tool_use_id": "s"}
    receive_all(claude, use("s", name="Task"), answer("s"), start() | of_sub, delta("He") | of_sub)
    assert abandoned(receive_all(claude, result(0.1))) == []
    drafts = receive_all(claude, delta("llo") | of_sub, assistant(text("Hello"), message="m1") | of_sub)
    assert [each.get("offset") for each in contents(drafts)] == [2, None]
    assert contents(drafts)[-1] == {"text": "Hello", "blockId": "m1:0"}


def test_another_request_by_an_open_ones_id_takes_its_place(claude: OutputParser) -> None:
    first = control(subtype="can_use_tool", tool_name="Bash", input={"command": "ls"})
    other = control(subtype="can_use_tool", tool_name="Bash", input={"command": "rm"})
    drafts = receive_all(claude, first, other)
    assert [draft.type for draft in drafts] == ["approval_request", "approval_resolved", "approval_request"]
    assert [content["requestId"] for content in contents(drafts)] == ["r1", "r1", "r1~2"]


def test_a_sub_agents_request_names_its_parent(claude: OutputParser) -> None:
    ask = control(subtype="can_use_tool", tool_name="Bash", input={}, tool_use_id="b")
    drafts = receive_all(claude, use("s", name="Task"), use("b", "s"), ask)
    assert [draft.parent_id for draft in drafts] == [None, "s", "s"]
