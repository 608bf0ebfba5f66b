"""Requests over the lives of several workers: deadlines, answers kept, fates told; no process, no Redis."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from agentrq.wire.approval_policy import read_policy
from agentrq.wire.messages import ApprovalRequest, ApprovalResolved, Question
from agentrq_worker.ownership.interrupted_turn import read_stored_answers
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import Alive
from agentrq_worker.session import inputs
from agentrq_worker.session.effects import PublishMessage, PublishReceipt
from agentrq_worker.session_types import InterruptedRequest, InterruptedTurn
from tests.worker.machine_talk import REDIS_MS, Talk, asks, cost
from tests.worker.recovered_turns import read_back

LS = {"command": "ls"}


def ms_ago(seconds: float) -> int:
    return REDIS_MS - int(seconds * 1000)


def recovered(*asked: InterruptedRequest, decisions: dict[str, str] | None = None, **options: Any) -> Talk:
    cut = InterruptedTurn("first", [], list(asked), decisions or {})
    return Talk(cut=cut, recovering=True, on_interrupt="continue", **options).begin()


def test_a_deadline_counts_from_the_first_asking() -> None:
    """It passed while the session had no owner: the agent that asks again is not given the time anew."""
    talk = recovered(InterruptedRequest("old", "Bash", LS, ms_ago(100)), approvals={"deadlineS": 50})
    talk.say(Alive(), asks("new"))
    talk.wait(0)
    assert talk.of_type("approval_resolved") == [{"requestId": "old", "decision": "deny", "by": "deadline"}]
    assert talk.written[-1] == 'answer new "deny"'


def test_a_deadline_that_has_not_passed_goes_on() -> None:
    talk = recovered(InterruptedRequest("old", "Bash", LS, ms_ago(10)), approvals={"deadlineS": 50})
    talk.say(Alive(), asks("new"))
    talk.wait(0)
    assert talk.of_type("approval_resolved") == []
    assert talk.statuses[-1] == "waiting"


def test_a_deadline_decides_what_nobody_has_asked_again() -> None:
    """The request is open as long as its deadline allows, whether the resumed agent asks again or not."""
    talk = recovered(
        InterruptedRequest("old", "Bash", LS, ms_ago(100)), approvals={"deadlineS": 50, "onDeadline": "allow"}
    )
    talk.wait(0)
    told = [{"requestId": "old", "decision": "allow", "by": "deadline"}]
    assert talk.of_type("approval_resolved") == told
    late = talk.command("answer", request_id="old", answer="deny")
    assert talk.receipts()[-1] == (late, "rejected", "answered already: allow by deadline")
    talk.say(Alive(), asks("new"))  # the answer is there already
    assert talk.written[-1] == 'answer new "allow"'


def test_who_won_is_told_after_a_workers_death_too() -> None:
    talk = recovered(decisions={"old": "allow by alice"})
    late = talk.command("answer", request_id="old", answer="deny")
    assert talk.receipts() == [(late, "rejected", "answered already: allow by alice")]


@pytest.mark.parametrize("answer", [None, 7, [], {"decision": "perhaps"}, {"answers": {"0": "Red"}}, "perhaps"])
def test_what_is_no_answer_is_not_kept(answer: Any) -> None:
    talk = recovered(InterruptedRequest("old", "Bash", LS))
    talk.command("answer", request_id="old", answer=answer)
    assert talk.receipts()[-1][1] == "rejected"
    talk.command("answer", request_id="old", answer="allow")
    assert talk.receipts()[-1][1] == "applied"


def test_a_question_takes_texts() -> None:
    talk = recovered(InterruptedRequest("old", "", [{"id": "0"}]))
    talk.command("answer", request_id="old", answer={"answers": {"0": "Red"}, "by": "alice"})
    assert talk.of_type("approval_resolved") == [{"requestId": "old", "decision": "answer", "by": "alice"}]
    talk.say(Alive(), DraftMessage("question", Question("new", [{"id": "0"}])))
    assert talk.written[-1] == 'answer new {"answers": {"0": "Red"}, "by": "alice"}'


async def test_an_answer_outlives_a_second_worker() -> None:
    """Given before the agent asked again, applied, and then its worker died: the next one has it still."""
    talk = recovered(InterruptedRequest("old", "Bash", LS))
    changed = {"decision": "allow", "input": {"command": "ls -l"}, "by": "alice"}
    talk.command("answer", request_id="old", answer=changed)
    receipt = next(effect for effect in talk.effects if isinstance(effect, PublishReceipt))
    kept = read_stored_answers(receipt.fields["kept"].decode())  # in the same step: an answer that is applied is kept
    found = await read_back(ApprovalRequest("old", "Bash", LS), ApprovalResolved("old", "allow", "alice"), kept=kept)
    assert [(one.request_id, one.answer, one.by) for one in found.requests] == [("old", changed, "alice")]
    assert found.decisions == {"old": "allow by alice"}
    next_owner = recovered(*found.requests, decisions=found.decisions).say(Alive(), asks("new"))
    assert next_owner.written[-1].startswith('answer new {"decision": "allow", "input": {"command": "ls -l"}')
    next_owner.say(cost())
    assert next_owner.state["kept"] == b""


async def test_a_request_asked_twice_is_read_back_once() -> None:
    found = await read_back(ApprovalRequest("r", "Bash", LS), ApprovalRequest("r", "Bash", LS))
    assert [one.request_id for one in found.requests] == ["r"]


@pytest.mark.parametrize("kept", ["", "{}"])
def test_nothing_is_kept(kept: str) -> None:
    assert read_stored_answers(kept) == {}


@pytest.mark.parametrize("kept", ["x", "[]", '{"r":1}', '{"r":["allow"]}'])
def test_garbage_in_the_state(kept: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's own words
        read_stored_answers(kept)


def test_no_depth_of_an_input_is_too_deep() -> None:
    """What can just be read may be too deep to compare: then it is another request, and no session ends with it."""
    policy = {"rules": [{"path": "/*", "decision": "deny"}]}
    for depth in range(900, 1100):
        deep = Raw(b'{"a":' * depth + b"1" + b"}" * depth)
        talk = recovered(InterruptedRequest("old", "Bash", deep), approvals=policy)
        request = DraftMessage("approval_request", ApprovalRequest("new", "Bash", deep))
        talk.agent.says = [Alive(), request]
        published = talk.machine.handle(inputs.LinesRead([b"{}"]), talk.now)
        counts = [effect.fields.get("pendingApprovals") for effect in published if isinstance(effect, PublishMessage)]
        assert counts in ([1], [2], [None])


def test_an_answer_changes_no_input_into_one_that_the_worker_denies() -> None:
    policy = read_policy({"rules": [{"tool": "Bash", "command": "rm *", "decision": "deny"}]})
    talk = Talk(worker=policy).begin().say(Alive(), asks("r1"), asks("r2"))
    changed = talk.command("answer", request_id="r1", answer={"decision": "allow", "input": {"command": "ls; rm x"}})
    assert talk.receipts()[-1] == (changed, "rejected", "the worker's policy denies the call with this input")
    for answer in ({"decision": "allow", "input": {"command": "ls -l"}}, {"decision": "deny"}):
        talk.command("answer", request_id="r1" if "input" in answer else "r2", answer=answer)
        assert talk.receipts()[-1][1] == "applied"


def test_a_stored_answer_changes_no_input_into_one_that_the_worker_denies() -> None:
    policy = read_policy({"rules": [{"tool": "Bash", "command": "rm *", "decision": "deny"}]})
    talk = recovered(InterruptedRequest("old", "Bash", LS), worker=policy)
    talk.command("answer", request_id="old", answer={"decision": "allow", "input": {"command": "rm x"}})
    assert talk.receipts()[-1][1] == "rejected"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("allow", "applied"), ({"decision": "allow", "by": "alice"}, "applied"),
        ({"decision": "deny", "always": True}, "applied"),
        ({"suggestion": {"optionId": "y", "kind": "allow_once"}}, "rejected"),  # the kind is the client's word
        ({"decision": "allow", "always": True}, "rejected"), ({"suggestion": "acceptForSession"}, "rejected"),
        ({"decision": "deny", "suggestion": {"kind": "allow_always"}}, "rejected"),
        ({"suggestion": {"type": "setMode", "mode": "acceptEdits"}}, "rejected"),
        ({"suggestion": {"optionId": "y", "kind": "allow_always"}}, "rejected"),
    ],
)  # fmt: skip
def test_no_answer_lets_an_agent_ask_less_where_the_worker_denies_calls(answer: Any, outcome: str) -> None:
    policy = read_policy({"rules": [{"tool": "Bash", "command": "rm *", "decision": "deny"}]})
    for worker, expected in ((policy, outcome), (read_policy("ask"), "applied")):
        talk = Talk(worker=worker).begin().say(Alive(), asks("r1"))
        talk.command("answer", request_id="r1", answer=answer)
        assert talk.receipts()[-1][1] == expected
