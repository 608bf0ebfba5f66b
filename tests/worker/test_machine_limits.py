"""What happens to a session by time alone, without a clock: the test says how much time passes."""

from __future__ import annotations

from typing import Any

import pytest

from agentrq.wire.messages import Error, Text
from agentrq.wire.status import Reason, Status
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import Alive, Background, Ready, TurnSeemsOver, TurnStarted
from agentrq_worker.session import inputs
from agentrq_worker.session_types import InterruptedRequest, Outcome
from tests.worker.machine_talk import REDIS_MS, Talk, asks, cost, cut

TIMEOUT = Outcome(Status.ERROR, Reason.TIMEOUT, "Ran over 100 s")


def test_a_session_ends_when_its_time_is_over() -> None:
    talk = Talk(timeout_s=100).begin().say(Alive()).wait(99)
    assert not talk.is_over
    talk.wait(1)
    assert talk.outcome == TIMEOUT
    talk.gone(-15)
    assert talk.end == ("error", "timeout", "Ran over 100 s")
    assert talk.state["lastTurn"] == "cut"


def test_the_time_of_earlier_owners_counts() -> None:
    talk = Talk(recovering=True, timeout_s=100, claimed={"ran_s": 70.0}).begin().wait(29)
    assert not talk.is_over
    assert talk.wait(1).outcome == TIMEOUT


def test_a_turn_that_runs_over_is_interrupted_and_counts_as_cut() -> None:
    talk = Talk(turn_timeout_s=30).begin().say(Alive()).wait(30)
    assert talk.written[-1] == "interrupt"
    assert talk.of_type("error")[-1]["code"] == "turn_timeout"
    talk.say(cost(is_error=True))
    assert (talk.statuses[-1], talk.state["lastTurn"]) == ("idle", "cut")
    talk.command("prompt", text="again")
    talk.wait(29).say(cost())
    assert (talk.outcome, talk.state["lastTurn"]) == (None, "whole")


def test_a_turn_that_runs_over_and_does_not_end_ends_the_session() -> None:
    talk = Talk(turn_timeout_s=30).begin().say(Alive()).wait(39)
    assert not talk.is_over
    assert talk.wait(1).outcome == Outcome(Status.ERROR, Reason.TIMEOUT, "A turn ran over 30 s")


def test_a_turn_of_an_agent_that_cannot_be_interrupted_ends_the_session() -> None:
    talk = Talk(turn_timeout_s=30).begin().say(Alive())
    talk.agent.can = False
    assert talk.wait(30).outcome == Outcome(Status.ERROR, Reason.TIMEOUT, "A turn ran over 30 s")


def test_an_idle_session_ends_and_a_busy_one_does_not() -> None:
    talk = Talk(idle_timeout_s=20).begin().say(Alive()).wait(100).say(cost()).wait(19)
    assert not talk.is_over
    assert talk.wait(1).outcome == Outcome(Status.DONE, Reason.IDLE_TIMEOUT)


def test_a_session_that_idles_after_a_cut_turn_is_no_success() -> None:
    talk = Talk(cut=cut(), recovering=True, idle_timeout_s=20).begin().wait(20).gone(-15)
    assert talk.end == ("error", "failed", "Its last turn was cut, then: idle timeout")


def test_a_whole_turn_after_a_cut_one_is_a_success() -> None:
    talk = Talk(cut=cut(), recovering=True, idle_timeout_s=20).begin()
    talk.command("prompt", text="again")
    talk.say(Alive(), cost()).wait(20).gone(-15)
    assert talk.end == ("done", "idle_timeout", None)


def test_a_cut_turn_of_an_earlier_life_is_remembered() -> None:
    """It was cut two owners ago; the last one was lost while idle."""
    talk = Talk(recovering=True, idle_timeout_s=20, claimed={"last_turn": "cut"}).begin().wait(20).gone(-15)
    assert talk.end[0] == "error"


