"""What each kind of `codex exec --json`'s lines becomes, beyond what the recordings show."""

from __future__ import annotations

from typing import Any

import pytest

from agentrq.wire.messages import SessionTotal
from agentrq_worker.providers.parser import OutputParser
from agentrq_worker.providers.registry import make_parser
from tests.worker.parser_checks import as_json, contents, receive_all

THREAD = {"type": "thread.started", "thread_id": "th1"}


@pytest.fixture
def codex() -> OutputParser:
    return make_parser("codex")


def item(event: str, item_type: str, item_id: str | None = "item_0", **members: Any) -> dict[str, Any]:
    return {"type": f"item.{event}", "item": {"id": item_id, "type": item_type, **members}}


def command(event: str, item_id: str = "item_0", **members: Any) -> dict[str, Any]:
    return item(event, "command_execution", item_id, command="ls", **members)


def completed(input_tokens: int = 100, output_tokens: int = 20) -> dict[str, Any]:
    return {"type": "turn.completed", "usage": {"input_tokens": input_tokens, "output_tokens": output_tokens}}


def test_words_and_thoughts(codex: OutputParser) -> None:
    drafts = receive_all(
        codex,
        {"type": "turn.started"},
        item("completed", "reasoning", "item_0", text="hm"),
        item("completed", "agent_message", "item_1", text="hi"),
        item("completed", "agent_message", "item_1", text="hi"),
        item("completed", "plan", "item_2", text="first this"),
    )
    assert [as_json(draft) for draft in drafts] == [
        {"type": "thinking", "content": {"text": "hm"}},
        {"type": "text", "content": {"text": "hi"}},
        {"type": "status", "content": {"subtype": "plan", "message": "first this"}},
    ]


def test_a_call_is_made_when_it_starts_and_answered_when_it_is_done(codex: OutputParser) -> None:
    started, done = command("started"), command("completed", aggregated_output="a\n", exit_code=0, status="completed")
    drafts = receive_all(codex, started, started, command("updated", aggregated_output="a"), done, done)
    assert [as_json(draft) for draft in drafts] == [
        {
            "type": "tool_call",
            "content": {"toolUseId": "item_0", "name": "command_execution", "input": {"command": "ls"}},
        },
        {"type": "tool_result", "content": {"toolUseId": "item_0", "output": "a\n", "isError": False}},
    ]


def test_a_call_that_was_never_started_comes_with_its_answer(codex: OutputParser) -> None:
    changes = [{"path": "a", "kind": "add"}]
    drafts = receive_all(
        codex,
        item("updated", "file_change", changes=changes, status="in_progress"),
        item("completed", "file_change", changes=changes, status="completed"),
    )
    assert contents(drafts) == [
        {"toolUseId": "item_0", "name": "file_change", "input": {"changes": changes}},
        {"toolUseId": "item_0", "output": "completed", "isError": False},
    ]


@pytest.mark.parametrize(
    ("members", "failed"),
    [
        ({"exit_code": 0, "status": "completed"}, False),
        ({"exit_code": 0.0}, False),
        ({"exit_code": None}, False),
        ({"status": []}, False),
        ({}, False),
        ({"exit_code": 1, "status": "completed"}, True),
        ({"exit_code": 0, "status": "failed"}, True),
        ({"status": "declined"}, True),
    ],
)
def test_whether_a_command_failed(codex: OutputParser, members: dict[str, Any], failed: bool) -> None:
    drafts = receive_all(codex, command("completed", **members))
    assert contents(drafts, "tool_result") == [{"toolUseId": "item_0", "output": "", "isError": failed}]


@pytest.mark.parametrize(
    ("members", "output", "failed"),
    [
        ({"result": {"content": [1]}, "error": None}, {"content": [1]}, False),
        ({"result": None, "error": {"message": "no server"}, "status": "failed"}, "no server", True),
        ({"error": {"odd": 1}}, {"odd": 1}, True),
        ({"error": "plain"}, "plain", True),
        ({}, "", False),
    ],
)
def test_an_mcp_call(codex: OutputParser, members: dict[str, Any], output: Any, failed: bool) -> None:
    called = members | {"server": "calc", "tool": "add", "arguments": {"a": 1}}
    drafts = receive_all(codex, item("completed", "mcp_tool_call", **called))
    assert contents(drafts) == [
        {"toolUseId": "item_0", "name": "mcp__calc__add", "input": {"a": 1}},
        {"toolUseId": "item_0", "output": output, "isError": failed},
    ]


