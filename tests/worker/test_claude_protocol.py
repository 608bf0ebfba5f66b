"""What is written to Claude Code and when, against recordings of sessions that were really held; its command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrq.wire.commands import Options
from agentrq_worker.providers.claude.parser import ClaudeParser
from agentrq_worker.providers.claude.protocol import FLAGS, ClaudeProtocol
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import Alive, CommandRefused, Ended, Log, ProtocolEvent, Write

TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"
RECORDED = sorted(path.name.removesuffix(".in.ndjson") for path in TRANSCRIPTS.glob("claude-*.in.ndjson"))
SPOKEN = sorted(path.name for path in TRANSCRIPTS.glob("claude[-1]*.ndjson") if not path.match("*.in.ndjson"))


def make(**options: Any) -> ClaudeProtocol:
    return ClaudeProtocol(Options(**options))


def line(**members: Any) -> bytes:
    return json.dumps(members).encode()


def written(data: bytes) -> Any:
    """The one line that was written, as JSON."""
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
    return json.loads(data)


def asks(request_id: str = "r1", **request: Any) -> bytes:
    return line(type="control_request", request_id=request_id, request={"subtype": "can_use_tool"} | request)


def reply_to(protocol: ClaudeProtocol, answer: Any, request_id: str = "r1") -> Any:
    said = written(protocol.answer(request_id, answer))
    assert said["type"] == "control_response"
    assert (said["response"]["subtype"], said["response"]["request_id"]) == ("success", request_id)
    return said["response"]["response"]


def others(said: Sequence[ProtocolEvent]) -> list[ProtocolEvent]:
    return [each for each in said if not isinstance(each, DraftMessage)]


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
            response = recorded["response"]
            assert written(protocol.answer(response["request_id"], response["response"])) == recorded
        elif recorded["request"]["subtype"] == "interrupt":
            ours = written(protocol.interrupt())
            assert {**ours, "request_id": recorded["request_id"]} == recorded
        else:
            continue  # an initialize: nothing of it is needed
        compared += 1
    assert compared >= 2


@pytest.mark.parametrize("name", SPOKEN)
def test_it_reads_as_its_parser(name: str) -> None:
    protocol, parser = make(), ClaudeParser()
    for each in (TRANSCRIPTS / name).read_bytes().split(b"\n"):
        said = protocol.receive(each)
        assert [one for one in said if isinstance(one, DraftMessage)] == parser.receive(each)
        assert not [one for one in others(said) if not isinstance(one, Alive)]


@given(st.binary(max_size=200) | st.sampled_from([INIT, RESULT, REQUESTING]).map(lambda whole: whole[:-3]))
def test_no_line_is_too_bad(data: bytes) -> None:
    make().receive(data)
    make().receive(b'{"type":"control_response","response":' + data)


def test_command_line() -> None:
    options = Options(
        model="opus", system_prompt="-v", max_turns=3, permission_mode="plan", max_budget_usd=1.5, resume="abc",
        worktree_name="-x", additional_directories=["/a", "-b"],
    )  # fmt: skip
    argv = make().command(["claude"], options)
    assert argv[: 1 + len(FLAGS)] == ["claude", *FLAGS]
    assert argv[1 + len(FLAGS) :] == [
        "--permission-mode", "plan", "--model", "opus", "--append-system-prompt=-v", "--max-turns", "3",
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


def test_answers_to_our_own_requests_are_not_told() -> None:
    protocol = make()
    fine = {"subtype": "success", "request_id": "interrupt-1", "response": {"still_queued": []}}
    assert protocol.receive(line(type="control_response", response=fine)) == []
    wrong = {"subtype": "error", "request_id": "set_permission_mode-2", "error": "no such mode"}
    assert protocol.receive(line(type="control_response", response=wrong)) == [
        Log("set_permission_mode-2: no such mode")
    ]
    old = {"subtype": "error", "request_id": "end_session-3", "error": "Unsupported control request subtype"}
    assert protocol.receive(line(type="control_response", response=old)) == []


def test_a_request_nobody_can_answer_is_declined() -> None:
    said = make().receive(line(type="control_request", request_id="h1", request={"subtype": "hook_callback"}))
    assert isinstance(said[0], DraftMessage)
    assert said[0].type == "unknown"
    assert isinstance(said[1], Write)
    response = written(said[1].data)["response"]
    assert (response["subtype"], response["request_id"]) == ("error", "h1")


def test_a_session_that_cannot_be_resumed() -> None:
    failed = line(type="result", subtype="error_during_execution", is_error=True, errors=["No conversation found"])
    assert others(make(resume="x").receive(failed)) == [Ended("No conversation found")]
    started = make()
    started.receive(INIT)
    assert others(started.receive(failed)) == []  # a turn that failed is no end


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
    assert others(protocol.receive(request)) == [Alive()]
    assert reply_to(protocol, answer) == reply


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
    assert reply_to(protocol, answer) == {"behavior": "allow", "updatedInput": updated}
    for unclear in ("Blue", {"answers": {"2": "x"}}, None):  # which of the two?
        with pytest.raises(CommandRefused):
            protocol.answer("r1", unclear)
    assert reply_to(protocol, "deny")["behavior"] == "deny"


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
    assert reply_to(protocol, "deny") == {"behavior": "cancelled"}
