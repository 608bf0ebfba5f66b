"""A turn's beginning and end, and what is open then: told and answered, whoever ends it. No process, no Redis."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentrq.wire.codec import encode
from agentrq.wire.commands import make_options
from agentrq.wire.messages import ApprovalRequest, Error, Question, Text, ToolResult
from agentrq.wire.status import Reason, Status
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import Alive, Background, Ended, Ready, Reply, TurnStarted
from agentrq_worker.session import effects, inputs
from agentrq_worker.session.lifecycle import CONTINUE
from agentrq_worker.session_types import InterruptedRequest, Outcome
from tests.worker.machine_talk import Scripted, Talk, asks, cost, cut

FORM = DraftMessage("question", Question("form", [{"id": "0"}]))
WITHDRAWN = ("withdrawn", "client")


def resolutions(talk: Talk) -> list[tuple[str, str, str]]:
    return [(one["requestId"], one["decision"], one["by"]) for one in talk.of_type("approval_resolved")]


# -- what begins a turn


def test_output_behind_the_end_of_a_turn_is_published_and_begins_none() -> None:
    talk = Talk().begin().say(Alive(), cost())
    talk.say(DraftMessage("text", Text("late")), DraftMessage("tool_result", ToolResult("t1", "x", False)))
    assert [event["type"] for event in talk.seen[-2:]] == ["text", "tool_result"]
    assert talk.statuses == ["running", "idle"]
    talk.command("prompt", text="next")
    assert talk.written[-1] == "prompt next"


def test_a_turn_that_the_agent_begins_ends_with_its_cost() -> None:
    talk = Talk().begin().say(Alive(), cost()).say(TurnStarted())
    talk.command("prompt", text="next")
    assert talk.statuses == ["running", "idle", "running"]
    assert talk.state["turn"] == 1
    talk.say(cost(2))
    assert talk.written[-1] == "prompt next"


def test_figures_that_come_between_turns_count_and_end_none() -> None:
    talk = Talk().begin().say(Alive(), cost()).say(cost(2))
    assert talk.state["numTurns"] == 2
    assert talk.statuses == ["running", "idle"]


def test_a_turn_takes_as_long_as_it_took() -> None:
    talk = Talk().begin().say(Alive()).wait(1.5).say(cost())
    told = talk.of_type("cost")[0]["durationMs"]
    assert told == 1  # the agent's own figure stands
    talk.command("prompt", text="next")
    silent: Any = cost(2)
    silent.content.duration_ms = 0
    talk.wait(2.5).say(silent)
    assert talk.of_type("cost")[1]["durationMs"] == 2500


@pytest.mark.parametrize(
    ("is_error", "interrupted", "last"),
    [(False, False, "whole"), (True, False, "failed"), (True, True, "interrupted"), (False, True, "whole")],
)
def test_the_state_says_how_the_last_turn_ended(is_error: bool, interrupted: bool, last: str) -> None:
    talk = Talk().begin().say(Alive())
    if interrupted:
        talk.command("interrupt")
    talk.say(cost(is_error=is_error))
    assert talk.state["lastTurn"] == last


# -- a turn that its runner's end cuts


@pytest.mark.parametrize(
    ("code", "error"),
    [(0, "The runner ended in the middle of a turn (exit code 0)"), (3, "Exit code: 3"), (-9, "Killed by SIGKILL")],
)
def test_a_runner_that_ends_in_a_turn_has_cut_it(code: int, error: str) -> None:
    talk = Talk().begin().say(Alive()).gone(code)
    assert talk.end == ("error", "failed", error)
    assert (talk.state["lastTurn"], talk.state["exitCode"]) == ("cut", code)


def simple(talk: Talk) -> Talk:
    """Its agent is of a kind that may just exit when it has answered."""
    type(talk.agent).tells_turn_end = False
    return talk


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.worker.machine_talk.Scripted.tells_turn_end", True)


def test_a_simple_runner_may_just_exit_when_it_has_answered() -> None:
    talk = simple(Talk()).begin().say(Alive(), DraftMessage("text", Text("answer"))).gone()
    assert talk.end == ("done", "completed", None)
    assert talk.state["lastTurn"] == "whole"


def test_a_simple_runner_that_exits_with_a_call_open_has_cut_its_turn() -> None:
    talk = simple(Talk()).begin().say(Alive())
    talk.agent.leaves = [DraftMessage("tool_result", ToolResult("t1", "Interrupted", True))]
    assert talk.gone().end[0] == "error"


def test_a_simple_runner_that_has_told_a_turns_end_before_is_held_to_it() -> None:
    talk = simple(Talk()).begin().say(Alive(), cost())
    talk.command("prompt", text="more")
    assert talk.gone().end[0] == "error"


def test_a_runner_that_says_itself_that_all_is_done_has_done_it() -> None:
    talk = Talk().begin().say(Alive(), Ended()).gone()
    assert talk.end == ("done", "completed", None)
    assert talk.ended == [""]  # it needs no farewell


def test_an_agent_that_leaves_after_its_turn_was_cut_is_no_success() -> None:
    talk = Talk(cut=cut(), recovering=True).begin().gone()
    assert talk.end == ("error", "failed", "Its last turn was cut, then: completed")


def test_a_turn_that_a_stop_ends_is_interrupted_and_the_session_done() -> None:
    talk = Talk().begin().say(Alive()).feed(inputs.StopRequested()).gone(-15)
    assert talk.end == ("done", "stopped", None)
    assert talk.state["lastTurn"] == "interrupted"


# -- what is open at an end is told and answered


@pytest.mark.parametrize("request_", [asks(), FORM])
@pytest.mark.parametrize("command", [("interrupt", {}), ("prompt", {"text": "now", "mode": "interrupt"})])
def test_an_interrupt_withdraws_what_the_agent_asks(request_: Any, command: Any) -> None:
    talk = Talk().begin().say(Alive(), request_)
    own_id = request_.content.request_id
    talk.command(command[0], **command[1])
    assert talk.written[-1] == f"interrupt; withdraw {own_id}"
    assert resolutions(talk) == [(own_id, *WITHDRAWN)]
    assert talk.statuses == ["running", "waiting", "running"]
    assert json.loads(talk.state["openRequests"]) == []


@pytest.mark.parametrize("late", [asks("r9"), FORM])
def test_a_request_behind_an_interrupt_is_withdrawn_at_once(late: Any) -> None:
    talk = Talk(approvals="allow").begin().say(Alive())
    talk.command("interrupt")
    own_id = late.content.request_id
    talk.say(late)
    assert talk.written[-1] == f"; withdraw {own_id}"
    assert resolutions(talk) == [(own_id, *WITHDRAWN)]
    talk.say(cost(is_error=True))
    talk.command("prompt", text="next")
    talk.say(Alive(), DraftMessage("approval_request", ApprovalRequest("r10", "Bash", {})))
    assert talk.written[-1] == 'answer r10 "allow"'  # the next turn is heard again


@pytest.mark.parametrize(("interrupted", "status"), [(True, "idle"), (False, "waiting")])
def test_a_request_behind_the_end_of_an_interrupted_turn_is_withdrawn(interrupted: bool, status: str) -> None:
    talk = Talk().begin().say(Alive())
    if interrupted:
        talk.command("interrupt")
    talk.say(cost(is_error=True), asks("late"))
    assert talk.statuses[-1] == status
    assert bool(resolutions(talk)) is interrupted


def test_what_is_open_at_the_end_of_a_turn_is_withdrawn_and_the_agent_told() -> None:
    talk = Talk().begin().say(Alive(), asks(), FORM, cost())
    assert resolutions(talk) == [("r1", "withdrawn", "agent"), ("form", "withdrawn", "agent")]
    assert talk.written[-1] == "; withdraw r1; withdraw form"
    assert talk.statuses[-1] == "idle"


def test_a_request_about_a_call_that_has_its_result_is_withdrawn_and_the_agent_told() -> None:
    closed_with_its_turn = DraftMessage("tool_result", ToolResult("t1", "the turn ended", True))
    talk = Talk().begin().say(Alive(), asks(), closed_with_its_turn, cost())
    assert resolutions(talk) == [("r1", "withdrawn", "agent")]
    assert [line for line in talk.written if "withdraw" in line] == ["; withdraw r1"]


def nested(request_id: str) -> DraftMessage:
    return DraftMessage("approval_request", ApprovalRequest(request_id, "Bash", {"command": request_id}), "t1")


def test_what_background_work_asks_outlives_the_turn_and_an_interrupt() -> None:
    talk = Talk().begin().say(Alive(), Background(("research",)), nested("b1"), asks(), cost())
    assert json.loads(talk.state["openRequests"]) == ["b1"]
    assert talk.statuses[-1] == "waiting"
    talk.command("prompt", text="more")
    talk.command("interrupt")
    talk.say(nested("b2"))
    assert json.loads(talk.state["openRequests"]) == ["b1", "b2"]
    talk.say(cost(2, is_error=True))
    for request_id in ("b1", "b2"):
        talk.command("answer", request_id=request_id, answer="allow")
    assert talk.statuses[-1] == "idle"


@pytest.mark.parametrize("ends", ["stop", "exit"])
def test_what_is_open_at_the_end_of_a_session_is_withdrawn(ends: str) -> None:
    talk = Talk().begin().say(Alive(), asks())
    if ends == "stop":
        talk.feed(inputs.StopRequested())
        assert talk.ended == ["stop; withdraw r1"]
    talk.gone(1)
    assert resolutions(talk) == [("r1", "withdrawn", "client" if ends == "stop" else "agent")]
    assert json.loads(talk.state["openRequests"]) == []


def test_a_handed_over_session_keeps_its_requests_open_and_the_agent_unanswered() -> None:
    talk = Talk().begin().say(Alive(), asks()).leave()
    assert not talk.is_over
    talk.leave(at_once=True).gone(-15)
    assert talk.ended == ["stop"]
    assert resolutions(talk) == []
    assert talk.statuses[-1] == "recovering"
    assert (talk.state["pendingApprovals"], talk.state["turn"], talk.state["worker"]) == (1, 1, "")


def test_an_interrupt_between_turns_withdraws_what_is_open() -> None:
    talk = Talk().begin().say(Alive(), cost()).say(asks())
    sid = talk.command("interrupt")
    assert talk.receipts() == [(sid, "applied", None)]
    assert resolutions(talk) == [("r1", *WITHDRAWN)]
    assert talk.statuses[-1] == "idle"


def test_a_request_id_that_an_agent_uses_again_is_another_to_clients() -> None:
    talk = Talk().begin().say(Alive(), asks("1"))
    talk.command("answer", request_id="1", answer="allow")
    talk.say(asks("1", "rm"))
    assert [one["requestId"] for one in talk.of_type("approval_request")] == ["1", "1~2"]
    late = talk.command("answer", request_id="1", answer="allow")
    assert talk.receipts()[-1] == (late, "rejected", "answered already: allow by client")
    talk.command("answer", request_id="1~2", answer="deny")
    assert talk.written[-1] == 'answer 1 "deny"'


# -- an earlier owner's turn that waits for an answer


def waiting(**options: Any) -> Talk:
    asked = InterruptedRequest("old", "Bash", {"command": "ls"})
    return Talk(cut=cut(asked), recovering=True, **options).begin()


def test_a_request_whose_worker_is_lost_leaves_its_session_waiting_and_its_answer_resumes_the_turn() -> None:
    talk = waiting(resume="conversation")
    assert talk.statuses == ["running", "waiting"]
    talk.command("answer", request_id="old", answer="allow")
    assert talk.written[-1].startswith("prompt You were interrupted")
    talk.say(Alive(), asks("new"), cost())
    assert 'answer new "allow"' in talk.written
    assert (talk.statuses[-1], talk.state["lastTurn"]) == ("idle", "whole")


@pytest.mark.parametrize("remembers", [True, False])
@pytest.mark.parametrize("why", ["an answer", "on_interrupt"])
def test_a_turn_is_resumed_once_the_agent_is_ready_and_says_what_it_remembers(remembers: bool, why: str) -> None:
    asked = InterruptedRequest("old", "Bash", {"command": "ls"})
    options: dict[str, Any] = {"on_interrupt": "continue"} if why == "on_interrupt" else {}
    talk = Talk(cut=cut(asked), recovering=True, resume="conversation", **options)
    talk.agent.ready = False
    talk.begin()
    talk.command("answer", request_id="old", answer="allow")
    assert talk.of_type("prompt") == []
    talk.agent.ready = True
    talk.say(*([] if remembers else [DraftMessage("error", Error("no", "not_resumed"))]), Ready())
    assert talk.written[-1] == f"prompt {CONTINUE if remembers else 'first'}"


def test_an_agent_that_is_to_go_on_is_not_idle_before_it_does() -> None:
    asked = InterruptedRequest("old", "Bash", {"command": "ls"})
    talk = Talk(cut=cut(asked), recovering=True, resume="conversation", on_interrupt="continue")
    talk.agent.ready = False
    talk.begin()
    talk.agent.ready = True
    talk.say(Alive(), Ready())  # as Codex says both in one line
    assert talk.statuses == []
    talk.say(Alive())
    assert talk.statuses == ["running"]


def test_it_waits_again_when_its_second_worker_is_lost() -> None:
    asked = InterruptedRequest("old", "Bash", {"command": "ls"})
    talk = Talk(recovering=True, claimed={"requests": [asked]}).begin()
    assert talk.statuses == ["running", "waiting"]
    assert talk.state["recoveries"] == 0


def test_an_interrupt_withdraws_it_and_the_session_is_idle() -> None:
    talk = waiting()
    talk.command("interrupt")
    assert resolutions(talk) == [("old", *WITHDRAWN)]
    assert talk.statuses[-1] == "idle"
    assert not [words for words in talk.written if words.startswith("prompt")]


def test_a_prompt_begins_another_turn_in_its_place() -> None:
    talk = waiting()
    talk.command("prompt", text="never mind")
    assert (talk.written[-1], talk.statuses[-1]) == ("prompt never mind", "running")
    talk.say(Alive(), cost())
    assert resolutions(talk) == [("old", "withdrawn", "agent")]


# -- a workspace


def in_workspace(**options: Any) -> Talk:
    return Talk(workspace={"copy": "/srv"}, **options).begin().say(Alive(), cost())


@pytest.mark.parametrize(
    "saved",
    [inputs.CheckpointSaved(1, "abc", 2), inputs.NothingToSave(), inputs.CheckpointFailed(1, "no room")],
    ids=["saved", "nothing to save", "failed"],
)
def test_a_prompt_waits_until_the_last_turns_files_are_kept(saved: Any) -> None:
    talk = in_workspace()
    assert [effect.turn for effect in talk.effects if isinstance(effect, effects.SaveCheckpoint)] == [1]
    talk.command("prompt", text="next")
    assert (talk.written[-1], talk.statuses[-1]) == ("prompt first", "idle")
    talk.feed(saved)
    assert (talk.written[-1], talk.statuses[-1]) == ("prompt next", "running")


def test_a_checkpoint_is_told_with_its_state() -> None:
    talk = in_workspace().feed(inputs.CheckpointSaved(1, "abc", 2, ("large",)))
    assert talk.of_type("checkpoint") == [{"turn": 1, "commit": "abc", "files": 2, "leftOut": ["large"]}]
    assert talk.state["checkpoint"] == "1 abc"


def test_a_checkpoint_that_failed_is_told() -> None:
    talk = in_workspace().feed(inputs.CheckpointFailed(1, "no room"))
    assert talk.of_type("error") == [{"message": "No checkpoint of turn 1: no room", "code": "checkpoint_failed"}]


def test_a_session_leaves_once_its_files_are_kept() -> None:
    talk = in_workspace().feed(inputs.LeaveRequested(False))
    assert talk.ended == []
    talk.feed(inputs.NothingToSave())
    assert len(talk.ended) == 1


@pytest.mark.parametrize("was_cut", [True, False])
def test_a_restored_workspace_tells_whether_a_cut_turns_changes_are_lost(was_cut: bool) -> None:
    talk = Talk(cut=cut() if was_cut else None, recovering=True, workspace={"copy": "/srv"})
    talk.feed(inputs.WorkspaceRestored(3, "abc"))
    assert talk.of_type("workspace_restored") == [{"turn": 3, "commit": "abc", "lost": was_cut}]


# -- commands wait for the agent's word


def confirming(**options: Any) -> Talk:
    talk = Talk(**options).begin().say(Alive())
    talk.agent.confirms = True
    return talk


@pytest.mark.parametrize(("kind", "name"), [("set_model", "model"), ("set_permission_mode", "mode")])
def test_a_setting_is_applied_and_kept_once_the_agent_has_confirmed_it(kind: str, name: str) -> None:
    talk = confirming()
    sid = talk.command(kind, text="m")
    assert talk.receipts() == []
    talk.say(Reply(name))
    assert talk.receipts() == [(sid, "applied", None)]
    option = {"set_model": "model", "set_permission_mode": "permission_mode"}[kind]
    assert talk.state["options"] == encode(make_options({option: "m"}))


def test_a_setting_that_the_agent_refuses_is_rejected_in_its_words_and_not_kept() -> None:
    talk = confirming()
    sid = talk.command("set_permission_mode", text="m")
    talk.say(Reply("mode", "not in this session"))
    assert talk.receipts() == [(sid, "rejected", "not in this session")]
    assert "options" not in talk.state


@pytest.mark.parametrize("confirmed", [Reply("interrupt"), cost(is_error=True)])
def test_an_interrupt_is_applied_once_the_agent_or_the_turns_end_says_so(confirmed: Any) -> None:
    talk = confirming()
    sid = talk.command("interrupt")
    assert talk.receipts() == []
    talk.say(confirmed)
    assert talk.receipts() == [(sid, "applied", None)]


def test_a_refused_interrupt_is_rejected_and_the_turn_goes_on_to_be_heard() -> None:
    talk = confirming()
    sid = talk.command("interrupt")
    talk.say(Reply("interrupt", "not now"), asks())
    assert talk.receipts() == [(sid, "rejected", "not now")]
    assert talk.statuses[-1] == "waiting"
    assert talk.wait(10_000).outcome is None


def test_a_refused_interrupt_rejects_the_prompt_that_asked_for_it() -> None:
    talk = confirming()
    sid = talk.command("prompt", text="now", mode="interrupt")
    talk.say(Reply("interrupt", "not now"))
    assert talk.receipts() == [(sid, "rejected", "not now")]
    talk.say(cost())
    assert talk.statuses[-1] == "idle"


# -- leaving


def test_a_drain_waits_for_background_work() -> None:
    talk = Talk().begin().say(Alive(), Background(("research",)), cost()).leave()
    assert not talk.is_over
    talk.say(Background())
    assert talk.outcome == Outcome(None, handed_over=True)


def test_background_work_that_is_cut_is_told() -> None:
    talk = Talk().begin().say(Alive(), Background(("research", "sleep 60")), cost()).leave(at_once=True).gone(-15)
    assert talk.of_type("error")[-1]["code"] == "background_ended"
    assert talk.statuses[-1] == "recovering"


def test_a_stop_during_the_start_hands_nothing_over() -> None:
    talk = Talk().feed(inputs.Opened()).feed(inputs.StopRequested()).feed(inputs.RunnerStarted(Scripted(), 7))
    assert talk.written == []
    talk.feed(inputs.RunnerGone(-15))
    assert (talk.of_type("prompt"), talk.end) == ([], ("done", "stopped", None))


def test_a_session_that_cannot_be_started_ends_with_the_cause() -> None:
    talk = Talk().feed(inputs.Opened())
    talk.feed(inputs.Failed(Outcome(Status.ERROR, Reason.REFUSED, "no such directory"))).feed(inputs.RunnerGone())
    assert talk.end == ("error", "refused", "no such directory")


@pytest.mark.parametrize(
    ("claimed", "options", "end"),
    [
        ({"unreadable": "garbage"}, {}, ("error", "refused", "garbage")),
        ({"recoveries": 4}, {}, ("error", "lost", "Its worker was lost 4 times in a row (max_recoveries 3)")),
        ({"recoveries": 2}, {"max_recoveries": 1},
         ("error", "lost", "Its worker was lost 2 times in a row (max_recoveries 1)")),
        ({"interrupted_turn": cut()}, {"on_interrupt": "fail"},
         ("error", "failed", "Interrupted: its worker was lost in a turn")),
    ],
)  # fmt: skip
def test_a_session_that_is_not_to_be_resumed_ends_before_a_runner_starts(
    claimed: dict[str, Any], options: dict[str, Any], end: tuple[str, str, str]
) -> None:
    talk = Talk(recovering=True, claimed=claimed, **options).begin().feed(inputs.RunnerGone())
    assert talk.end == end
    assert talk.written == []
