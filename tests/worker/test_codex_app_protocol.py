"""`codex app-server` as spoken with, beyond what the recordings show: steering, resuming, failures, odd requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentrq.wire.commands import make_options
from agentrq.wire.messages import Cost, SessionTotal
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import (
    Background,
    CommandRefused,
    Ended,
    Late,
    ProtocolEvent,
    Ready,
    Reply,
    Sent,
    SettingsRefused,
    TurnSeemsOver,
    TurnStarted,
    Write,
)
from agentrq_worker.providers.registry import make_protocol
from tests.worker.parser_checks import as_json, check
from tests.worker.rpc_player import data_of


class Talk:
    """A protocol, what it has written and what it has said."""

    def __init__(self, epoch: int = 1, total: SessionTotal | None = None, **options: Any) -> None:
        self.protocol = make_protocol("jsonrpc", "s", make_options(options), "codex", total or SessionTotal(), epoch)
        self.written: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        self.ended: list[str | None] = []
        self.events: list[ProtocolEvent] = []
        self.late: list[str] = []
        self.replies: list[Reply] = []
        self.write(self.protocol.open())

    def write(self, sent: bytes | Sent) -> Talk:
        data = data_of(sent)
        assert not data or data.endswith(b"\n")
        self.written += map(json.loads, data.splitlines())
        return self

    def hear(self, *lines: dict[str, Any]) -> Talk:
        for line in lines:
            for said in self.protocol.receive(json.dumps(line).encode()):
                if isinstance(said, DraftMessage):
                    check(said)
                    self.messages.append(as_json(said))
                elif isinstance(said, Write):
                    self.write(said.data)
                elif isinstance(said, Late):
                    self.late.append(said.text)
                elif isinstance(said, Reply):
                    self.replies.append(said)
                elif isinstance(said, Ended):
                    self.ended.append(said.error)
                elif not isinstance(said, Ready):
                    self.events.append(said)
        return self

    def answers(self, result: Any = None, error: Any = None) -> Talk:
        """The server answers the request made last."""
        request = [line for line in self.written if "method" in line and "id" in line][-1]
        return self.hear({"id": request["id"]} | ({"error": error} if error else {"result": result or {}}))

    def ready(self) -> Talk:
        """Through the handshake."""
        return self.answers({"userAgent": "x"}).answers({"thread": {"id": "th"}, "model": "gpt-5", "cwd": "/w"})

    def turn(self, prompt: str = "go", turn: str = "t1") -> Talk:
        """Into a turn."""
        self.write(self.protocol.prompt(prompt))
        return self.answers({"turn": {"id": turn, "status": "inProgress"}}).hear(started(turn))

    @property
    def last(self) -> dict[str, Any]:
        return self.written[-1]

    def types(self) -> list[str]:
        return [message["type"] for message in self.messages]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message["content"] for message in self.messages if message["type"] == kind]


def note(method: str, **params: Any) -> dict[str, Any]:
    return {"method": method, "params": {"threadId": "th", **params}}


def started(turn: str) -> dict[str, Any]:
    return note("turn/started", turn={"id": turn, "status": "inProgress"})


def completed(status: str = "completed", turn: str = "t1", thread: str = "th", **members: Any) -> dict[str, Any]:
    return note("turn/completed", turn={"id": turn, "status": status, "durationMs": 5, **members}) | (
        {} if thread == "th" else {"params": {"threadId": thread, "turn": {"id": turn, "status": status}}}
    )


def usage(total: tuple[int, int], last: tuple[int, int], thread: str = "th") -> dict[str, Any]:
    sums = [dict(zip(("inputTokens", "outputTokens"), pair, strict=True)) for pair in (total, last)]
    params = {"threadId": thread, "tokenUsage": {"total": sums[0], "last": sums[1]}}
    return {"method": "thread/tokenUsage/updated", "params": params}


def item(event: str, kind: str, item_id: str = "i1", thread: str = "th", **members: Any) -> dict[str, Any]:
    return {"method": f"item/{event}", "params": {"threadId": thread, "item": {"type": kind, "id": item_id, **members}}}


# The handshake --------------------------------------------------------------------------------------------------


def test_a_prompt_waits_for_the_handshake() -> None:
    talk = Talk(cwd="/w", model="gpt-5", system_prompt="be kind", additional_directories=["/a"]).ready()
    assert talk.written[1:] == [
        {"method": "initialized"},
        {"id": 2, "method": "thread/start", "params": {
            "approvalPolicy": "never", "sandbox": "danger-full-access", "cwd": "/w", "model": "gpt-5",
            "developerInstructions": "be kind", "config": {"sandbox_workspace_write.writable_roots": ["/a"]}}},
    ]  # fmt: skip
    assert talk.protocol.is_ready
    talk.turn()
    assert talk.last["params"] == {"threadId": "th", "input": [{"type": "text", "text": "go"}]}
    assert talk.messages[0] == {"type": "init", "content": {"providerSessionId": "th", "model": "gpt-5", "cwd": "/w"}}
    early = Talk()
    assert early.protocol.prompt("go") == b""
    assert early.ready().last["method"] == "turn/start"
    assert early.types() == ["init"]


@pytest.mark.parametrize(
    ("options", "policy", "sandbox"),
    [
        ({}, "never", "danger-full-access"),
        ({"permission_mode": "default"}, "on-request", "workspace-write"),
        ({"permission_mode": "plan"}, "never", "read-only"),
        ({"approvals": "ask"}, "untrusted", "workspace-write"),
        ({"approvals": "ask", "permission_mode": "plan"}, "never", "read-only"),
    ],
)
def test_permission_modes(options: dict[str, Any], policy: str, sandbox: str) -> None:
    talk = Talk(**options).answers({})
    assert (talk.last["params"]["approvalPolicy"], talk.last["params"]["sandbox"]) == (policy, sandbox)


def test_options_that_codex_does_not_have() -> None:
    talk = Talk(worktree_name="w", max_budget_usd=1.0).answers({})
    assert [message["message"] for message in talk.of("status")] == [
        "worktree_name: this agent does not support worktrees",
        "max_budget_usd: this agent does not support a budget in USD",
    ]
    assert Talk(permission_mode="yes").answers({}).ended[0].startswith("codex has no permission mode 'yes'")  # type: ignore[union-attr]
    with pytest.raises(CommandRefused, match="no permission mode"):
        Talk().protocol.set_permission_mode("yes")


@pytest.mark.parametrize("steps", [0, 1])
def test_a_handshake_that_fails_ends_the_session(steps: int) -> None:
    talk = Talk()
    for _ in range(steps):
        talk.answers({})
    talk.answers(error={"code": -1, "message": "no", "data": {"details": "log in"}})
    assert len(talk.ended) == 1
    assert str(talk.ended[0]).endswith(": no: log in")
    assert Talk().answers({}).answers({}).ended == ["codex began a thread without an id"]


def test_a_thread_is_resumed_without_its_history() -> None:
    talk = Talk(resume="old", model="m").answers({})
    assert talk.last["method"] == "thread/resume"
    assert talk.last["params"] == {
        "threadId": "old",
        "excludeTurns": True,
        "approvalPolicy": "never",
        "sandbox": "danger-full-access",
        "model": "m",
    }
    talk.answers({"thread": {"id": "old"}, "model": "m"}).turn()
    assert talk.of("init")[0]["providerSessionId"] == "old"
    assert Talk(resume="old").answers({}).answers(error={"message": "no rollout"}).ended == [
        "codex could not resume old: no rollout"
    ]


def test_a_recovered_session_whose_thread_is_gone_goes_on_in_a_new_one() -> None:
    talk = Talk(epoch=2, resume="old").answers({}).answers(error={"message": "no rollout"})
    assert talk.last["method"] == "thread/start"
    assert talk.of("error")[0]["code"] == "not_resumed"
    talk.answers({"thread": {"id": "th"}}).turn().hear(usage((100, 20), (100, 20)), completed())
    assert talk.of("cost")[0]["inputTokens"] == 100


# Figures --------------------------------------------------------------------------------------------------------


def test_a_turn_has_its_part_of_the_running_sum() -> None:
    talk = Talk().ready().turn()
    talk.hear(usage((100, 20), (100, 20)), usage((100, 20), (100, 20)), usage((220, 50), (120, 30)), completed())
    talk.turn(turn="t2").hear(usage((320, 60), (100, 10)), completed(turn="t2"))
    figures = [(cost["inputTokens"], cost["outputTokens"], cost["durationMs"]) for cost in talk.of("cost")]
    assert figures == [(220, 50, 5), (100, 10, 5)]
    assert talk.of("cost")[1]["sessionTotal"] == {"costUsd": 0.0, "inputTokens": 320, "outputTokens": 60, "numTurns": 2}


@pytest.mark.parametrize("announced", [True, False], ids=["sum told on resume", "sum first told in the turn"])
def test_a_resumed_thread_counts_only_what_is_new(announced: bool) -> None:
    talk = Talk(epoch=2, resume="th", total=SessionTotal(0.0, 500, 100, 5)).ready()
    if announced:
        talk.hear(usage((500, 100), (100, 20)))
    talk.turn().hear(usage((600, 120), (100, 20)), usage((700, 140), (100, 20)), completed())
    (cost,) = talk.of("cost")
    assert (cost["inputTokens"], cost["outputTokens"]) == (200, 40)
    assert cost["sessionTotal"]["inputTokens"] == 700


def test_sub_agents_tokens_count_and_their_turns_do_not() -> None:
    talk = Talk().ready().turn()
    spawn: dict[str, Any] = {"tool": "spawnAgent", "receiverThreadIds": ["sub"], "prompt": "look"}
    talk.hear(
        item("started", "collabAgentToolCall", "c1", **spawn),
        {"method": "thread/started", "params": {"thread": {"id": "sub"}}},
        item("completed", "agentMessage", "m1", thread="sub", text="found"),
        usage((50, 5), (50, 5), thread="sub"),
        completed(thread="sub"),
        usage((100, 10), (100, 10)),
        completed(),
    )
    (cost,) = talk.of("cost")
    assert (cost["inputTokens"], cost["outputTokens"], cost["numTurns"]) == (150, 15, 1)
    (said,) = [message for message in talk.messages if message["type"] == "text"]
    assert said["parentId"] == "c1"
    assert talk.types().count("init") == 1


# Turns ----------------------------------------------------------------------------------------------------------


def test_steering_names_the_turn_and_waits_for_it() -> None:
    talk = Talk().ready().write(b"")
    talk.write(talk.protocol.prompt("go"))
    assert talk.protocol.steer("more") == b""
    talk.answers({"turn": {"id": "t1", "status": "inProgress"}})
    expected = {"threadId": "th", "expectedTurnId": "t1", "input": [{"type": "text", "text": "more"}]}
    assert (talk.last["method"], talk.last["params"]) == ("turn/steer", expected)
    talk.hear(started("t1"))
    assert [line["method"] for line in talk.written].count("turn/steer") == 1
    talk.write(talk.protocol.steer("again"))
    assert talk.last["params"]["input"][0]["text"] == "again"


def test_a_steer_that_came_too_late_has_a_turn_of_its_own() -> None:
    talk = Talk().ready().turn()
    talk.write(talk.protocol.steer("more")).answers(error={"message": "no active turn"})
    assert talk.late == ["more"]
    assert talk.of("error") == []


def test_a_turn_that_cannot_begin_keeps_what_was_to_join_it() -> None:
    talk = Talk().ready()
    talk.write(talk.protocol.prompt("go"))
    assert talk.protocol.steer("more") == b""
    talk.answers(error={"message": "overloaded"})
    assert talk.late == ["more"]


def test_an_interrupt_waits_for_the_turn() -> None:
    talk = Talk()
    talk.write(talk.protocol.prompt("go"))
    sent = talk.protocol.interrupt()
    assert sent.data == b""
    talk.ready().answers({"turn": {"id": "t1", "status": "inProgress"}})
    assert (talk.last["method"], talk.last["params"]) == ("turn/interrupt", {"threadId": "th", "turnId": "t1"})
    assert talk.answers({}).replies == [Reply(sent.confirmation or "")]
    talk.hear(started("t1"), item("started", "commandExecution", "c1", command="sleep 9"))
    talk.hear(note("item/agentMessage/delta", itemId="m1", delta="half"), completed("interrupted"))
    assert talk.types() == ["init", "tool_call", "text_delta", "text", "tool_result", "cost"]
    assert talk.of("tool_result")[0]["isError"]
    assert talk.of("cost")[0]["errors"] == ["The turn was interrupted"]
    assert [line["method"] for line in talk.written].count("turn/interrupt") == 1
    assert talk.protocol.stop() == b""


def test_a_refused_interrupt_is_told_in_codex_words() -> None:
    talk = Talk().ready().turn()
    sent = talk.protocol.interrupt()
    talk.write(sent).answers(error={"code": -32600, "message": "the turn cannot be stopped now"})
    assert talk.replies == [Reply(sent.confirmation or "", "the turn cannot be stopped now")]
    talk.write(talk.protocol.stop()).answers(error={"code": -32600, "message": "not now"})
    assert talk.of("error") == [{"message": "codex could not interrupt the turn: not now", "code": "-32600"}]


def test_a_turn_that_cannot_begin_is_over() -> None:
    talk = Talk().ready()
    talk.write(talk.protocol.prompt("go")).answers(error={"message": "overloaded"})
    assert talk.types() == ["init", "error", "cost"]
    assert talk.of("cost")[0]["errors"] == ["overloaded"]


def test_a_failed_turn_says_why() -> None:
    talk = Talk().ready().turn()
    talk.hear(
        note("error", error={"message": "Reconnecting 1/5"}, willRetry=True),
        note("error", error={"message": "limit", "codexErrorInfo": "usageLimitExceeded"}, willRetry=False),
        note("error", error={"message": "lost", "codexErrorInfo": {"httpConnectionFailed": {"httpStatusCode": 500}}}),
        completed("failed", error={"message": "limit"}),
    )
    assert talk.types() == ["init", "status", "rate_limit", "error", "error", "cost"]
    assert [error.get("code") for error in talk.of("error")] == ["usageLimitExceeded", "httpConnectionFailed"]
    assert (talk.of("cost")[0]["isError"], talk.of("cost")[0]["errors"]) == (True, ["limit"])


def test_model_and_mode_go_with_the_next_turn() -> None:
    talk = Talk().ready()
    assert talk.protocol.set_model("gpt-6") == Sent(b"")
    assert talk.protocol.set_permission_mode("plan") == Sent(b"")
    talk.turn()
    changed = {"model": "gpt-6", "approvalPolicy": "never", "sandboxPolicy": {"type": "readOnly"}}
    assert talk.last["params"].items() >= changed.items()
    talk.hear(completed()).turn(turn="t2")
    assert set(talk.last["params"]) == {"threadId", "input"}


def test_a_refused_turn_drops_the_settings_that_it_was_to_begin_with() -> None:
    talk = Talk().ready()
    talk.protocol.set_model("gpt-6")
    talk.turn().hear(completed())
    talk.protocol.set_model("bogus")
    talk.write(talk.protocol.prompt("go"))
    talk.protocol.set_permission_mode("plan")  # meanwhile: it goes with the turn after
    talk.answers(error={"message": "no such model"})
    assert [said for said in talk.events if isinstance(said, SettingsRefused)] == [SettingsRefused({"model": "gpt-6"})]
    assert talk.of("error")[0]["code"] == "setting_refused"
    talk.turn(turn="t3")
    assert "model" not in talk.last["params"]
    assert talk.last["params"]["approvalPolicy"] == "never"


# What it asks ---------------------------------------------------------------------------------------------------

APPROVAL = {
    "id": 7,
    "method": "item/commandExecution/requestApproval",
    "params": {"threadId": "th", "itemId": "c1", "command": "rm x", "cwd": "/w", "reason": "why",
               "availableDecisions": ["accept", {"acceptWithExecpolicyAmendment": {"execpolicy_amendment": ["rm"]}}]},
}  # fmt: skip
PATCH = {"id": "p", "method": "item/fileChange/requestApproval", "params": {"threadId": "th", "itemId": "f1"}}
MORE = {
    "id": 9,
    "method": "item/permissions/requestApproval",
    "params": {"threadId": "th", "itemId": "x", "permissions": {"network": {"enabled": True}, "fileSystem": None}},
}
ASK = {
    "id": 3,
    "method": "item/tool/requestUserInput",
    "params": {"threadId": "th", "itemId": "q", "questions": [{"id": "a", "header": "H", "question": "Which?",
                                                               "options": [{"label": "x", "description": ""}]}]},
}  # fmt: skip
ELICIT = {
    "id": 4,
    "method": "mcpServer/elicitation/request",
    "params": {"threadId": "th", "serverName": "s", "mode": "form", "message": "Name?", "requestedSchema": {}},
}


MCP = {
    "id": 5,
    "method": "mcpServer/elicitation/request",
    "params": {"threadId": "th", "serverName": "s", "mode": "form", "message": "Allow?", "requestedSchema": {},
               "_meta": {"codex_approval_kind": "mcp_tool_call", "tool_name": "t", "tool_params": {"path": "/x"}}},
}  # fmt: skip
TWO = {
    "id": 6,
    "method": "item/tool/requestUserInput",
    "params": {"threadId": "th", "questions": [{"id": "a", "question": "A?"}, {"id": "b", "question": "B?"}]},
}


def test_what_is_asked_is_told() -> None:
    talk = Talk().ready().turn()
    changes = [{"path": "a.py", "kind": {"type": "add"}, "diff": "+1"}]
    talk.hear(APPROVAL, APPROVAL, item("started", "fileChange", "f1", changes=changes), PATCH, MORE, ASK, ELICIT, MCP)
    command, patch, more, tool = talk.of("approval_request")
    assert tool == {"requestId": "5", "name": "mcp__s__t", "input": {"path": "/x"}}
    assert command == {
        "requestId": "7", "name": "command_execution", "toolUseId": "c1",
        "input": {"command": "rm x", "cwd": "/w", "reason": "why"},
        "suggestions": APPROVAL["params"]["availableDecisions"],  # type: ignore[index]
    }  # fmt: skip
    assert (patch["requestId"], patch["name"], patch["input"]) == (
        "p",
        "file_change",
        {"changes": changes, "path": "a.py"},
    )
    assert more["input"] == {"permissions": {"network": {"enabled": True}, "fileSystem": None}}
    question, form = talk.of("question")
    assert question["questions"][0] == {"id": "a", "header": "H", "question": "Which?",
                                        "options": [{"label": "x", "description": ""}]}  # fmt: skip
    assert form["questions"][0]["question"] == "Name?"


@pytest.mark.parametrize(
    ("asked", "answer", "result"),
    [
        (APPROVAL, "allow", {"decision": "accept"}),
        (APPROVAL, "deny", {"decision": "decline"}),
        (APPROVAL, {"behavior": "allow", "always": True}, {"decision": "acceptForSession"}),
        (APPROVAL, {"decision": "deny", "interrupt": True, "message": "no"}, {"decision": "cancel"}),
        (APPROVAL, {"suggestion": "accept"}, {"decision": "accept"}),
        (PATCH, {"decision": "allow"}, {"decision": "accept"}),
        (
            APPROVAL,
            {"decision": "allow", "input": {"command": "rm x", "cwd": "/w", "reason": "why"}},
            {"decision": "accept"},
        ),
        (MORE, "allow", {"permissions": {"network": {"enabled": True}}, "scope": "turn"}),
        (MORE, "deny", {"permissions": {}, "scope": "turn"}),
        (ASK, {"a": "x"}, {"answers": {"a": {"answers": ["x"]}}}),
        (ASK, {"answers": {"a": ["x", "y"]}}, {"answers": {"a": {"answers": ["x", "y"]}}}),
        (ASK, "free text", {"answers": {"a": {"answers": ["free text"]}}}),
        (ASK, "allow", {"answers": {"a": {"answers": []}}}),
        (ASK, {"answers": {"a": "allow"}}, {"answers": {"a": {"answers": ["allow"]}}}),
        (TWO, "deny", {"answers": {"a": {"answers": []}, "b": {"answers": []}}}),
        (TWO, {"b": "x"}, {"answers": {"a": {"answers": []}, "b": {"answers": ["x"]}}}),
        (MCP, "allow", {"action": "accept", "content": {}}),
        (MCP, {"decision": "allow", "input": {"path": "/x"}}, {"action": "accept", "content": {}}),
        (
            MCP,
            {"decision": "allow", "always": True},
            {"action": "accept", "content": {}, "_meta": {"persist": "session"}},
        ),
        (MCP, "deny", {"action": "decline", "content": None}),
        (MCP, {"decision": "deny", "interrupt": True}, {"action": "cancel", "content": None}),
        (ELICIT, {"name": "n"}, {"action": "accept", "content": {"name": "n"}}),
        (ELICIT, "deny", {"action": "decline", "content": None}),
    ],
)
def test_answers(asked: dict[str, Any], answer: Any, result: Any) -> None:
    talk = Talk().ready().turn().hear(asked)
    talk.write(talk.protocol.answer(str(asked["id"]), answer))
    assert talk.last == {"id": asked["id"], "result": result}
    with pytest.raises(CommandRefused, match="no such request"):
        talk.protocol.answer(str(asked["id"]), answer)
    # The server's acknowledgement is no withdrawal.
    talk.hear(note("serverRequest/resolved", requestId=asked["id"]))
    assert talk.of("approval_resolved") == []


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (APPROVAL, "perhaps"),
        (APPROVAL, {"decision": "allow", "input": {"command": "ls"}}),
        (APPROVAL, {"suggestion": "cancel"}),
        (APPROVAL, {}),
        (APPROVAL, 5),
        (ASK, {"b": "x"}),
        (ASK, 5),
        (MCP, {"decision": "allow", "input": {"path": "/y"}}),
        (MCP, {"path": "/x"}),
    ],
)
def test_answers_that_do_not_fit_leave_the_request_open(asked: dict[str, Any], answer: Any) -> None:
    talk = Talk().ready().turn().hear(asked)
    with pytest.raises(CommandRefused):
        talk.protocol.answer(str(asked["id"]), answer)
    assert talk.protocol.answer(str(asked["id"]), {"a": "x"} if asked is ASK else "allow")


def test_a_request_may_be_withdrawn_and_ids_are_the_epochs() -> None:
    talk = Talk(epoch=3).ready().turn().hear(APPROVAL, note("serverRequest/resolved", requestId=7))
    assert talk.of("approval_request")[0]["requestId"] == "3.7"
    assert talk.of("approval_resolved") == [{"requestId": "3.7", "decision": "withdrawn", "by": "agent"}]
    with pytest.raises(CommandRefused):
        talk.protocol.answer("3.7", "allow")


@pytest.mark.parametrize(
    "asked",
    [
        {"id": 5, "method": "account/chatgptAuthTokens/refresh", "params": {}},
        {"id": "x", "method": "item/tool/call", "params": {"tool": "t"}},
        {"id": 6, "method": "item/commandExecution/requestApproval", "params": {"itemId": 5}},
    ],
)
def test_requests_that_are_not_understood_do_not_block_the_agent(asked: dict[str, Any]) -> None:
    talk = Talk().ready().turn().hear(asked)
    assert talk.last["id"] == asked["id"]
    assert talk.last["error"]["code"] in (-32601, -32602)
    assert talk.types()[-1] in ("unknown", "error")


# Items ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "members", "call", "result"),
    [
        ("mcpToolCall", {"server": "s", "tool": "t", "arguments": {"a": 1}, "result": {"content": []}},
         ("mcp__s__t", {"a": 1}), ({"content": []}, False)),
        ("mcpToolCall", {"server": "s", "tool": "t", "error": {"message": "bad"}, "status": "failed"},
         ("mcp__s__t", {}), ("bad", True)),
        ("dynamicToolCall", {"tool": "t", "arguments": {}, "contentItems": [], "success": False},
         ("t", {}), ([], True)),
        ("webSearch", {"query": "q"}, ("web_search", {"query": "q"}), ({"query": "q"}, False)),
        ("imageView", {"path": "/a.png"}, ("image_view", {"path": "/a.png"}), ("", False)),
        ("imageGeneration", {"revisedPrompt": "p", "result": "iVBOR", "savedPath": "/b.png"},
         ("image_generation", {"prompt": "p"}), ("/b.png", False)),
        ("fileChange", {"changes": [], "status": "declined"}, ("file_change", {"changes": []}), ("declined", True)),
        ("commandExecution", {"command": "ls", "exitCode": 2, "aggregatedOutput": "no"},
         ("command_execution", {"command": "ls"}), ("no", True)),
    ],
)  # fmt: skip
def test_tools(kind: str, members: dict[str, Any], call: Any, result: Any) -> None:
    talk = Talk().ready().turn()
    talk.hear(item("started", kind, **members), *[item("completed", kind, **members)] * 2)
    assert [(found["name"], found["input"]) for found in talk.of("tool_call")] == [call]
    assert [(found["output"], found["isError"]) for found in talk.of("tool_result")] == [result]


def test_thoughts_in_parts_and_raw() -> None:
    talk = Talk().ready().turn()
    talk.hear(
        note("item/reasoning/summaryPartAdded", itemId="r", summaryIndex=0),
        note("item/reasoning/summaryTextDelta", itemId="r", delta="one", summaryIndex=0),
        note("item/reasoning/summaryPartAdded", itemId="r", summaryIndex=1),
        note("item/reasoning/summaryTextDelta", itemId="r", delta="two", summaryIndex=1),
        note("item/reasoning/textDelta", itemId="r", delta="raw", contentIndex=0),
        *[item("completed", "reasoning", "r", summary=["one", "two"], content=["raw"])] * 2,
        note("item/reasoning/textDelta", itemId="r", delta="late", contentIndex=0),
    )
    pieces = talk.of("thinking_delta")
    assert [(piece["blockId"], piece["offset"]) for piece in pieces] == [("r", 0), ("r", 3), ("r", 5), ("r:content", 0)]
    assert talk.of("thinking") == [{"text": "one\n\ntwo", "blockId": "r"}, {"text": "raw", "blockId": "r:content"}]


def test_what_it_reports_of_itself() -> None:
    talk = Talk().ready().turn()
    plan = [{"step": "a", "status": "completed"}, {"step": "b", "status": "pending"}]
    limits = {"primary": {"usedPercent": 45, "resetsAt": 1795328958}, "rateLimitReachedType": None}
    talk.hear(
        note("turn/plan/updated", plan=plan), note("turn/plan/updated", plan=plan),
        note("turn/diff/updated", diff="--- a\n+++ b\n@@\n-x\n+y\n+z\n"),
        note("model/rerouted", fromModel="a", toModel="b"),
        note("account/rateLimits/updated", rateLimits=limits), note("account/rateLimits/updated", rateLimits=limits),
        *[item("completed", "contextCompaction", "k")] * 2,
        note("thread/compacted"),
        note("something/new", x=1),
        item("completed", "hologram", "h"),
    )  # fmt: skip
    reports = [(report["subtype"], report["message"]) for report in talk.of("status")]
    assert reports == [
        ("plan", "1 of 2 done; next: b"), ("diff", "1 files changed, 2 lines added, 1 removed"), ("model", "a → b"),
    ]  # fmt: skip
    assert talk.of("rate_limit") == [{"scope": "codex", "message": "primary: 45% used", "resetsAt": 1795328958000}]
    assert talk.of("compaction") == [{"trigger": "auto"}]
    assert [found.get("method") for found in talk.of("unknown")] == ["something/new", "item/completed"]


def delta(item_id: str, words: str) -> dict[str, Any]:
    return note("item/agentMessage/delta", itemId=item_id, delta=words)


def status(kind: str, thread: str = "th") -> dict[str, Any]:
    return {"method": "thread/status/changed", "params": {"threadId": thread, "status": {"type": kind}}}


IDLE = "codex is idle and did not say that its turn is over"


def test_a_thread_that_is_idle_in_a_turn_seems_over_until_the_turn_is() -> None:
    talk = Talk().ready().hear(status("idle")).turn().hear(status("active"), status("idle", thread="other"))
    assert not [event for event in talk.events if isinstance(event, TurnSeemsOver)]
    talk.hear(status("idle"))
    assert talk.events[-1] == TurnSeemsOver(IDLE)
    talk.hear(completed())
    assert [cost["isError"] for cost in talk.of("cost")] == [False]
    talk.hear(status("idle"))
    assert talk.events.count(TurnSeemsOver(IDLE)) == 1


def test_a_turn_whose_end_never_comes_is_ended_once() -> None:
    talk = (
        Talk()
        .ready()
        .turn()
        .hear(item("started", "commandExecution", "c"), usage((100, 20), (100, 20)), status("idle"))
    )
    ended = talk.protocol.end_turn(IDLE)
    assert [draft.type for draft in ended] == ["status", "tool_result", "cost"]
    cost = ended[-1].content
    assert isinstance(cost, Cost)
    assert (cost.is_error, cost.input_tokens) == (False, 100)
    talk.hear(completed())  # after all
    assert talk.of("cost") == []
    talk.turn(turn="t2").hear(completed(turn="t2"))
    assert len(talk.of("cost")) == 1


def test_a_turn_that_a_system_error_cut_failed() -> None:
    talk = Talk().ready().turn().hear(status("systemError"))
    (seems,) = talk.events
    assert isinstance(seems, TurnSeemsOver)
    (_, cost) = talk.protocol.end_turn(seems.reason)
    assert isinstance(cost.content, Cost)
    assert (cost.content.is_error, cost.content.errors) == (True, [seems.reason])


def test_a_thread_that_is_closed_in_a_turn_ends_it() -> None:
    closed = {"method": "thread/closed", "params": {"threadId": "th"}}
    talk = Talk().ready().turn().hear({"method": "thread/closed", "params": {"threadId": "other"}})
    assert talk.events == []
    (seems,) = talk.hear(closed).events
    assert isinstance(seems, TurnSeemsOver)
    (_, cost) = talk.protocol.end_turn(seems.reason)
    assert isinstance(cost.content, Cost)
    assert cost.content.is_error


@pytest.mark.parametrize(
    "params", [None, {}, {"threadId": "th"}, {"threadId": "th", "turn": None}, {"threadId": "th", "turn": "t1"}]
)
def test_an_end_without_its_turn_ends_the_turn_under_way_as_failed(params: Any) -> None:
    talk = Talk().ready().turn().hear({"method": "turn/completed", "params": params})
    assert [error["code"] for error in talk.of("error")] == ["malformed"]
    assert [cost["isError"] for cost in talk.of("cost")] == [True]
    talk.hear({"method": "turn/completed", "params": params})
    assert len(talk.of("cost")) == 1


def test_a_turns_last_line_that_cannot_be_read_ends_the_turn() -> None:
    talk = Talk().ready().turn()
    cut = b'{"method":"turn/completed","params":{"threadId":"th","turn":{"id":"t1","status":"comp'
    drafts = [said for said in talk.protocol.receive(cut) if isinstance(said, DraftMessage)]
    assert [draft.type for draft in drafts] == ["error", "cost"]
    assert talk.protocol.receive(cut)[1:] == []  # no turn is under way any more


def test_codex_begins_a_turn_of_its_own() -> None:
    begun = {"method": "turn/started", "params": {"threadId": "th", "turn": {"id": "t9", "status": "inProgress"}}}
    talk = Talk().ready().turn().hear(completed())
    assert talk.events == []
    assert talk.hear(begun, begun).events == [TurnStarted()]
    talk.hear(completed(turn="t9"))
    assert talk.turn(turn="t2").events == [TurnStarted()]


def test_sub_agents_that_work_are_background_work() -> None:
    begun = {"method": "turn/started", "params": {"threadId": "sub", "turn": {"id": "s1", "status": "inProgress"}}}
    over = {"method": "turn/completed", "params": {"threadId": "sub", "turn": {"id": "s1", "status": "completed"}}}
    talk = Talk().ready().turn().hear(begun, completed(), over)
    assert talk.events == [Background(("sub-agent sub",)), Background()]
    assert len(talk.of("cost")) == 1
    assert talk.hear(begun, status("idle", thread="sub")).events[2:] == [Background(("sub-agent sub",)), Background()]


def test_the_calls_of_a_sub_agent_in_the_background_stay_open_over_turns() -> None:
    call: dict[str, Any] = {"receiverThreadIds": ["sub"], "tool": "spawnAgent", "status": "completed"}
    talk = Talk().ready().turn().hear(
        item("started", "collabAgentToolCall", "s", **call), item("completed", "collabAgentToolCall", "s", **call),
        item("started", "commandExecution", "c", thread="sub"),         completed(),
    )  # fmt: skip
    assert [result["toolUseId"] for result in talk.of("tool_result")] == ["s"]
    assert [draft.parent_id for draft in talk.protocol.close("gone")] == ["s"]


def test_a_retry_abandons_the_half_text() -> None:
    retry = {"method": "error", "params": {"error": {"message": "stream lost"}, "willRetry": True}}
    talk = (
        Talk()
        .ready()
        .turn()
        .hear(delta("m", "The ans"), retry, delta("m", "The"), item("completed", "agentMessage", "m", text="The"))
    )
    assert [(each["blockId"], each["offset"], each.get("abandoned", False)) for each in talk.of("text_delta")] == [
        ("m", 0, False),
        ("m", 7, True),
        ("m~2", 0, False),
    ]
    assert talk.of("text")[-1] == {"text": "The", "blockId": "m~2"}


def test_two_texts_by_one_id_are_two_texts() -> None:
    talk = Talk().ready().turn()
    for words in ("one", "two"):
        talk.hear(
            item("started", "agentMessage", "m", text=""),
            delta("m", words),
            item("completed", "agentMessage", "m", text=words),
        )
    assert [(each["text"], each["blockId"]) for each in talk.of("text")] == [("one", "m"), ("two", "m~2")]
    assert [each["blockId"] for each in talk.of("text_delta")] == ["m", "m~2"]