def test_a_session_is_idle_from_the_answer_on_that_it_waited_for() -> None:
    talk = Talk(idle_timeout_s=20).begin().say(Alive(), cost()).say(asks()).wait(1000)
    talk.command("answer", request_id="r1", answer="allow")
    assert not talk.wait(19).is_over
    assert talk.wait(1).outcome == Outcome(Status.DONE, Reason.IDLE_TIMEOUT)


def test_background_work_keeps_a_session_from_being_idle() -> None:
    talk = Talk(idle_timeout_s=20).begin().say(Alive(), Background(("research",)), cost()).wait(1000)
    assert talk.statuses[-1] == "idle"
    talk.say(Background()).wait(19)
    assert not talk.is_over
    assert talk.wait(1).outcome == Outcome(Status.DONE, Reason.IDLE_TIMEOUT)


def test_background_work_that_reports_nothing_keeps_it_for_an_hour() -> None:
    talk = Talk(idle_timeout_s=20).begin().say(Alive(), Background(("server",)), cost()).wait(3599)
    assert not talk.is_over
    talk.wait(1).gone(-15)
    assert talk.end[1] == "idle_timeout"
    (ended,) = talk.of_type("error")
    assert (ended["code"], ended["message"]) == ("background_ended", "Background work of the agent was ended: server")


@pytest.mark.parametrize("recovering", [False, True])
def test_an_agent_that_does_not_answer_its_handshake_ends_the_session(recovering: bool) -> None:
    talk = Talk(recovering=recovering, handshake_s=8)
    talk.agent.ready = False
    talk.begin().wait(7.9)
    assert not talk.is_over
    assert talk.wait(0.1).outcome == Outcome(
        Status.ERROR, Reason.FAILED, "The agent did not answer its handshake within 8 s"
    )


@pytest.mark.parametrize("told", [True, False])
def test_an_agent_that_answers_late_but_in_time_is_left_alone(told: bool) -> None:
    talk = Talk(handshake_s=8)
    talk.agent.ready = False
    talk.begin().wait(7)
    talk.agent.ready = True
    if told:
        talk.say(Ready())
    assert talk.wait(1000).outcome is None


def test_a_resumed_session_is_starting_until_its_agent_is_ready() -> None:
    talk = Talk(recovering=True)
    talk.agent.ready = False
    talk.begin()
    talk.command("set_model", text="m")
    talk.say(DraftMessage("text", Text("resuming")))
    assert talk.statuses == []
    talk.agent.ready = True
    assert talk.say(Ready()).statuses == ["idle"]


def test_an_interrupt_that_is_never_obeyed_ends_the_session() -> None:
    talk = Talk(handshake_s=60).begin().say(Alive())
    talk.command("interrupt")
    assert talk.wait(59).outcome is None
    outcome = talk.wait(1).outcome
    assert outcome == Outcome(Status.ERROR, Reason.FAILED, "The agent did not end its turn within 60 s of an interrupt")


def test_the_bound_of_an_interrupt_does_not_reach_the_next_turn() -> None:
    talk = Talk(handshake_s=60).begin().say(Alive())
    talk.command("interrupt")
    talk.wait(50).say(cost(is_error=True))
    talk.command("prompt", text="next")
    assert talk.wait(1000).outcome is None


@pytest.mark.parametrize("kind", ["interrupt", "set_model", "set_permission_mode"])
def test_an_agent_that_never_confirms_has_the_command_rejected(kind: str) -> None:
    talk = Talk().begin().say(Alive())
    talk.agent.confirms = True
    sid = talk.command(kind, text="m")
    assert talk.wait(9.9).receipts() == []
    assert talk.wait(0.1).receipts() == [(sid, "rejected", "the agent did not confirm within 10 s")]
    assert "options" not in talk.state


def test_an_unconfirmed_interrupting_prompt_is_rejected_and_not_handed_over() -> None:
    talk = Talk().begin().say(Alive())
    talk.agent.confirms = True
    sid = talk.command("prompt", text="now", mode="interrupt")
    talk.wait(10)
    assert talk.receipts() == [(sid, "rejected", "the agent did not confirm within 10 s")]
    talk.say(cost())
    assert "prompt now" not in talk.written


