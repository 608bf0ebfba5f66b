"""What is written to Claude Code and when, against recordings of sessions that were really held; its command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrq.wire.commands import Options
from agentrq_worker.providers.claude.answers import UNANSWERED
from agentrq_worker.providers.claude.parser import ClaudeParser
from agentrq_worker.providers.claude.protocol import FLAGS, ClaudeProtocol
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import (
    Alive,
    Background,
    CommandRefused,
    Ended,
    Log,
    ProtocolEvent,
    Ready,
    Reply,
    Sent,
    TurnStarted,
    Write,
)  # fmt: skip
from tests.worker.rpc_player import data_of

TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"
RECORDED = sorted(path.name.removesuffix(".in.ndjson") for path in TRANSCRIPTS.glob("claude-*.in.ndjson"))
SPOKEN = sorted(path.name for path in TRANSCRIPTS.glob("claude[-1]*.ndjson") if not path.match("*.in.ndjson"))


def make(**options: Any) -> ClaudeProtocol:
    """A conversation with a CLI that has said something already."""
    protocol = fresh(**options)
    protocol.receive(b'{"type":"keep_alive"}')
    return protocol


def fresh(**options: Any) -> ClaudeProtocol:
    return ClaudeProtocol(Options(**options))


def line(**members: Any) -> bytes:
    return json.dumps(members).encode()


def written(sent: Sent | bytes) -> Any:
    """The one line that was written, as JSON."""
    data = data_of(sent)
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
    return json.loads(data)


def asks(request_id: str = "r1", **request: Any) -> bytes:
    return line(type="control_request", request_id=request_id, request={"subtype": "can_use_tool"} | request)


def reply_to(protocol: ClaudeProtocol, answer: Any, request_id: str = "r1", own_id: str = "r1") -> Any:
    return response(protocol.answer(request_id, answer), own_id)


def response(data: bytes, own_id: str = "r1") -> Any:
    """What a control response says to the CLI's request."""
    said = written(data)
    assert said["type"] == "control_response"
    assert (said["response"]["subtype"], said["response"]["request_id"]) == ("success", own_id)
    return said["response"]["response"]


def others(said: Sequence[ProtocolEvent]) -> list[ProtocolEvent]:
    return [each for each in said if not isinstance(each, DraftMessage)]


TEXT = line(type="assistant", message={"id": "m", "content": [{"type": "text", "text": "hi"}]})
REQUESTING = line(type="system", subtype="status", status="requesting", session_id="s", uuid="u")
INIT = line(type="system", subtype="init", session_id="s", model="m", permissionMode="default", cwd="/", tools=[])
RESULT = line(type="result", subtype="success", is_error=False, result="", num_turns=1, total_cost_usd=0.1, uuid="e")


@pytest.mark.parametrize("name", RECORDED)
def test_it_writes_what_was_recorded(name: str) -> None:
    protocol = make()
    for each in (TRANSCRIPTS / f"{name}.ndjson").read_bytes().split(b"\n"):
        protocol.receive(each)
        if b'"control_request"' in each:
            break  # the answer is due here: the end of the turn would close the request
    compared = 0
    for text in (TRANSCRIPTS / f"{name}.in.ndjson").read_text().splitlines():
        recorded = json.loads(text)
        if recorded["type"] == "user":
            assert written(protocol.prompt(recorded["message"]["content"])) == recorded
        elif recorded["type"] == "control_response":
            theirs = recorded["response"]
            assert written(protocol.answer(theirs["request_id"], theirs["response"])) == recorded
        elif recorded["request"]["subtype"] == "interrupt":
            ours = written(protocol.interrupt())
            assert {**ours, "request_id": recorded["request_id"]} == recorded
        else:
            ours = written(protocol.open())
            assert {**ours, "request_id": recorded["request_id"]} == recorded
        compared += 1
    assert compared >= 2


@pytest.mark.parametrize("name", SPOKEN)
def test_it_reads_as_its_parser(name: str) -> None:
    protocol, parser = make(), ClaudeParser()
    for each in (TRANSCRIPTS / name).read_bytes().split(b"\n"):
        said = protocol.receive(each)
        assert [one for one in said if isinstance(one, DraftMessage)] == parser.receive(each)
        assert not [one for one in others(said) if not isinstance(one, Background)]