def test_a_call_to_other_agents(codex: OutputParser) -> None:
    members: dict[str, Any] = {"tool": "spawn_agent", "receiver_thread_ids": ["th2"]}
    members["agents_states"] = {"th2": {"status": "running"}}
    drafts = receive_all(
        codex,
        item("completed", "collab_tool_call", "item_0", prompt="go", **members),
        item("completed", "collab_tool_call", "item_1", prompt=None, **members),
    )
    assert contents(drafts, "tool_call") == [
        {
            "toolUseId": "item_0",
            "name": "spawn_agent",
            "input": {"receiver_thread_ids": ["th2"], "prompt": "go"},
        },
        {"toolUseId": "item_1", "name": "spawn_agent", "input": {"receiver_thread_ids": ["th2"]}},
    ]
    assert contents(drafts, "tool_result")[0]["output"] == {"th2": {"status": "running"}}


def test_a_bare_search(codex: OutputParser) -> None:
    drafts = receive_all(codex, item("completed", "web_search"))
    assert contents(drafts) == [
        {"toolUseId": "item_0", "name": "web_search", "input": {"query": ""}},
        {"toolUseId": "item_0", "output": {"query": ""}, "isError": False},
    ]


def test_a_todo_list_is_told_when_it_moves(codex: OutputParser) -> None:
    def todo(event: str, *done: bool) -> dict[str, Any]:
        return item(event, "todo_list", items=[{"text": f"step {n}", "completed": d} for n, d in enumerate(done)])

    drafts = receive_all(
        codex,
        todo("started", False, False),
        todo("updated", True, False),
        todo("updated", True, False),
        todo("updated", True, True),
        todo("completed", True, True),
    )
    assert [content["message"] for content in contents(drafts, "status")] == [
        "0 of 2 done; next: step 0",
        "1 of 2 done; next: step 1",
        "2 of 2 done",
    ]


@pytest.mark.parametrize("end", [completed(), {"type": "turn.failed", "error": {"message": "x"}}, THREAD])
def test_a_call_without_an_answer_is_closed_with_its_turn(codex: OutputParser, end: dict[str, Any]) -> None:
    drafts = receive_all(codex, THREAD, command("started"), end)
    assert [draft.type for draft in drafts[1:3]] == ["tool_call", "tool_result"]
    assert contents(drafts, "tool_result") == [
        {
            "toolUseId": "item_0",
            "output": "Interrupted: the turn ended before the tool answered",
            "isError": True,
        }
    ]
    assert codex.close() == []


def test_a_cut_turn_is_closed(codex: OutputParser) -> None:
    receive_all(codex, THREAD, command("started", "item_3"))
    assert contents(codex.close("gone")) == [{"toolUseId": "item_3", "output": "gone", "isError": True}]


def test_item_ids_of_the_next_process_are_new_calls(codex: OutputParser) -> None:
    turn = (THREAD, command("started"), command("completed"), item("completed", "agent_message", "item_1", text="a"))
    drafts = receive_all(codex, *turn, completed(), *turn, completed(), *turn)
    assert [content["toolUseId"] for content in contents(drafts, "tool_call", "tool_result")] == [
        "item_0",
        "item_0",
        "item_0~2",
        "item_0~2",
        "item_0~3",
        "item_0~3",
    ]
    assert len(contents(drafts, "text")) == 3


def test_item_ids_of_another_writer_are_new_calls() -> None:
    drafts = receive_all(make_parser("codex", epoch=4), THREAD, command("completed"))
    assert contents(drafts, "tool_call")[0]["toolUseId"] == "4.item_0"


def spent(*contents: dict[str, Any]) -> list[tuple[int, int]]:
    return [(content["inputTokens"], content["outputTokens"]) for content in contents]


