"""The runner protocol: what a runner says of itself beside its agent's lines."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from agentrq.wire.commands import Options
from agentrq.wire.messages import ApprovalRequest, SessionTotal
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import CommandRefused, Ready, Sent
from agentrq_worker.providers.registry import make_parser
from agentrq_worker.providers.runner_protocol import RunnerProtocol


class Talk:
    def __init__(self, epoch: int = 1) -> None:
        make = partial(make_parser, epoch=epoch)
        self.protocol = self._protocol = RunnerProtocol("s", Options(), "claude", make, SessionTotal())

    def say(self, **line: Any) -> list[DraftMessage]:
        return [said for said in self._protocol.receive(json.dumps(line).encode()) if isinstance(said, DraftMessage)]

    def event(self, **event: Any) -> list[DraftMessage]:
        return self.say(type="agent_event", event=event)

    def ask(self) -> str:
        """The agent asks for a permission: the id that clients see."""
        (asked,) = self.event(**ASKS)
        assert isinstance(asked.content, ApprovalRequest)
        return asked.content.request_id

    def call(self) -> list[str]:
        block = {"type": "tool_use", "id": "T1", "name": "Bash", "input": {}}
        return [said.type for said in self.event(type="assistant", message={"id": "m", "content": [block]})]

    def cost(self, so_far: float) -> Any:
        *_, draft = self.event(type="result", subtype="success", is_error=False, total_cost_usd=so_far, num_turns=1)
        return draft.content


def test_a_runner_may_introduce_itself_in_every_turn() -> None:
    talk = Talk()
    assert talk.call() == ["tool_call"]
    assert talk.say(type="agent_started", adapter="claude") == []
    assert talk.call() == []  # the same line once more
    assert talk.cost(0.25).session_total.cost_usd == 0.25
    assert talk.say(type="agent_started", adapter="claude") == []
    assert talk.cost(0.75).session_total.cost_usd == 0.75


def test_another_agent_closes_what_the_one_before_left_open() -> None:
    talk = Talk()
    talk.call()
    assert [said.type for said in talk.say(type="agent_started", adapter="codex")] == ["tool_result"]
    assert talk.say(type="agent_started", adapter="codex") == []
    assert talk.say(type="agent_started", adapter="nobody's") == []


ASKS = {"type": "control_request", "request_id": "r1", "request": {
    "subtype": "can_use_tool", "tool_name": "Read", "input": {"path": "/a"}, "tool_use_id": "t"}}  # fmt: skip


def test_a_runner_that_was_prompted_is_ready_with_its_first_line() -> None:
    protocol = Talk().protocol
    ready = [protocol.is_ready]  # it owes nothing before a prompt
    protocol.prompt("go")
    ready.append(protocol.is_ready)
    assert protocol.receive(b'{"type":"agent_log","message":"hi"}')[0] == Ready()
    ready.append(protocol.is_ready)
    assert ready == [True, False, True]
    assert Ready() not in protocol.receive(b'{"type":"ready"}')


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_runner_that_accepts_answers_is_given_them_by_its_own_ids(epoch: int) -> None:
    talk = Talk(epoch)
    talk.say(type="ready", accepts=["answer", "interrupt", "novel"])
    public = talk.ask()
    line = json.loads(talk.protocol.answer(public, {"decision": "allow"}))
    assert line == {"type": "answer", "sessionId": "s", "requestId": "r1", "answer": {"decision": "allow"}}
    with pytest.raises(CommandRefused, match="no such request"):
        talk.protocol.answer(public, "allow")
    public = talk.ask()
    with pytest.raises(CommandRefused):
        talk.protocol.answer(public, 7)
    assert json.loads(talk.protocol.withdraw(public))["type"] == "withdraw"
    assert talk.protocol.withdraw(public) == b""
    sent = talk.protocol.interrupt()
    assert isinstance(sent, Sent)
    assert json.loads(sent.data) == {"type": "interrupt", "sessionId": "s"}


def test_a_runner_that_accepts_nothing_is_only_prompted_and_stopped() -> None:
    talk = Talk()
    talk.say(type="ready")
    public = talk.ask()
    with pytest.raises(CommandRefused, match="does not support approvals"):
        talk.protocol.answer(public, "allow")
    with pytest.raises(CommandRefused, match="does not support interrupting"):
        talk.protocol.interrupt()
    assert talk.protocol.withdraw(public) == b""


@pytest.mark.parametrize(
    "head", [b'{"type":"result","stats":{"x":"', b'{"type":"agent_event","event":{"type":"result","x":"']
)
def test_a_last_line_over_the_size_limit_ends_its_turn(head: bytes) -> None:
    protocol = RunnerProtocol("s", Options(), "gemini", partial(make_parser, epoch=1), SessionTotal())
    told = [event.type for event in protocol.receive_lost(head, 20_000_000) if isinstance(event, DraftMessage)]
    assert told == ["error", "cost"]
    assert len(protocol.receive_lost(b'{"type":"tool_result","output":"', 20_000_000)) == 1
    assert [draft.type for draft in protocol.end_turn("silence")] == ["cost"]


@pytest.mark.parametrize(
    ("parser", "tells"), [("gemini", True), ("opencode", True), ("ollama", True), ("aider", True), ("claude", False)]
)
def test_an_exit_before_the_turns_last_line_has_cut_the_turn_of_these(parser: str, tells: bool) -> None:
    protocol = RunnerProtocol("s", Options(), parser, partial(make_parser, epoch=1), SessionTotal())
    assert protocol.tells_turn_end is tells
    protocol.receive(b'{"type":"agent_started","parser":"gemini"}')
    assert protocol.tells_turn_end