@given(st.binary(max_size=200) | st.sampled_from([INIT, RESULT, REQUESTING]).map(lambda whole: whole[:-3]))
def test_no_line_is_too_bad(data: bytes) -> None:
    make(system_prompt="Be kind.").receive(data)
    make().receive(b'{"type":"control_response","response":' + data)


def test_command_line() -> None:
    options = Options(
        model="opus", system_prompt="-v", max_turns=3, permission_mode="plan", max_budget_usd=1.5, resume="abc",
        worktree_name="-x", additional_directories=["/a", "-b"],
    )  # fmt: skip
    argv = make().command(["claude"], options)
    assert argv[: 1 + len(FLAGS)] == ["claude", *FLAGS]
    assert argv[1 + len(FLAGS) :] == [
        "--permission-mode", "plan", "--model", "opus", "--max-turns", "3",
        "--max-budget-usd", "1.5", "--worktree=-x", "--resume", "abc", "--add-dir", "/a", "--add-dir=-b",
    ]  # fmt: skip
    assert make().command(["x", "y"], Options()) == ["x", "y", *FLAGS, "--permission-mode", "bypassPermissions"]


@pytest.mark.parametrize(
    ("asked", "given"),
    [(None, "default"), ("bypassPermissions", "default"), ("acceptEdits", "default"), ("plan", "plan")],
)
def test_a_policy_has_to_be_asked(asked: str | None, given: str) -> None:
    protocol = make(approvals="allow")
    argv = protocol.command([], Options(permission_mode=asked, approvals="allow"))
    assert argv[argv.index("--permission-mode") + 1] == given
    with pytest.raises(CommandRefused, match="policy"):
        protocol.set_permission_mode("bypassPermissions")
    request = written(protocol.set_permission_mode("plan"))["request"]
    assert request == {"subtype": "set_permission_mode", "mode": "plan"}


def test_the_other_controls() -> None:
    protocol = make()
    assert written(protocol.set_model("opus"))["request"] == {"subtype": "set_model", "model": "opus"}
    assert written(protocol.set_permission_mode("bypassPermissions"))["request"]["mode"] == "bypassPermissions"
    assert written(protocol.steer("also"))["priority"] == "next"
    farewell = [json.loads(each) for each in protocol.stop().splitlines()]
    assert [each["request"]["subtype"] for each in farewell] == ["interrupt", "end_session"]
    assert len({each["request_id"] for each in farewell}) == 2
    assert written(protocol.prompt("a\nb\u2028\U0001f600"))["message"]["content"] == "a\nb\u2028\U0001f600"


def test_an_interrupt_before_the_turn_is_sent_once_more_when_it_begins() -> None:
    protocol = make()
    protocol.prompt("go")
    assert written(protocol.interrupt())["request"]["subtype"] == "interrupt"
    assert others(protocol.receive(INIT)) == []
    again = others(protocol.receive(REQUESTING))
    assert again[0] == Alive()
    assert isinstance(again[1], Write)
    assert written(again[1].data)["request"]["subtype"] == "interrupt"
    assert others(protocol.receive(REQUESTING)) == [Alive()]
    protocol.interrupt()  # the turn is under way: once is enough
    assert others(protocol.receive(REQUESTING)) == [Alive()]
    protocol.receive(RESULT)
    protocol.prompt("next")
    assert others(protocol.receive(REQUESTING)) == [Alive()]


def confirm(sent: Sent, error: Any = None) -> bytes:
    """What the CLI answers to a request of ours."""
    found = {"subtype": "success", "response": {}} if error is None else {"subtype": "error", "error": error}
    return line(type="control_response", response=found | {"request_id": sent.confirmation})