def test_usage_is_the_threads_running_sum(codex: OutputParser) -> None:
    drafts = receive_all(codex, THREAD, completed(100, 20), THREAD, completed(350, 30))
    assert spent(*contents(drafts, "cost")) == [(100, 20), (250, 10)]
    assert contents(drafts, "cost")[-1] == {
        "totalCostUsd": 0.0,
        "durationMs": 0,
        "inputTokens": 250,
        "outputTokens": 10,
        "numTurns": 1,
        "isError": False,
        "sessionTotal": {"costUsd": 0.0, "inputTokens": 350, "outputTokens": 30, "numTurns": 2},
    }


def test_usage_of_another_thread_or_a_lower_or_unmoved_one_counts_in_full(codex: OutputParser) -> None:
    drafts = receive_all(
        codex, THREAD, completed(100, 20), THREAD | {"thread_id": "th2"}, completed(150, 30), completed(90, 40)
    )
    assert spent(*contents(drafts, "cost")) == [(100, 20), (150, 30), (90, 40)]
    assert spent(*contents(receive_all(codex, completed(90, 40)))) == [(90, 40)]


def test_a_recovered_session_goes_on_from_its_thread() -> None:
    total = SessionTotal(input_tokens=100, output_tokens=20, num_turns=1)
    drafts = receive_all(make_parser("codex", total, epoch=2), THREAD, completed(150, 25))
    assert spent(*contents(drafts, "cost")) == [(50, 5)]
    assert contents(drafts, "cost")[0]["sessionTotal"] == {
        "costUsd": 0.0,
        "inputTokens": 150,
        "outputTokens": 25,
        "numTurns": 2,
    }


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": None}, "x", {"input_tokens": 1.0, "output_tokens": -1}])
def test_any_usage_ends_the_turn(codex: OutputParser, usage: Any) -> None:
    (content,) = contents(receive_all(codex, {"type": "turn.completed", "usage": usage}))
    assert (content["isError"], content["numTurns"], content["outputTokens"]) == (False, 1, 0)


@pytest.mark.parametrize(
    ("error", "errors"), [({"message": "no"}, ["no"]), (None, ["The turn failed"]), ("x", ["The turn failed"])]
)
def test_a_failed_turn(codex: OutputParser, error: Any, errors: list[str]) -> None:
    (content,) = contents(receive_all(codex, {"type": "turn.failed", "error": error}))
    assert (content["isError"], content["errors"], content["numTurns"]) == (True, errors, 1)


def test_a_reconnection_is_no_error(codex: OutputParser) -> None:
    drafts = receive_all(
        codex,
        {"type": "error", "message": "Reconnecting... 2/5 (stream disconnected)"},
        {"type": "error", "message": "quota exceeded"},
        {"type": "error"},
        item("completed", "error", message="deprecated"),
    )
    assert [as_json(draft) for draft in drafts] == [
        {
            "type": "status",
            "content": {"subtype": "retry", "message": "Reconnecting... 2/5 (stream disconnected)"},
        },
        {"type": "error", "content": {"message": "quota exceeded"}},
        {"type": "error", "content": {"message": "unknown"}},
        {"type": "status", "content": {"subtype": "warning", "message": "deprecated"}},
    ]


@pytest.mark.parametrize(
    "line",
    [
        {"type": "request_user_input", "id": "t", "call_id": "c", "questions": []},
        item("started", "hologram", data=1),
        item("updated", "hologram"),
        item("completed", "hologram"),
        item("completed", "hologram", None),
    ],
)
def test_unknown_things_are_passed_on(codex: OutputParser, line: dict[str, Any]) -> None:
    assert [as_json(draft) for draft in receive_all(codex, line)] == [{"type": "unknown", "content": line}]


@pytest.mark.parametrize(
    "line",
    [
        item("completed", "agent_message"),
        item("completed", "agent_message", text=5),
        item("completed", "command_execution", None),
        item("started", "command_execution", None),
        {"type": "item.completed"},
    ],
)
def test_items_without_what_they_are_about(codex: OutputParser, line: dict[str, Any]) -> None:
    (content,) = contents(receive_all(codex, line), "error")
    assert content["code"] == "malformed"


@pytest.mark.parametrize(
    "line",
    [
        {"type": "turn.started"},
        {"type": "item.plan.delta", "item_id": "x", "delta": "y"},
        item("started", "agent_message"),
        item("updated", "reasoning"),
    ],
)
def test_what_says_nothing(codex: OutputParser, line: dict[str, Any]) -> None:
    assert receive_all(codex, line) == []
