"""The talk between a session and its runner: statuses, turns, prompts, approvals; no process, no Redis."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrq.wire.messages import ApprovalResolved, Init, Question, Text, ToolCall, ToolResult
from agentrq.wire.status import MOVES, Reason, Status
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import Alive, Ended, ProtocolEvent, TurnStarted, Write
from agentrq_worker.session import inputs
from agentrq_worker.session.effects import PublishMessage, WriteStdinAfterCommit
from agentrq_worker.session_types import InterruptedRequest, Outcome
from tests.worker.machine_talk import Talk, asks, cost, cut


def test_a_turn() -> None:
    talk = Talk().begin()
    assert talk.written == ["prompt first"]
    talk.say(Alive(), DraftMessage("text", Text("hi"))).say(cost())
    assert talk.statuses == ["running", "idle"]
    assert [event.get("type", "status") for event in talk.seen] == ["prompt", "status", "text", "cost", "status"]


def test_prompts_wait_for_the_turn_and_keep_their_order() -> None:
    talk = Talk().begin()
    ids = [talk.command("prompt", text=f"p{number}") for number in range(3)]
    assert talk.receipts() == []
    for number in range(3):
        talk.say(Alive(), cost())
        assert talk.written[-1] == f"prompt p{number}"
    assert [receipt[:2] for receipt in talk.receipts()] == [(sid, "applied") for sid in ids]
    talk.say(cost())
    assert talk.statuses == ["running", "idle"]


@pytest.mark.parametrize("said", [Alive(), DraftMessage("init", Init(model="m"))])
def test_a_resumed_runner_that_says_that_it_is_there_has_begun_no_turn(said: ProtocolEvent) -> None:
    talk = Talk(recovering=True).begin().say(said)
    assert talk.statuses == ["idle"]
    talk.command("prompt", text="go on")
    assert talk.written[-1] == "prompt go on"
    talk.say(said, DraftMessage("text", Text("hi"))).say(cost())
    assert talk.statuses == ["idle", "running", "idle"]
    talk.say(DraftMessage("text", Text("of a task in the background")))
    assert talk.statuses[-1] == "idle"
    talk.say(TurnStarted())
    assert talk.statuses[-1] == "running"


def test_nothing_reaches_the_runner_before_redis_has_it() -> None:
    talk = Talk().begin()
    prompt, write = (
        next(at for at, effect in enumerate(talk.effects) if isinstance(effect, kind))
        for kind in (PublishMessage, WriteStdinAfterCommit)
    )
    assert prompt < write


@pytest.mark.parametrize("can", [True, False])
@pytest.mark.parametrize("mode", ["steer", "interrupt"])
def test_modes_of_a_prompt_in_a_turn(mode: str, can: bool) -> None:
    talk = Talk().begin().say(Alive())
    talk.agent.can = can
    sid = talk.command("prompt", text="now", mode=mode)
    if not can:
        assert talk.receipts() == [(sid, "rejected", "it cannot")]
    elif mode == "steer":
        assert talk.written[-1] == "steer now"
        assert talk.receipts() == [(sid, "applied", None)]
        assert [prompt["text"] for prompt in talk.of_type("prompt")] == ["first", "now"]
    else:
        assert talk.written[-1] == "interrupt"
        talk.say(cost())
        assert talk.written[-1] == "prompt now"


def test_a_runner_that_does_not_read_is_given_no_more() -> None:
    talk = Talk().begin().say(Alive())
    written = list(talk.written)
    commands = [
        talk.command("prompt", text="now", mode=mode, unsent=1 << 30) for mode in ("queue", "steer", "interrupt")
    ]
    commands += [talk.command("set_model", text="large", unsent=1 << 30), talk.command("interrupt", unsent=1 << 30)]
    assert talk.receipts() == [(command, "rejected", "the runner does not read its stdin") for command in commands]
    assert talk.written == written
    assert len(talk.of_type("prompt")) == 1


def test_a_command_to_a_runner_that_closed_its_stdin_is_rejected() -> None:
    talk = Talk().begin().say(Alive()).feed(inputs.PipeClosed("stdin"))
    sid = talk.command("interrupt")
    assert talk.receipts() == [(sid, "rejected", "the runner has closed its stdin")]


def test_a_command_after_the_runners_exit_has_no_receipt_here() -> None:
    """It has its receipt by the end of the session (``expired``), or by the next owner."""
    talk = Talk().begin().say(Alive()).feed(inputs.RunnerExited())
    written = list(talk.written)
    for kind, members in (
        ("prompt", {"text": "now", "mode": "steer"}),
        ("interrupt", {}),
        ("set_model", {"text": "m"}),
    ):
        talk.command(kind, **members)
    assert talk.receipts() == []
    assert talk.written == written


@pytest.mark.parametrize("mode", ["queue", "steer", "interrupt"])
def test_any_mode_is_a_plain_prompt_when_idle(mode: str) -> None:
    talk = Talk().begin().say(Alive(), cost())
    talk.command("prompt", text="more", mode=mode)
    assert talk.written[-1] == "prompt more"
    assert talk.statuses == ["running", "idle", "running"]


def test_interrupt() -> None:
    talk = Talk().begin().say(Alive())
    first = talk.command("interrupt")
    assert talk.written[-1] == "interrupt"
    talk.say(cost())
    second = talk.command("interrupt")
    assert talk.receipts() == [(first, "applied", None), (second, "rejected", "idle")]


def test_an_approval_is_asked_answered_once_and_told() -> None:
    talk = Talk().begin().say(Alive(), asks())
    assert talk.statuses == ["running", "waiting"]
    first = talk.command("answer", request_id="r1", answer={"decision": "allow", "by": "alice"})
    second = talk.command("answer", request_id="r1", answer="deny")
    third = talk.command("answer", request_id="unheard", answer="deny")
    assert talk.written[-1] == 'answer r1 {"decision": "allow", "by": "alice"}'
    assert talk.receipts() == [
        (first, "applied", None),
        (second, "rejected", "answered already: allow by alice"),
        (third, "rejected", "no such request is open"),
    ]
    assert talk.of_type("approval_resolved") == [{"requestId": "r1", "decision": "allow", "by": "alice"}]
    assert talk.statuses == ["running", "waiting", "running"]


def test_an_answer_the_runner_cannot_take_leaves_the_request_open() -> None:
    talk = Talk().begin().say(Alive(), asks())
    talk.agent.can = False
    bad = talk.command("answer", request_id="r1", answer={"decision": "maybe"})
    talk.agent.can = True
    good = talk.command("answer", request_id="r1", answer="deny")
    assert talk.receipts() == [(bad, "rejected", "it cannot"), (good, "applied", None)]


@pytest.mark.parametrize(
    "ends", [DraftMessage("approval_resolved", ApprovalResolved("r1", "withdrawn", "agent")),
             DraftMessage("tool_result", ToolResult("t1", "x", False))],
)  # fmt: skip
def test_a_request_that_the_agent_ends_itself(ends: DraftMessage) -> None:
    talk = Talk().begin().say(Alive(), asks()).say(ends)
    assert [resolved["decision"] for resolved in talk.of_type("approval_resolved")] == ["withdrawn"]
    assert talk.statuses == ["running", "waiting", "running"]


@pytest.mark.parametrize("decision", ["allow", "deny"])
def test_policy_answers_without_waiting(decision: str) -> None:
    talk = Talk(approvals=decision).begin().say(Alive(), asks())
    assert talk.written[-1] == f'answer r1 "{decision}"'
    assert talk.of_type("approval_resolved") == [{"requestId": "r1", "decision": decision, "by": "policy"}]
    assert talk.statuses == ["running"]


def test_a_question_is_never_answered_by_policy() -> None:
    talk = Talk(approvals="allow").begin().say(Alive(), DraftMessage("question", Question("q", [{"id": "0"}])))
    assert talk.statuses == ["running", "waiting"]


def test_a_deadline_decides() -> None:
    talk = Talk(approvals={"deadlineS": 5}).begin().say(Alive(), asks()).wait(4.9)
    assert talk.of_type("approval_resolved") == []
    talk.wait(0.2)
    assert talk.of_type("approval_resolved") == [{"requestId": "r1", "decision": "deny", "by": "deadline"}]
    assert talk.statuses == ["running", "waiting", "running"]


def test_a_recovered_session_marks_its_cut_turn_and_is_idle() -> None:
    talk = Talk(cut=cut(), recovering=True).begin()
    assert talk.of_type("tool_result")[0]["toolUseId"] == "t9"
    assert talk.of_type("error")[0]["code"] == "turn_interrupted"
    assert talk.statuses == ["idle"]
    assert talk.written == []
    assert (talk.state["turn"], talk.state["lastTurn"]) == (0, "cut")


@pytest.mark.parametrize("resume", ["provider-session", None])
def test_recovery_can_continue(resume: str | None) -> None:
    talk = Talk(cut=cut(), recovering=True, on_interrupt="continue", resume=resume).begin()
    assert talk.written[-1].startswith("prompt You were interrupted" if resume else "prompt first")


@pytest.mark.parametrize("answered", ["before", "after"])
def test_a_request_survives_its_worker(answered: str) -> None:
    talk = Talk(
        cut=cut(InterruptedRequest("old", "Bash", {"command": "ls"})), recovering=True, on_interrupt="continue"
    ).begin()
    if answered == "before":
        talk.command("answer", request_id="old", answer="allow")
    talk.say(Alive(), asks("new"))
    if answered == "after":
        assert [request["requestId"] for request in talk.of_type("approval_request")] == ["old"]
        talk.command("answer", request_id="old", answer="allow")
    assert talk.written[-1] == 'answer new "allow"'
    assert [receipt[1] for receipt in talk.receipts()] == ["applied"]


def test_max_turns_ends_the_session() -> None:
    talk = Talk(max_turns=2).begin().say(Alive(), cost(1))
    assert not talk.is_over
    talk.command("prompt", text="again")
    talk.say(cost(2))
    assert talk.outcome == Outcome(Status.DONE, Reason.MAX_TURNS)


def test_max_turns_ends_a_session_that_is_to_leave() -> None:
    talk = Talk(max_turns=1).begin().say(Alive()).leave().say(cost(1))
    assert talk.outcome == Outcome(Status.DONE, Reason.MAX_TURNS)


EVENTS: dict[str, Callable[[Talk], Any]] = {
    "alive": lambda talk: talk.say(Alive()),
    "text": lambda talk: talk.say(DraftMessage("text", Text("x"))),
    "call": lambda talk: talk.say(DraftMessage("tool_call", ToolCall("t1", "Bash", {}))),
    "asks": lambda talk: talk.say(asks()),
    "asks again": lambda talk: talk.say(asks("r2")),
    "question": lambda talk: talk.say(DraftMessage("question", Question("q", []))),
    "withdraws": lambda talk: talk.say(DraftMessage("approval_resolved", ApprovalResolved("r1", "withdrawn", "agent"))),
    "result": lambda talk: talk.say(DraftMessage("tool_result", ToolResult("t1", "x", False))),
    "cost": lambda talk: talk.say(cost()),
    "write": lambda talk: talk.say(Write(b"x")),
    "ended": lambda talk: talk.say(Ended()),
    "prompt": lambda talk: talk.command("prompt", text="p"),
    "steer": lambda talk: talk.command("prompt", text="p", mode="steer"),
    "interrupting prompt": lambda talk: talk.command("prompt", text="p", mode="interrupt"),
    "interrupt": lambda talk: talk.command("interrupt"),
    "answer": lambda talk: talk.command("answer", request_id="r1", answer="allow"),
    "wrong answer": lambda talk: talk.command("answer", request_id="zz", answer="allow"),
    "cannot": lambda talk: setattr(talk.agent, "can", not talk.agent.can),
    "model": lambda talk: talk.command("set_model", text="m"),
}


@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=30), st.booleans())
def test_every_walk_is_legal(walk: list[str], recovering: bool) -> None:
    """Whatever happens in whatever order: no move outside the table, no event lost, an end is always possible."""
    talk = Talk(
        recovering=recovering, cut=cut(InterruptedRequest("old", "Bash", {"command": "ls"})) if recovering else None
    )
    talk.begin()
    for name in walk:
        EVENTS[name](talk)
    before = [Status.STARTING, *map(Status, talk.statuses)]
    for current, following in itertools.pairwise(before):
        assert following in MOVES[current]
    known = [receipt[0] for receipt in talk.receipts()]
    assert len(known) == len(set(known))
    talk.gone()
    assert talk.end[0] in ("done", "error")