def test_the_agent_confirms_or_refuses_each_change_and_interrupt() -> None:
    protocol = make()
    protocol.prompt("go")
    protocol.receive(INIT)
    commands: list[Callable[[], Sent]] = [
        lambda: protocol.set_model("m"),
        lambda: protocol.set_permission_mode("plan"),
        protocol.interrupt,
    ]
    for command in commands:
        refused, accepted = command(), command()
        assert refused.confirmation != accepted.confirmation
        assert protocol.receive(confirm(refused, "not possible")) == [Reply(refused.confirmation or "", "not possible")]
        assert protocol.receive(confirm(accepted)) == [Reply(accepted.confirmation or "")]
        assert protocol.receive(confirm(accepted)) == []  # answered already
    unclear = protocol.set_model("m")
    (reply,) = protocol.receive(confirm(unclear, {"code": 3}))
    assert reply == Reply(unclear.confirmation or "", "Claude Code refused this")


def test_an_answer_that_nobody_waits_for_is_only_logged() -> None:
    protocol = make()
    fine = {"subtype": "success", "request_id": "interrupt-1", "response": {"still_queued": []}}
    assert protocol.receive(line(type="control_response", response=fine)) == []
    wrong = {"subtype": "error", "request_id": "interrupt-2", "error": "no turn"}
    assert protocol.receive(line(type="control_response", response=wrong)) == [Log("interrupt-2: no turn")]
    old = {"subtype": "error", "request_id": "end_session-3", "error": "Unsupported control request subtype"}
    assert protocol.receive(line(type="control_response", response=old)) == []


def test_a_request_nobody_can_answer_is_declined() -> None:
    said = make().receive(line(type="control_request", request_id="h1", request={"subtype": "hook_callback"}))
    assert isinstance(said[0], DraftMessage)
    assert said[0].type == "unknown"
    assert isinstance(said[1], Write)
    declined = written(said[1].data)["response"]
    assert (declined["subtype"], declined["request_id"]) == ("error", "h1")


def test_a_session_that_cannot_be_resumed() -> None:
    failed = line(type="result", subtype="error_during_execution", is_error=True, errors=["No conversation found"])
    assert others(make(resume="x").receive(failed)) == [Ended("No conversation found")]
    started = make()
    started.receive(INIT)
    assert others(started.receive(failed)) == []  # a turn that failed is no end


def test_the_system_prompt_goes_by_a_request_of_any_size() -> None:
    words = "Be kind. " * 50_000
    protocol = fresh(system_prompt=words)
    assert not any("kind" in argument for argument in protocol.command(["claude"], Options(system_prompt=words)))
    request = written(protocol.open())
    assert request["request"] == {"subtype": "initialize", "appendSystemPrompt": words}
    before = protocol.is_ready
    answer = {"subtype": "success", "request_id": request["request_id"], "response": {"commands": []}}
    assert protocol.receive(line(type="control_response", response=answer)) == [Ready()]
    assert (before, protocol.is_ready) == (False, True)


def test_a_refused_system_prompt_ends_the_session() -> None:
    protocol = fresh(system_prompt="Be kind.")
    answer = {"subtype": "error", "request_id": written(protocol.open())["request_id"], "error": "too long"}
    (_, ended) = protocol.receive(line(type="control_response", response=answer))
    assert ended == Ended("Claude Code did not take the system prompt: too long")


def test_it_is_ready_once_it_says_anything() -> None:
    protocol = fresh()
    assert written(protocol.open())["request"] == {"subtype": "initialize"}
    refused = {"subtype": "error", "request_id": "initialize-1", "error": "not known"}  # by a CLI that has no handshake
    before = protocol.is_ready
    events = protocol.receive(line(type="control_response", response=refused))
    assert events == [Ready(), Log("initialize-1: not known")]
    assert (before, protocol.is_ready) == (False, True)
    protocol.prompt("go")
    assert others(protocol.receive(INIT)) == []


def test_only_a_prompt_or_an_init_begins_a_turn() -> None:
    protocol = make()
    assert others(protocol.receive(INIT)) == []  # nothing begins one before the first prompt
    protocol.prompt("go")
    assert others(protocol.receive(INIT)) == []
    assert others(protocol.receive(TEXT)) == []
    assert others(protocol.receive(RESULT)) == []
    for late in (TEXT, REQUESTING, asks(tool_name="Bash", input={})):
        assert others(protocol.receive(late)) == []
    assert others(protocol.receive(INIT)) == [TurnStarted()]
    assert others(protocol.receive(INIT)) == []
    protocol.receive(RESULT)
    assert others(protocol.receive(INIT)) == [TurnStarted()]


