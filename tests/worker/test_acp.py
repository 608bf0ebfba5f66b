"""An ACP agent as spoken with, beyond what the recordings show: sessions resumed, set up, cancelled; every update."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from agentrq.wire.commands import make_options
from agentrq.wire.messages import SessionTotal
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import CommandRefused, Ended, Ready, Reply, Sent, Write
from agentrq_worker.providers.registry import make_protocol
from tests.worker.parser_checks import as_json, check
from tests.worker.rpc_player import data_of

MODES = {"currentModeId": "default", "availableModes": [{"id": "default"}, {"id": "yolo"}, {"id": "plan"}]}
OPTIONS = [
    {"id": "m", "category": "model", "currentValue": "small", "options": [{"value": "small"}, {"value": "big"}]},
    {"id": "mode", "category": "mode", "currentValue": "build", "options": [{"value": "build"}, {"value": "plan"}]},
]


class Talk:
    """A protocol, what it has written and its events."""

    def __init__(self, epoch: int = 1, total: SessionTotal | None = None, **options: Any) -> None:
        chosen = make_options({"cwd": "/w"} | options)
        self.protocol = make_protocol("jsonrpc", "s", chosen, "acp", total or SessionTotal(), epoch)
        self.written: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        self.ended: list[str | None] = []
        self.replies: list[Reply] = []
        self.readies = 0
        self.write(self.protocol.open())

    def write(self, data: bytes | Sent) -> Talk:
        self.written += map(json.loads, data_of(data).splitlines())
        return self

    def hear(self, *lines: dict[str, Any]) -> Talk:
        return self.hear_bytes(*[json.dumps({"jsonrpc": "2.0", **line}).encode() for line in lines])

    def hear_bytes(self, *lines: bytes) -> Talk:
        for line in lines:
            for said in self.protocol.receive(line):
                if isinstance(said, DraftMessage):
                    check(said)
                    self.messages.append(as_json(said))
                elif isinstance(said, Write):
                    self.write(said.data)
                elif isinstance(said, Reply):
                    self.replies.append(said)
                elif isinstance(said, Ready):
                    assert self.protocol.is_ready
                    self.readies += 1
                else:
                    assert isinstance(said, Ended)
                    self.ended.append(said.error)
        return self

    def answers(self, result: Any = None, error: Any = None) -> Talk:
        """The agent answers the request made last."""
        request = [line for line in self.written if "method" in line and "id" in line][-1]
        return self.hear({"id": request["id"]} | ({"error": error} if error else {"result": result or {}}))

    def begun(self, agent: Any = None, **initialized: Any) -> Talk:
        return self.answers({"protocolVersion": 1, "agentCapabilities": agent or {}, **initialized})

    def ready(self, **result: Any) -> Talk:
        return self.begun().answers({"sessionId": "s", **result})

    def turn(self) -> Talk:
        return self.write(self.protocol.prompt("go"))

    def over(self, reason: str = "end_turn", **result: Any) -> Talk:
        request = [line for line in self.written if line.get("method") == "session/prompt"][-1]
        return self.hear({"id": request["id"], "result": {"stopReason": reason, **result}})

    @property
    def last(self) -> dict[str, Any]:
        return self.written[-1]

    @property
    def methods(self) -> list[str]:
        return [line["method"] for line in self.written if "method" in line]

    def types(self) -> list[str]:
        return [message["type"] for message in self.messages]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message["content"] for message in self.messages if message["type"] == kind]


def update(kind: str, /, **members: Any) -> dict[str, Any]:
    return {"method": "session/update", "params": {"sessionId": "s", "update": {"sessionUpdate": kind, **members}}}


def say(text: str, kind: str = "agent_message_chunk", **members: Any) -> dict[str, Any]:
    return update(kind, content={"type": "text", "text": text}, **members)


def cost(amount: float, currency: str = "USD") -> dict[str, Any]:
    return update("usage_update", used=1, size=2, cost={"amount": amount, "currency": currency})


# The handshake --------------------------------------------------------------------------------------------------


def test_a_session_begins_and_waits_for_a_prompt() -> None:
    talk = Talk(additional_directories=["/a"]).begun({"sessionCapabilities": {"additionalDirectories": {}}})
    assert talk.last["params"] == {"cwd": "/w", "mcpServers": [], "additionalDirectories": ["/a"]}
    assert not talk.protocol.is_ready
    talk.answers({"sessionId": "s"})
    assert talk.readies == 1
    talk.turn().hear(say("hi"))
    assert talk.messages[0] == {"type": "init", "content": {"providerSessionId": "s", "cwd": "/w"}}
    early = Talk()
    assert early.protocol.prompt("go") == b""
    assert early.ready().last["params"] == {"sessionId": "s", "prompt": [{"type": "text", "text": "go"}]}


def test_options_that_the_agent_does_not_support_are_reported() -> None:
    talk = Talk(additional_directories=["/a"], system_prompt="x").begun()
    assert "additionalDirectories" not in talk.last["params"]
    assert [report["message"] for report in talk.of("status")] == [
        "system_prompt: this agent does not support a system prompt",
        "additional_directories: this agent does not support additional directories",
    ]


@pytest.mark.parametrize(
    ("result", "options", "requests"),
    [
        ({}, {}, []),
        ({"modes": MODES}, {}, [("session/set_mode", {"modeId": "yolo"})]),
        ({"modes": MODES}, {"permission_mode": "default"}, []),
        ({"modes": MODES}, {"permission_mode": "plan"}, [("session/set_mode", {"modeId": "plan"})]),
        ({"modes": MODES}, {"approvals": "ask"}, []),
        ({"configOptions": OPTIONS}, {"permission_mode": "plan"},
         [("session/set_config_option", {"configId": "mode", "value": "plan"})]),
        ({"configOptions": OPTIONS}, {"model": "big"},
         [("session/set_config_option", {"configId": "m", "value": "big"})]),
        ({"models": {"currentModelId": "x"}, "modes": MODES}, {"model": "y"},
         [("session/set_model", {"modelId": "y"}), ("session/set_mode", {"modeId": "yolo"})]),
    ],
)  # fmt: skip
def test_model_and_mode_are_set_one_after_another(result: Any, options: Any, requests: Any) -> None:
    talk = Talk(**options)
    talk.protocol.prompt("go")
    talk.ready(**result)
    for method, params in requests:
        assert (talk.last["method"], talk.last["params"]) == (method, {"sessionId": "s", **params})
        talk.answers({})
    assert talk.last["method"] == "session/prompt"


@pytest.mark.parametrize(
    ("result", "options", "error"),
    [
        ({}, {"model": "y"}, "this agent does not support choosing a model"),
        ({"modes": MODES}, {"permission_mode": "acceptEdits"}, "has no permission mode 'acceptEdits'; it has default"),
        ({}, {"permission_mode": "plan"}, "has no permission mode 'plan'; it has none"),
    ],
)
def test_a_model_or_mode_that_the_agent_does_not_offer_ends_the_session(result: Any, options: Any, error: str) -> None:
    (ended,) = Talk(**options).ready(**result).ended
    assert error in str(ended)


def test_a_refused_model_ends_the_session_and_a_refused_bypass_is_reported() -> None:
    talk = Talk(model="y").ready(models={"currentModelId": "x"}).answers(error={"code": 1, "message": "no such model"})
    assert talk.ended == ["The agent's model could not be set: no such model"]
    talk = Talk().ready(modes=MODES).answers(error={"code": 1, "message": "untrusted folder"})
    assert talk.ended == []
    assert talk.of("status")[0]["subtype"] == "permission_mode"
    assert talk.turn().last["method"] == "session/prompt"


@pytest.mark.parametrize(
    ("agent", "method"),
    [
        ({"loadSession": True}, "session/load"),
        ({"loadSession": True, "sessionCapabilities": {"resume": {}}}, "session/resume"),
    ],
)
def test_a_session_is_resumed_and_its_history_not_repeated(agent: Any, method: str) -> None:
    talk = Talk(resume="old").begun(agent)
    assert (talk.last["method"], talk.last["params"]["sessionId"]) == (method, "old")
    tool = update("tool_call", toolCallId="t", title="x", status="completed")
    talk.hear(say("history"), tool, cost(1.5)).answers({"modes": {}})
    talk.turn().hear(say("new"), cost(1.75)).over()
    assert talk.types() == ["init", "text_delta", "text", "cost"]
    assert talk.of("init")[0]["providerSessionId"] == "old"
    assert talk.of("cost")[0]["totalCostUsd"] == 0.25
    assert talk.last["params"]["sessionId"] == "old"


def test_a_history_that_gemini_repeats_late_is_not_published() -> None:
    talk = Talk(resume="old").begun({"loadSession": True}, agentInfo={"name": "gemini-cli"})
    talk.protocol.prompt("go")
    talk.answers({"modes": MODES | {"currentModeId": "yolo"}})
    for _ in range(2):
        assert talk.last["method"] == "_agentrq/settled"
        talk.hear(say("history")).answers(error={"code": -32601, "message": "no such method"})
    talk.hear(update("available_commands_update")).answers(error={"code": -32601, "message": "no such method"})
    assert talk.last["method"] == "session/prompt"
    talk.hear(say("new")).over()
    assert [found["text"] for found in talk.of("text")] == ["new"]


def test_a_recovered_session_that_cannot_be_resumed_begins_anew() -> None:
    assert Talk(resume="old").begun().ended == [
        "The agent could not resume old: this agent does not support resuming a session"
    ]
    talk = Talk(epoch=2, resume="old").begun({"loadSession": True}).answers(error={"code": 1, "message": "not found"})
    assert talk.last["method"] == "session/new"
    talk.answers({"sessionId": "s"}).turn().hear(say("hi"))
    assert talk.types() == ["error", "init", "text_delta"]
    assert talk.of("error")[0]["code"] == "not_resumed"


def test_only_a_key_authenticates_without_a_person() -> None:
    methods = [{"id": "oauth", "name": "Log in"}, {"id": "gemini-api-key", "name": "API key"}]
    required = {"code": -32000, "message": "Authentication required"}
    talk = Talk().begun(authMethods=methods).answers(error=required)
    assert (talk.last["method"], talk.last["params"]) == ("authenticate", {"methodId": "gemini-api-key"})
    assert talk.answers({}).last["method"] == "session/new"
    (ended,) = talk.answers(error=required).ended
    assert ended == "The agent could not begin a session: Authentication required"
    (ended,) = Talk().begun(authMethods=methods[:1]).answers(error=required).ended
    assert "it offers: oauth (Log in)" in str(ended)
    assert "pass_env" in str(ended)


def test_a_failed_handshake_ends_the_session_with_its_cause() -> None:
    assert Talk().answers({"protocolVersion": 2}).ended == ["The agent speaks version 2 of ACP, not 1"]
    assert Talk().answers(error={"code": 1, "message": "no"}).ended == ["The agent refused to begin: no"]
    assert Talk().begun().answers({}).ended == ["The agent began a session without an id"]


# Turns ----------------------------------------------------------------------------------------------------------


def test_a_turn_costs_what_the_running_sum_grew_by() -> None:
    talk = Talk().ready().turn().hear(cost(0.5), cost(0.75)).over(usage={"inputTokens": 10, "outputTokens": 2})
    talk.turn().hear(cost(1.0)).over(_meta={"quota": {"token_count": {"input_tokens": 7, "output_tokens": 1}}})
    talk.turn().hear(cost(9.0, "EUR")).over()
    figures = [(found["totalCostUsd"], found["inputTokens"], found["outputTokens"]) for found in talk.of("cost")]
    assert figures == [(0.75, 10, 2), (0.25, 7, 1), (0.0, 0, 0)]
    assert talk.of("cost")[-1]["sessionTotal"]["costUsd"] == 1.0


@pytest.mark.parametrize(
    ("amounts", "spent"), [((2.5, 2.75), 0.75), ((0.25, 0.5), 0.5)], ids=["goes on", "begins anew"]
)
def test_a_resumed_session_counts_nothing_twice(amounts: tuple[float, float], spent: float) -> None:
    talk = Talk(epoch=2, resume="s", total=SessionTotal(2.0, 0, 0, 3)).begun({"sessionCapabilities": {"resume": {}}})
    talk.answers({}).turn().hear(*map(cost, amounts)).over()
    assert talk.of("cost")[0]["totalCostUsd"] == spent


@pytest.mark.parametrize(
    ("reason", "errors", "reports"),
    [
        ("end_turn", None, []),
        ("max_tokens", None, ["max_tokens"]),
        ("cancelled", ["The turn ended: cancelled"], []),
        ("refusal", ["The turn ended: refusal"], []),
    ],
)
def test_a_turns_stop_reason_says_whether_it_failed(reason: str, errors: Any, reports: list[str]) -> None:
    talk = Talk().ready().turn().hear(say("half"), update("tool_call", toolCallId="t", title="ls")).over(reason)
    assert talk.types() == [
        "init",
        "text_delta",
        "text",
        "tool_call",
        "tool_result",
        *["status"] * len(reports),
        "cost",
    ]
    assert talk.of("cost")[0].get("errors") == errors
    assert [report["message"] for report in talk.of("status")] == reports


def test_a_prompt_that_fails_is_a_turn_that_failed() -> None:
    talk = (
        Talk().ready().turn().answers(error={"code": -32603, "message": "Internal error", "data": {"details": "500"}})
    )
    assert talk.of("error") == [{"message": "Internal error: 500", "code": "-32603"}]
    assert talk.of("cost")[0]["errors"] == ["Internal error: 500"]
    talk.turn().answers({"x": 1})
    assert talk.of("cost")[1]["errors"] == ["The prompt was answered without a stopReason"]


def test_a_response_ends_a_turn_only_if_it_answers_its_prompt() -> None:
    talk = Talk().ready().turn()
    prompt = talk.last["id"]
    talk.hear({"id": 99, "result": {"stopReason": "end_turn"}})  # to no request of ours: no turn ends
    assert talk.of("cost") == []
    talk.hear({"id": str(prompt), "result": {"stopReason": "end_turn"}})
    assert len(talk.of("cost")) == 1
    talk.hear({"id": prompt, "result": {"stopReason": "end_turn"}})  # once more
    assert len(talk.of("cost")) == 1
    talk.turn().hear({"id": talk.last["id"]})
    assert talk.of("cost")[1]["errors"] == ["The response has neither a result nor an error"]
    talk.hear({"id": None, "error": {"code": -32700, "message": "Parse error"}})
    talk.hear({"id": 98, "error": {"code": 1, "message": "late"}})
    assert talk.of("error")[-2:] == [
        {"message": "The agent reports an error: Parse error", "code": "-32700"},
        {"message": "The agent reports an error: late", "code": "1"},
    ]


@pytest.mark.parametrize(
    "lost", [b'{"jsonrpc":"2.0","id":%d,"result":{"stopReason":"end_tu', b'{"id":%d,"error":nothing}']
)
def test_a_turn_whose_response_cannot_be_read_has_failed(lost: bytes) -> None:
    talk = Talk().ready().turn().hear(say("half")).hear_bytes(lost % 3)
    assert talk.of("text")[0]["text"] == "half"
    assert talk.of("cost")[0]["errors"] == ["The agent's response could not be read"]


def test_a_request_that_cannot_be_read_is_answered() -> None:
    talk = (
        Talk().ready().turn().hear_bytes(b'{"jsonrpc":"2.0","id":"p","method":"session/request_permission","params":{')
    )
    assert (talk.last["id"], talk.last["error"]["code"]) == ("p", -32700)


def test_objects_among_other_bytes_are_read() -> None:
    talk = Talk().ready().turn()
    end = json.dumps({"id": talk.last["id"], "result": {"stopReason": "end_turn"}}).encode()
    both = b"\x1b]0;title\x07" + json.dumps(say("hi")).encode() + end
    assert talk.hear_bytes(both).types() == ["init", "text_delta", "text", "cost"]


def test_what_comes_after_the_turns_end_is_published_once_the_agent_is_silent() -> None:
    talk = Talk().ready().turn().hear(say("The answer ")).over().hear(say("is "), say("42."))
    call = update("tool_call", toolCallId="t", title="ls", rawInput={"path": "/"})
    talk.hear(call)
    late = [as_json(draft) for draft in talk.protocol.finish_texts()]
    assert [found["text"] for found in talk.of("text")] == ["The answer ", "is 42."]
    assert [message["type"] for message in late] == ["tool_call"]
    assert talk.protocol.finish_texts() == []
    talk.turn().over()
    assert talk.types()[-2:] == ["tool_result", "cost"]


def test_a_late_text_does_not_go_on_in_the_next_turn() -> None:
    talk = Talk().ready().turn().over().hear(say("late")).turn().hear(say("new")).over()
    assert [found["text"] for found in talk.of("text")] == ["late", "new"]


def test_a_response_over_the_size_limit_ends_its_turn() -> None:
    talk = Talk().ready().turn()
    head = b'{"jsonrpc":"2.0","id":3,"result":{"stopReason":"end_turn","_meta":{"x":"'
    told = [event for event in talk.protocol.receive_lost(head, 20_000_000) if isinstance(event, DraftMessage)]
    assert [draft.type for draft in told] == ["error", "error", "cost"]
    assert as_json(told[0])["content"]["code"] == "line_too_long"
    assert talk.turn().methods[-1] == "session/prompt"


def test_a_turn_that_the_session_ends_is_not_ended_again_by_a_late_response() -> None:
    talk = Talk().ready().turn()
    prompt = talk.last["id"]
    assert [draft.type for draft in talk.protocol.end_turn("silence")] == ["error", "cost"]
    assert talk.protocol.end_turn("silence") == []
    talk.hear({"id": prompt, "result": {"stopReason": "end_turn"}})
    assert talk.of("cost") == []


@pytest.mark.parametrize("words", ["[MODE_UPDATE] yolo", "Error: no such file", '{"error": {"code": 1}}'])
def test_an_answer_is_a_text_whatever_it_says(words: str) -> None:
    talk = Talk().ready().turn().hear(say(words)).over()
    assert talk.types() == ["init", "text_delta", "text", "cost"]
    assert (talk.of("text")[0]["text"], talk.of("cost")[0]["isError"]) == (words, False)


def test_a_sum_that_begins_anew_in_mid_turn_loses_nothing() -> None:
    talk = Talk().ready().turn().hear(cost(0.5), cost(0.25), cost(0.75)).over()
    talk.turn().hear(cost(1.0)).answers(error={"code": 1, "message": "no"})
    assert [found["totalCostUsd"] for found in talk.of("cost")] == [1.25, 0.25]


def test_an_interrupt_is_confirmed_by_the_turns_end() -> None:
    talk = Talk().ready().turn().hear(PERMISSION)
    sent = talk.protocol.interrupt()
    assert talk.write(sent).last == {"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": "s"}}
    talk.write(talk.protocol.withdraw("4"))
    assert talk.last == {"jsonrpc": "2.0", "id": 4, "result": {"outcome": {"outcome": "cancelled"}}}
    with pytest.raises(CommandRefused):
        talk.protocol.answer("4", "allow")
    assert talk.protocol.withdraw("4") == b""
    assert talk.replies == []
    talk.over("cancelled")
    assert talk.replies == [Reply(sent.confirmation or "")]
    assert talk.protocol.stop() == b""
    assert talk.turn().protocol.stop()


def test_requests_that_nobody_answers_are_cancelled_even_after_the_turn() -> None:
    form = {"id": "q", "method": "elicitation/create", "params": {"sessionId": "s", "message": "?", "mode": "form"}}
    talk = Talk().ready().turn().hear(form, PERMISSION).over("cancelled")
    assert talk.write(talk.protocol.withdraw("q")).last["result"] == {"action": "cancel"}
    assert talk.write(talk.protocol.withdraw("4")).last["result"] == {"outcome": {"outcome": "cancelled"}}


def test_two_interrupts_of_one_turn_are_both_confirmed_by_its_end() -> None:
    talk = Talk().ready().turn()
    sent = [talk.protocol.interrupt() for _ in range(2)]
    talk.over("end_turn")  # it ended before the agent read the cancel
    assert [reply.confirmation for reply in talk.replies] == [one.confirmation for one in sent]
    assert talk.protocol.interrupt() == Sent(b"")
    assert talk.turn().methods[-1] == "session/prompt"  # no cancel is left over for the next turn


def test_an_interrupt_before_the_handshake_is_over_ends_the_turn_as_it_begins() -> None:
    talk = Talk()
    talk.protocol.prompt("go")
    assert talk.protocol.interrupt() == Sent(b"")
    talk.ready()
    assert talk.methods[-2:] == ["session/prompt", "session/cancel"]
    with pytest.raises(CommandRefused, match="does not support adding a prompt"):
        talk.protocol.steer("more")


def test_the_agents_response_confirms_or_refuses_a_model_and_a_mode() -> None:
    talk = Talk(permission_mode="default").ready(configOptions=OPTIONS)
    refused, taken = talk.protocol.set_model("big"), talk.protocol.set_permission_mode("plan")
    talk.write(refused).answers(error={"code": 1, "message": "no"}).write(taken)
    assert talk.last["params"] == {"sessionId": "s", "configId": "mode", "value": "plan"}
    talk.answers({})
    assert talk.replies == [Reply(refused.confirmation or "", "no"), Reply(taken.confirmation or "")]
    with pytest.raises(CommandRefused, match="not ready"):
        Talk().protocol.set_model("big")
    with pytest.raises(CommandRefused, match="it has build, plan"):
        talk.protocol.set_permission_mode("yolo")
    with pytest.raises(CommandRefused, match="policy"):
        Talk(approvals="ask").ready(modes=MODES).protocol.set_permission_mode("yolo")


# Updates --------------------------------------------------------------------------------------------------------


def test_a_text_is_whole_once_something_else_happens() -> None:
    talk = Talk().ready().turn()
    talk.hear(
        say("one ", messageId="a"), cost(0.1), update("session_info_update", title="T"), say("two", messageId="a"),
        say("three", messageId="b"), say("hm", "agent_thought_chunk"), say("four"),
        update("plan", entries=[{"content": "x", "status": "pending"}]), say(""), say("five"),
    )  # fmt: skip
    talk.over()
    assert [found["text"] for found in talk.of("text")] == ["one two", "three", "four", "five"]
    assert [found["text"] for found in talk.of("thinking")] == ["hm"]
    assert len({found["blockId"] for found in talk.of("text")}) == 4
    whole = {found["blockId"]: found["text"] for kind in ("text", "thinking") for found in talk.of(kind)}
    for piece in talk.of("text_delta") + talk.of("thinking_delta"):
        at = piece["offset"]
        assert whole[piece["blockId"]][at : at + len(piece["text"])] == piece["text"]


def test_an_endless_text_is_cut_and_not_kept_for_ever() -> None:
    talk = Talk().ready().turn().hear(*[say("x" * 400_000)] * 8).over()
    assert sum(len(found["text"]) for found in talk.of("text")) == 3_200_000
    assert len(talk.of("text")) > 1


def test_an_ended_call_holds_no_memory() -> None:
    talk = Talk().ready().turn()
    tracemalloc.start()
    try:
        for number in range(20):
            line = update(
                "tool_call", toolCallId=f"t{number}", title="x", status="completed", rawOutput="x" * 1_000_000
            )
            said = talk.protocol.receive(json.dumps({"jsonrpc": "2.0", **line}).encode())
            assert [draft.type for draft in said if isinstance(draft, DraftMessage)][-2:] == [
                "tool_call",
                "tool_result",
            ]
        del line, said
        assert tracemalloc.get_traced_memory()[0] < 3_000_000
    finally:
        tracemalloc.stop()


def test_partial_updates_make_one_call_and_one_result() -> None:
    meta = {"claudeCode": {"toolName": "Read", "parentToolUseId": "p1"}}
    talk = Talk().ready().turn()
    talk.hear(
        update("tool_call", toolCallId="a", title="Run", kind="execute", rawInput={}, status="pending"),
        update("tool_call_update", toolCallId="a", rawInput={"command": "ls"}),
        update("tool_call", toolCallId="b", title="Read", kind="read", status="in_progress", _meta=meta),
        update("tool_call_update", toolCallId="a", status="completed", rawOutput="out"),
        update("tool_call_update", toolCallId="a", status="completed", rawOutput="out"),
        update("tool_call_update", toolCallId="b", status="failed",
               content=[{"type": "content", "content": {"type": "text", "text": "no such"}}]),
        update("tool_call_update", toolCallId="c", title="Odd", kind="other", status="completed",
               locations=[{"path": "/x"}], content=[{"type": "diff", "path": "/x"}]),
    )  # fmt: skip
    calls = [
        (message.get("parentId"), message["content"]) for message in talk.messages if message["type"] == "tool_call"
    ]
    assert calls == [
        (None, {"toolUseId": "a", "name": "execute", "input": {"command": "ls"}}),
        ("p1", {"toolUseId": "b", "name": "Read", "input": {"title": "Read", "kind": "read"}}),
        (None, {"toolUseId": "c", "name": "Odd", "input": {"title": "Odd", "kind": "other", "path": "/x"}}),
    ]
    assert [(found["toolUseId"], found["output"], found["isError"]) for found in talk.of("tool_result")] == [
        ("a", "out", False), ("b", "no such", True), ("c", [{"type": "diff", "path": "/x"}], False),
    ]  # fmt: skip


def test_every_other_update_becomes_its_message() -> None:
    talk = Talk().ready().turn()
    entries = [{"content": "a", "status": "completed"}, {"content": "b", "status": "in_progress"}]
    talk.hear(
        say("echo", "user_message_chunk"),
        update("plan", entries=entries), update("plan", entries=entries),
        update("current_mode_update", currentModeId="plan"),
        update("available_commands_update", availableCommands=[]), update("config_option_update", configOptions=[]),
        update("notice", severity="warning", title="Slow", description="retrying"),
        update("compaction_update", compactionId="k", status="in_progress"),
        *[update("compaction_update", compactionId="k", status="completed")] * 2,
        update("compaction_summary_chunk", content={"type": "text", "text": "s"}),
        update("hologram", x=1), update("agent_message_chunk", content={"type": "image", "data": ""}),
        {"method": "_vendor/thing", "params": {}},
        update("agent_message_chunk", content={"type": "text"}), {"method": "session/update", "params": {}},
        update("tool_call", title="no id"),
    )  # fmt: skip
    reports = [(report["subtype"], report["message"]) for report in talk.of("status")]
    assert reports[:4] == [
        ("plan", "1 of 2 done; next: b"), ("mode", "plan"), ("notice", "warning: Slow: retrying"),
        ("compaction", "in_progress"),
    ]  # fmt: skip
    assert talk.of("compaction") == [{"trigger": "auto"}]
    assert len(talk.of("unknown")) == 3
    assert [error["code"] for error in talk.of("error")] == ["malformed"] * 3


# What it asks ---------------------------------------------------------------------------------------------------

CHOICES = [
    {"optionId": "o1", "kind": "allow_once", "name": "Yes"},
    {"optionId": "o2", "kind": "allow_always", "name": "Always"},
    {"optionId": "o3", "kind": "reject_once", "name": "No"},
]
TOOL = {"toolCallId": "t", "title": "Edit", "kind": "edit", "rawInput": {"a": 1}, "locations": [{"path": "/x"}]}
PERMISSION: dict[str, Any] = {
    "id": 4,
    "method": "session/request_permission",
    "params": {"sessionId": "s", "toolCall": TOOL, "options": CHOICES},
}


def test_a_permission_request_becomes_one_approval_request() -> None:
    talk = Talk().ready().turn().hear(say("May I?"), PERMISSION, PERMISSION)
    assert talk.types() == ["init", "text_delta", "text", "tool_call", "approval_request"]
    assert talk.of("approval_request") == [
        {"requestId": "4", "name": "edit", "toolUseId": "t", "input": {"a": 1, "path": "/x"}, "suggestions": CHOICES}
    ]


@pytest.mark.parametrize(
    ("call", "given"),
    [
        (
            {
                "locations": [{"path": "/a"}, {"path": "/b"}],
                "content": [{"type": "diff", "path": "/c", "newText": "x"}],
            },
            {"title": "a tool", "kind": "edit", "path": "/a", "shownPaths": ["/b", "/c"]},
        ),
        ({"rawInput": {"path": "/a"}, "locations": [{"path": "/b"}]}, {"path": "/a", "shownPaths": ["/b"]}),
        ({"rawInput": {"file": "/a"}, "locations": [{"path": "/a"}]}, {"file": "/a", "path": "/a"}),
        ({"kind": "execute", "title": "rm x", "rawInput": {"timeout": 5}}, {"timeout": 5, "command": "rm x"}),
        ({"kind": "execute", "title": "rm", "rawInput": {"cmd": "rm x"}}, {"cmd": "rm x"}),
        ({"rawInput": ["rm", "x"]}, {"title": "a tool", "kind": "edit", "input": ["rm", "x"]}),
    ],
)
def test_policies_see_all_that_an_agent_shows_of_a_call(call: dict[str, Any], given: Any) -> None:
    tool = {"toolCallId": "t", "title": "a tool", "kind": "edit"} | call
    asks = PERMISSION | {"params": PERMISSION["params"] | {"toolCall": tool}}
    assert Talk().ready().turn().hear(asks).of("approval_request")[0]["input"] == given


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("allow", {"outcome": "selected", "optionId": "o1"}),
        ("deny", {"outcome": "selected", "optionId": "o3"}),
        ({"decision": "allow", "always": True}, {"outcome": "selected", "optionId": "o2"}),
        ({"decision": "deny", "always": True}, {"outcome": "selected", "optionId": "o3"}),
        ({"decision": "allow", "suggestion": "o2"}, {"outcome": "selected", "optionId": "o2"}),
        ({"suggestion": CHOICES[1]}, {"outcome": "selected", "optionId": "o2"}),
        ({"decision": "deny", "interrupt": True}, {"outcome": "cancelled"}),
        ({"decision": "allow", "input": {"a": 1, "path": "/x"}}, {"outcome": "selected", "optionId": "o1"}),
    ],
)
def test_an_answer_selects_the_agents_option(answer: Any, outcome: Any) -> None:
    talk = Talk().ready().turn().hear(PERMISSION)
    talk.write(talk.protocol.answer("4", answer))
    assert talk.last == {"jsonrpc": "2.0", "id": 4, "result": {"outcome": outcome}}


@pytest.mark.parametrize("answer", [{"decision": "allow", "input": {}}, {"suggestion": "o9"}, "maybe", None])
def test_an_answer_that_does_not_fit_is_refused(answer: Any) -> None:
    with pytest.raises(CommandRefused):
        Talk().ready().turn().hear(PERMISSION).protocol.answer("4", answer)
    no_choice = PERMISSION | {"params": PERMISSION["params"] | {"options": []}}
    with pytest.raises(CommandRefused, match="no option that means deny"):
        Talk().ready().turn().hear(no_choice).protocol.answer("4", "deny")


def test_a_form_is_answered_and_a_withdrawn_permission_is_not() -> None:
    ask = {"id": "q", "method": "elicitation/create", "params": {"sessionId": "s", "message": "Name?", "mode": "form"}}
    talk = Talk().ready().turn().hear(ask)
    assert talk.of("question")[0]["questions"] == [{"id": "0", "header": "", "question": "Name?", "mode": "form"}]
    talk.write(talk.protocol.answer("q", {"name": "n"}))
    assert talk.last["result"] == {"action": "accept", "content": {"name": "n"}}
    talk.hear(PERMISSION, {"method": "$/cancel_request", "params": {"requestId": 4}})
    assert talk.of("approval_resolved") == [{"requestId": "4", "decision": "withdrawn", "by": "agent"}]
    assert (talk.last["id"], talk.last["error"]["code"]) == (4, -32800)
    with pytest.raises(CommandRefused):
        talk.protocol.answer("4", "allow")


def test_an_agent_that_numbers_its_requests_anew_is_answered_each_time() -> None:
    talk = Talk().ready()
    for public in ("4", "4~2", "4~3"):
        talk.turn().hear(PERMISSION)
        assert talk.of("approval_request")[-1]["requestId"] == public
        assert talk.write(talk.protocol.answer(public, "allow")).last["id"] == 4
        talk.over()
    text = PERMISSION | {"id": "4"}  # another one than the number, though its digits are the same
    talk.turn().hear(PERMISSION, text)
    assert [found["requestId"] for found in talk.of("approval_request")[-2:]] == ["4~4", "4~5"]
    assert talk.write(talk.protocol.answer("4~5", "deny")).last["id"] == "4"
    later = Talk(epoch=2).ready().turn().hear(PERMISSION)
    assert later.of("approval_request")[0]["requestId"] == "2.4"


def test_a_request_that_takes_the_place_of_an_open_one_withdraws_it() -> None:
    other = PERMISSION | {"params": PERMISSION["params"] | {"toolCall": TOOL | {"toolCallId": "u", "title": "Other"}}}
    talk = Talk().ready().turn().hear(PERMISSION, other)
    assert talk.of("approval_resolved") == [{"requestId": "4", "decision": "withdrawn", "by": "agent"}]
    assert [found["requestId"] for found in talk.of("approval_request")] == ["4", "4~2"]


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("fs/read_text_file", -32601), ("fs/write_text_file", -32601), ("terminal/create", -32601),
        ("session/request_permission", -32602),
    ],
)  # fmt: skip
def test_what_is_not_offered_is_answered_with_an_error(method: str, code: int) -> None:
    talk = Talk().ready().turn().hear({"id": 8, "method": method, "params": {"path": "/etc/passwd"}})
    assert (talk.last["id"], talk.last["error"]["code"]) == (8, code)
    assert talk.types()[-1] in ("unknown", "error")