@pytest.mark.parametrize(("pipe", "paused"), [("stdout", False), ("stdin", False), ("stdout", True)])
def test_a_runner_that_closed_a_pipe_has_ten_seconds_unless_it_waits_for_us(pipe: str, paused: bool) -> None:
    talk = Talk().begin().say(Alive()).feed(inputs.PipeClosed(pipe))
    assert talk.timer == talk.now + 10
    talk.now += 10
    talk.feed(inputs.TimerFired(reading_paused=paused))
    if paused:
        assert (talk.outcome, talk.timer) == (None, talk.now + 10)
    else:
        assert talk.outcome == Outcome(Status.ERROR, Reason.FAILED, f"The runner closed its {pipe} and did not end")


def lost(code: str = "line_too_long", **members: Any) -> DraftMessage:
    return DraftMessage("error", Error("not read", code, **members))


@pytest.mark.parametrize("error", [lost(), lost("invalid_json", excerpt='{"type":"resu')])
def test_a_last_line_that_cannot_be_read_ends_its_turn_in_bounded_time(error: DraftMessage) -> None:
    talk = Talk(handshake_s=60).begin().say(Alive(), error).wait(59)
    assert talk.statuses[-1] == "running"
    talk.wait(1)
    assert (talk.statuses[-1], talk.state["lastTurn"]) == ("idle", "cut")
    assert talk.of_type("error")[-1]["code"] == "turn_end_lost"
    talk.command("prompt", text="next")
    assert talk.written[-1] == "prompt next"


@pytest.mark.parametrize(
    "after", [[lost(), DraftMessage("text", Text("x"))], [lost("invalid_json", excerpt="npm WARN old lockfile")]]
)
def test_a_line_that_cannot_have_ended_the_turn_ends_none(after: list[DraftMessage]) -> None:
    talk = Talk().begin().say(Alive())
    for draft in after:
        talk.say(draft)
    assert talk.wait(10_000).statuses[-1] == "running"


def test_a_turn_that_seems_over_is_over_after_some_seconds() -> None:
    talk = Talk().begin().say(Alive(), TurnSeemsOver("idle"))
    talk.agent.turn_end = [cost()]
    assert talk.wait(4.9).statuses[-1] == "running"
    assert talk.wait(0.1).statuses[-1] == "idle"


@pytest.mark.parametrize("after", [cost(), Alive(), TurnStarted()])
def test_a_turn_that_seems_over_and_is_told_to_be_or_not_is_ended_once(after: Any) -> None:
    talk = Talk().begin().say(Alive(), TurnSeemsOver("idle"), after)
    talk.agent.turn_end = [cost(2)]
    talk.wait(100)
    assert len(talk.of_type("cost")) == (after == cost())


def test_a_text_between_turns_is_whole_once_the_agent_is_silent() -> None:
    talk = Talk().begin().say(Alive(), cost()).say(Alive())
    talk.agent.late_texts = [DraftMessage("text", Text("late"))]
    assert talk.wait(0.9).of_type("text") == []
    assert talk.wait(0.1).of_type("text") == [{"text": "late"}]
    assert talk.statuses[-1] == "idle"


def test_a_deadline_that_decides_a_carried_request_has_the_agent_go_on() -> None:
    asked = InterruptedRequest("old", "Bash", {"command": "ls"}, REDIS_MS - 40_000)
    talk = Talk(cut=cut(asked), recovering=True, approvals={"deadlineS": 50}).begin()
    assert talk.statuses == ["running", "waiting"]
    talk.wait(10)
    assert talk.of_type("approval_resolved") == [{"requestId": "old", "decision": "deny", "by": "deadline"}]
    assert talk.statuses[-1] == "running"
    talk.say(Alive(), asks("new"))
    assert talk.written[-1] == 'answer new "deny"'


def test_a_session_without_limits_sets_no_timer() -> None:
    talk = Talk().begin().say(Alive(), DraftMessage("text", Text("x")))
    assert talk.timer is None