def test_a_result_over_the_limit_ends_the_turn() -> None:
    protocol = make()
    protocol.prompt("go")
    protocol.receive(INIT)
    protocol.receive(line(type="assistant", message={"content": [{"type": "tool_use", "id": "t", "name": "n"}]}))
    told = protocol.receive_lost(b'{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t"', 9_000)
    assert [draft.type for draft in told if isinstance(draft, DraftMessage)] == ["error"]
    ended = protocol.receive_lost(b'{"duration_ms":1,"type":"result","result":"aaaa', 90_000)
    assert [draft.type for draft in ended if isinstance(draft, DraftMessage)] == ["error", "tool_result", "cost"]
    assert others(protocol.receive(INIT)) == [TurnStarted()]


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        ({"tool_name": "Bash", "input": {}}, {"behavior": "deny", "message": UNANSWERED}),
        ({"tool_name": "AskUserQuestion", "input": {"questions": [{}]}}, {"behavior": "deny", "message": UNANSWERED}),
        ({"subtype": "elicitation", "message": "Which port?"}, {"action": "cancel"}),
        ({"subtype": "request_user_dialog", "dialog_kind": "k"}, {"behavior": "cancelled"}),
    ],
)
def test_a_request_that_nobody_will_answer_is_withdrawn(request_: Any, reply: Any) -> None:
    protocol = make()
    protocol.receive(asks(**request_))
    protocol.receive(RESULT)  # the turn's end takes no answer away
    assert response(protocol.withdraw("r1")) == reply
    assert protocol.withdraw("r1") == b""


def system(subtype: str, **members: Any) -> bytes:
    return line(type="system", subtype=subtype, **members)


def test_background_tasks_are_told_by_the_list_of_all() -> None:
    protocol = make()
    tasks = [{"task_id": "1", "description": "tests"}, {"task_id": "2", "task_type": "local_bash"}]
    ambient = {"task_id": "3", "ambient": True}
    assert others(protocol.receive(system("background_tasks_changed", tasks=[*tasks, ambient]))) == [
        Background(("tests", "local_bash"))
    ]
    assert others(protocol.receive(system("background_tasks_changed", tasks=tasks))) == []
    assert others(protocol.receive(system("background_tasks_changed", tasks=None))) == [Background()]


def test_background_tasks_are_told_one_by_one_by_older_clis() -> None:
    protocol = make()
    assert others(protocol.receive(system("task_started", task_id="1", description="a"))) == []  # in the foreground
    assert others(protocol.receive(system("task_updated", task_id="1", patch={"is_backgrounded": True}))) == [
        Background(("a",))
    ]
    begun = system("task_started", task_id="2", description="b", is_backgrounded=True)
    assert others(protocol.receive(begun)) == [Background(("a", "b"))]
    assert others(protocol.receive(system("task_progress", task_id="2"))) == []
    assert others(protocol.receive(system("task_updated", task_id="1", patch={"status": "killed"}))) == [
        Background(("b",))
    ]
    assert others(protocol.receive(system("task_notification", task_id="2", status="completed"))) == [Background()]


SUGGESTION = {"type": "setMode", "mode": "acceptEdits", "destination": "session"}


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        ("allow", {"behavior": "allow", "updatedInput": {"command": "ls"}}),
        ({"decision": "allow"}, {"behavior": "allow", "updatedInput": {"command": "ls"}}),
        ({"decision": "allow", "input": {"a": 1}}, {"behavior": "allow", "updatedInput": {"a": 1}}),
        ({"behavior": "allow", "updatedInput": {"a": 1}}, {"behavior": "allow", "updatedInput": {"a": 1}}),
        (
            {"decision": "allow", "always": True},
            {"behavior": "allow", "updatedInput": {"command": "ls"}, "updatedPermissions": [SUGGESTION]},
        ),
        (
            {"suggestion": SUGGESTION},
            {"behavior": "allow", "updatedInput": {"command": "ls"}, "updatedPermissions": [SUGGESTION]},
        ),
        ("deny", {"behavior": "deny", "message": "The user denied this."}),
        ({"decision": "deny", "message": "why"}, {"behavior": "deny", "message": "why"}),
        (
            {"behavior": "deny", "message": "why", "interrupt": True},
            {"behavior": "deny", "message": "why", "interrupt": True},
        ),
    ],
)
def test_permission(answer: Any, reply: Any) -> None:
    protocol = make()
    request = asks(tool_name="Bash", input={"command": "ls"}, permission_suggestions=[SUGGESTION])
    protocol.prompt("go")
    assert others(protocol.receive(request)) == [Alive()]
    assert reply_to(protocol, answer) == reply
    with pytest.raises(CommandRefused, match="open"):
        protocol.answer("r1", answer)


