"""What a diagnosis says of each state of a session, without Redis: every status and every evidence has findings."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentrq.client.diagnosis import Finding, diagnose, is_stuck
from agentrq.client.evidence import Evidence, WorkerEvidence
from agentrq.wire.events import Message, make_message
from agentrq.wire.messages import ApprovalRequest, Question, ToolCall, ToolResult
from agentrq.wire.state import Inner, State
from agentrq.wire.status import Status

NOW = 1_800_000_000_000


def evidence(status: str, **changes: Any) -> Evidence:
    given_state = {"updated_at": NOW, "created_at": NOW, "started_at": NOW} | changes.pop("state", {})
    state = State(session_id="s", provider="demo", status=Status(status), epoch=1, cursor="1-3", **given_state)
    usual: dict[str, Any] = {
        "now": NOW, "state": state, "inner": Inner(), "queue": "agentrq", "events": [], "inbox_size": 0,
        "inbox_since": None, "lease": None, "job": "queued", "job_position": 0, "queue_length": 1,
        "workers": [WorkerEvidence("w1", True, 3)], "suspended": False, "memory_full": False,
    }  # fmt: skip
    return Evidence(**(usual | changes))


def message(cursor: str, timestamp: int, kind: str, content: Any) -> Message:
    return make_message(session_id="s", id=cursor, cursor=cursor, type=kind, timestamp=timestamp, content=content)


def only(found: Evidence) -> Finding:
    (finding,) = diagnose(found)
    return finding


def test_a_queued_session_without_a_live_worker_is_stuck_and_told_how_to_start_one() -> None:
    found = only(evidence("queued", workers=[WorkerEvidence("gone", False, 2)]))
    assert (found.cause, found.stuck, found.evidence[-1]) == ("no_worker", True, "lost: gone")
    assert found.remedy == "AGENTRQ_QUEUE=agentrq agentrq worker"


def test_a_queued_session_waits_while_all_workers_are_full() -> None:
    found = only(evidence("queued", workers=[WorkerEvidence("w1", True, 0)]))
    assert (found.cause, found.stuck) == ("workers_full", False)


def test_a_queued_session_of_a_suspended_rq_is_stuck() -> None:
    assert only(evidence("queued", suspended=True)).remedy == "rq resume"


def test_a_queued_session_whose_job_is_missing_or_canceled_is_stuck() -> None:
    assert [only(evidence("queued", job=job)).cause for job in ("missing", "canceled")] == [
        "job_missing", "job_canceled",
    ]  # fmt: skip
    assert is_stuck(diagnose(evidence("queued", job="missing")))


def test_a_deferred_start_is_not_stuck() -> None:
    assert not is_stuck(diagnose(evidence("queued", job="deferred")))


def test_a_start_is_stuck_after_a_minute() -> None:
    owned = {"lease": "held", "job": "started"}
    assert not only(evidence("starting", **owned)).stuck
    assert only(evidence("starting", state={"started_at": NOW - 61_000}, **owned)).stuck


def test_a_running_session_names_the_tool_that_runs_and_for_how_long() -> None:
    events = [
        message("1-1", NOW - 300_000, "tool_call", ToolCall("a", "Bash", {})),
        message("1-2", NOW - 200_000, "tool_result", ToolResult("a", "", False)),
        message("1-3", NOW - 180_000, "tool_call", ToolCall("b", "Read", {})),
    ]
    state = {"worker": "w1", "updated_at": NOW - 180_000}
    found = only(evidence("running", events=events, lease="held", state=state))
    assert (found.stuck, found.says) == (False, "It runs on worker w1, silent for 3 min")
    assert found.evidence == ["tool Read runs for 3 min"]


def test_a_running_session_whose_worker_is_lost_is_never_called_running() -> None:
    lost = {"worker": "w1", "updated_at": NOW - 30_000}
    found = only(evidence("running", lease="lost", workers=[], state=lost))
    assert (found.cause, found.stuck) == ("worker_lost", True)
    assert "w1 is lost and no live worker serves queue agentrq" in found.says
    assert not only(
        evidence("running", lease="lost", state=lost | {"updated_at": NOW})
    ).stuck  # a takeover is under way
    assert only(evidence("running", lease="lost", state=lost)).stuck


def test_a_waiting_session_names_the_request_and_a_command_that_is_safe_to_paste() -> None:
    request = ApprovalRequest("r; rm -rf /", "Bash", {})
    events = [message("1-1", NOW - 7000, "approval_request", request)]
    found = only(evidence("waiting", events=events, lease="held"))
    assert (found.cause, found.stuck) == ("waiting", False)
    assert "Bash, asked 7 s ago" in found.says
    assert found.remedy == "agentrq answer -- s 'r; rm -rf /' allow    # or: deny"


def test_a_session_that_waits_for_a_question_names_the_command_that_takes_its_answer() -> None:
    events = [message("1-1", NOW - 7000, "question", Question("r", [{"id": "0", "question": "Which colour?"}]))]
    found = only(evidence("waiting", events=events, lease="held"))
    assert (found.says, found.remedy) == ("It waits for an answer: a question, asked 7 s ago", "agentrq attach s")


def test_commands_that_a_live_owner_does_not_take_are_stuck() -> None:
    findings = diagnose(evidence("idle", lease="held", inbox_size=2, inbox_since=NOW - 60_000, state={"worker": "w1"}))
    assert [finding.cause for finding in findings] == ["commands_unread", "idle"]
    assert is_stuck(findings)


def test_a_full_redis_is_named_first() -> None:
    assert diagnose(evidence("running", lease="held", memory_full=True))[0].cause == "redis_full"


def test_an_error_tells_its_cause() -> None:
    found = only(evidence("error", state={"error": "Exit code: 7", "reason": "failed", "exit_code": 7}))
    assert found.says == "It ended in error (failed): Exit code: 7"
    assert found.evidence == ["exit code 7"]


@given(
    status=st.sampled_from([status.value for status in Status]),
    lease=st.sampled_from(["held", "lost", None]),
    job=st.sampled_from(["queued", "started", "missing", "canceled", "deferred", "finished", None]),
    workers=st.none() | st.lists(st.builds(WorkerEvidence, st.just("w"), st.booleans(), st.none() | st.integers(0, 2))),
    suspended=st.sampled_from([True, False, None]),
    moment=st.none() | st.integers(0, NOW),
)
def test_every_evidence_has_a_finding_of_one_line(moment: int | None, **given_evidence: Any) -> None:
    status = given_evidence.pop("status")
    state = {"updated_at": moment, "created_at": moment, "started_at": moment}
    for finding in diagnose(evidence(status, state=state, **given_evidence)):
        assert finding.cause
        assert "\n" not in finding.says + finding.remedy