@pytest.mark.parametrize(
    "answer", ["perhaps", None, 1, [], {}, {"decision": "so"}, {"decision": "allow", "input": "ls"}, {"suggestion": 1}]
)
def test_an_answer_that_is_none_is_refused_and_the_request_stays_open(answer: Any) -> None:
    protocol = make()
    protocol.receive(asks(tool_name="Bash", input={"command": "ls"}))
    with pytest.raises(CommandRefused):
        protocol.answer("r1", answer)
    assert reply_to(protocol, "allow")["behavior"] == "allow"
    with pytest.raises(CommandRefused, match="open"):
        protocol.answer("r2", "allow")


QUESTIONS = [{"question": "Which?", "header": "H", "options": []}, {"question": "How many?", "header": "H"}]


@pytest.mark.parametrize(
    ("answer", "answers"),
    [
        ({"answers": {"0": "Blue", "1": ["2", "3"]}}, {"Which?": "Blue", "How many?": "2, 3"}),
        ({"1": "2"}, {"How many?": "2"}),
        ({"decision": "allow", "answers": {"0": "Red"}}, {"Which?": "Red"}),
        ("allow", {}),
    ],
)
def test_questions(answer: Any, answers: Any) -> None:
    protocol = make()
    protocol.receive(asks(tool_name="AskUserQuestion", input={"questions": QUESTIONS}))
    updated = {"questions": QUESTIONS, "answers": answers}
    for unclear in ("Blue", {"answers": {"2": "x"}}, None):  # which of the two?
        with pytest.raises(CommandRefused):
            protocol.answer("r1", unclear)
    assert reply_to(protocol, answer) == {"behavior": "allow", "updatedInput": updated}


def test_two_questions_in_the_same_words_both_have_their_answer() -> None:
    protocol = make()
    again = [{"question": "Keep it?", "header": "a.py"}, {"question": "Keep it?"}, {"question": "Sure?"}]
    protocol.receive(asks(tool_name="AskUserQuestion", input={"questions": again}))
    answers = reply_to(protocol, {"answers": {"0": "yes", "1": ["no", "never"], "2": "yes"}})["updatedInput"]["answers"]
    assert answers == {"Keep it?": "a.py: yes; 2: no, never", "Sure?": "yes"}


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        ({"answers": {"0": {"name": "Ann"}}}, {"action": "accept", "content": {"name": "Ann"}}),
        ({"decision": "allow", "input": {"name": "Ann"}}, {"action": "accept", "content": {"name": "Ann"}}),
        ({"answers": {"0": "Ann"}}, {"action": "accept", "content": {"name": "Ann"}}),
        ("Ann", {"action": "accept", "content": {"name": "Ann"}}),
        ("allow", {"action": "accept", "content": {}}),
        ("deny", {"action": "decline"}),
    ],
)
def test_elicitation(answer: Any, reply: Any) -> None:
    protocol = make()
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    protocol.receive(asks(subtype="elicitation", mcp_server_name="m", message="Who?", requested_schema=schema))
    assert reply_to(protocol, answer) == reply


def test_dialog() -> None:
    protocol = make()
    protocol.receive(asks(subtype="request_user_dialog", dialog_kind="k", payload={}))
    assert reply_to(protocol, {"answers": {"0": "yes"}}) == {"behavior": "completed", "result": "yes"}
    protocol.receive(asks(subtype="request_user_dialog", dialog_kind="k", payload={}))
    assert reply_to(protocol, "deny", "r1~2", "r1") == {"behavior": "cancelled"}
