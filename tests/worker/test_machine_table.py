"""Every status meets every input: a table of what follows, and walks of any length that hold what must always hold."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentrq.wire.messages import ApprovalResolved, Error, Init, Question, Text, ToolCall, ToolResult
from agentrq.wire.status import MOVES, Reason, Status
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import (
    Alive,
    Background,
    Ended,
    Late,
    Log,
    Ready,
    Reply,
    TurnSeemsOver,
    TurnStarted,
    Write,
)
from agentrq_worker.session import effects, inputs
from agentrq_worker.session_types import InterruptedRequest, Outcome
from tests.worker.machine_talk import Talk, asks, cost, cut

ASKED = InterruptedRequest("old", "Bash", {"command": "make"})
STATES: dict[str, Callable[[], Talk]] = {
    "claimed": Talk,
    "starting": lambda: Talk().begin(),
    "running": lambda: Talk().begin().say(Alive()),
    "waiting": lambda: Talk().begin().say(Alive(), asks()),
    "idle": lambda: Talk().begin().say(Alive(), cost()),
    "carried": lambda: Talk(cut=cut(ASKED), recovering=True).begin(),
    "ending": lambda: Talk().begin().say(Alive()).feed(inputs.StopRequested()),
    "exited": lambda: Talk().begin().say(Alive()).feed(inputs.RunnerExited()),
}
"""How a session comes into each standing; carried: it waits for an answer to what an earlier owner's agent asked."""


def lines(*said: Any) -> Callable[[Talk], Any]:
    return lambda talk: talk.say(*said)


INPUTS: dict[str, Callable[[Talk], Any]] = {
    "alive": lines(Alive()),
    "text": lines(DraftMessage("text", Text("x"))),
    "init": lines(DraftMessage("init", Init(model="m"))),
    "request": lines(asks("r9")),
    "question": lines(DraftMessage("question", Question("q", []))),
    "turn started": lines(TurnStarted()),
    "cost": lines(cost()),
    "late": lines(Late("late")),
    "ended": lines(Ended()),
    "failed": lines(Ended("no")),
    "prompt": lambda talk: talk.command("prompt", text="p"),
    "steer": lambda talk: talk.command("prompt", text="p", mode="steer"),
    "interrupt": lambda talk: talk.command("interrupt"),
    "answer": lambda talk: talk.command("answer", request_id="r1", answer="allow"),
    "answer to an earlier one": lambda talk: talk.command("answer", request_id="old", answer="allow"),
    "model": lambda talk: talk.command("set_model", text="m"),
    "stop": lambda talk: talk.feed(inputs.StopRequested()),
    "leave": lambda talk: talk.leave(),
    "leave at once": lambda talk: talk.leave(at_once=True),
    "pipe closed": lambda talk: talk.feed(inputs.PipeClosed("stdout")),
    "stdin overfull": lambda talk: talk.feed(inputs.StdinOverfull()),
    "exit": lambda talk: talk.feed(inputs.RunnerExited()),
    "gone": lambda talk: talk.gone(),
    "lost": lambda talk: talk.feed(inputs.OwnershipLost()),
    "broken": lambda talk: talk.feed(inputs.Failed(Outcome(Status.ERROR, Reason.FAILED, "a bug"))),
}

# What the status is after each input; "." the same as before, "/" the runner is ended as well.
TABLE = """
                         claimed  starting running  waiting  idle     carried  ending   exited
alive                    -        running  .        .        .        .        .        .
text                     -        running  .        .        .        .        .        .
init                     -        running  .        .        .        .        .        .
request                  -        waiting  waiting  .        waiting  .        waiting  waiting
question                 -        waiting  waiting  .        waiting  .        waiting  waiting
turn started             -        running  .        .        running  running  .        .
cost                     -        idle     idle     idle     .        .        idle     idle
late                     -        running  .        .        running  running  .        .
ended                    -        ./       ./       ./       ./       ./       .        ./
failed                   -        ./       ./       ./       ./       ./       .        ./
prompt                   .        .        .        .        running  running  .        .
steer                    .        .        .        .        running  running  .        .
interrupt                .        .        .        running  .        idle     .        .
answer                   .        .        .        running  .        .        .        .
answer to an earlier one .        .        .        .        .        running  .        .
model                    .        .        .        .        .        .        .        .
stop                     ./       ./       ./       ./       ./       ./       .        ./
leave                    ./       .        .        .        ./       ./       .        .
leave at once            ./       ./       ./       ./       ./       ./       .        ./
pipe closed              .        .        .        .        .        .        .        .
stdin overfull           ./       ./       ./       ./       ./       ./       .        ./
exit                     .        .        .        .        .        .        .        .
gone                     error    error    error    error    done     error    done     error
lost                     ./       ./       ./       ./       ./       ./       ./       ./
broken                   ./       ./       ./       ./       ./       ./       .        ./
"""


def rows() -> list[tuple[str, str, str]]:
    head, *body = TABLE.strip("\n").split("\n")
    names = head.split()
    found = []
    for line in body:
        name, cells = line[:25].strip(), line[25:].split()
        found += [(name, state, cell) for state, cell in zip(names, cells, strict=True)]
    return found


def test_the_table_is_whole() -> None:
    assert [(name, state) for name, state, _ in rows()] == list(itertools.product(INPUTS, STATES))


@pytest.mark.parametrize(("name", "state", "expected"), rows())
def test_each_status_meets_each_input(name: str, state: str, expected: str) -> None:
    if expected == "-":
        pytest.skip("nothing is read before a runner runs")
    talk = STATES[state]()
    before, ends = talk.machine.status, len(talk.ended)
    INPUTS[name](talk)
    ended = expected.endswith("/")
    status = expected.removesuffix("/")
    last = talk.statuses[-1] if talk.statuses else "starting"
    assert last == (before if status == "." else status)
    assert len(talk.ended) - ends == ended


class Walk(RuleBasedStateMachine):
    """A session to which anything happens in any order."""

    talk: Talk
    commands: list[str]

    @initialize(recovering=st.booleans(), carried=st.booleans(), confirms=st.booleans(), limits=st.booleans())
    def claimed(self, recovering: bool, carried: bool, confirms: bool, limits: bool) -> None:
        times: dict[str, Any] = {"timeout_s": 500, "turn_timeout_s": 50, "idle_timeout_s": 40} if limits else {}
        interrupted = cut(*([ASKED] if carried else [])) if recovering else None
        self.talk = Talk(cut=interrupted, recovering=recovering, **times)
        self.talk.agent.confirms = confirms
        self.commands = []
        self.talk.begin()
        self.is_over = False

    def _feed(self, name: str) -> None:
        found = INPUTS[name](self.talk)
        if isinstance(found, str):
            self.commands.append(found)

    open_session = precondition(lambda self: not self.is_over)

    @open_session
    @rule(name=st.sampled_from(sorted(INPUTS.keys() - {"gone", "lost", "exit", "stop", "leave at once", "broken"})))
    def something_happens(self, name: str) -> None:
        self._feed(name)

    @open_session
    @rule(
        said=st.lists(
            st.sampled_from([
                Alive(), TurnStarted(), Ready(), Write(b"w"), Log("l"), Background(("sleep",)), Background(),
                TurnSeemsOver("idle"), Reply("interrupt"), Reply("model", "no"), Reply("mode"), Late("l"),
                DraftMessage("text", Text("x")), DraftMessage("tool_call", ToolCall("t1", "Bash", {})),
                DraftMessage("tool_result", ToolResult("t1", "x", False)),
                DraftMessage("approval_resolved", ApprovalResolved("r1", "withdrawn", "agent")),
                DraftMessage("error", Error("x", "line_too_long")), asks("r1"), asks("r2"),
                DraftMessage("approval_request", asks("r3").content, "t1"),
                cost(), cost(is_error=True),
            ]),
            max_size=4,
        )
    )  # fmt: skip
    def agent_says(self, said: list[Any]) -> None:
        self.talk.say(*said)

    @open_session
    @rule(mode=st.sampled_from(["queue", "steer", "interrupt"]))
    def user_prompts(self, mode: Any) -> None:
        self.commands.append(self.talk.command("prompt", text="p", mode=mode))

    @open_session
    @rule(request=st.sampled_from(["r1", "r1~2", "r2", "r9", "old"]), answer=st.sampled_from(["allow", "deny", 7]))
    def user_answers(self, request: str, answer: Any) -> None:
        self.commands.append(self.talk.command("answer", request_id=request, answer=answer))

    @open_session
    @rule(seconds=st.sampled_from([0.0, 1.0, 6.0, 11.0, 61.0, 4000.0]))
    def time_passes(self, seconds: float) -> None:
        self.talk.wait(seconds)

    @open_session
    @rule()
    def agent_can_or_cannot(self) -> None:
        self.talk.agent.can = not self.talk.agent.can

    @open_session
    @rule(name=st.sampled_from(["stop", "leave at once", "broken", "gone", "exit"]), code=st.sampled_from([0, 3, -9]))
    def session_ends(self, name: str, code: int) -> None:
        if name != "gone":
            self._feed(name)
        self.talk.gone(code)
        self.is_over = True

    @precondition(lambda self: self.is_over)
    @rule(name=st.sampled_from(sorted(INPUTS)))
    def nothing_follows_the_end(self, name: str) -> None:
        performed = len(self.talk.effects)
        INPUTS[name](self.talk)
        assert len(self.talk.effects) == performed

    @invariant()
    def every_move_is_in_the_table(self) -> None:
        statuses = [Status.STARTING, *map(Status, self.talk.statuses)]
        for current, following in itertools.pairwise(statuses):
            assert following in MOVES[current]
        assert statuses[-1] is self.talk.machine.status

    @invariant()
    def a_command_has_one_receipt_at_most(self) -> None:
        ids = [receipt[0] for receipt in self.talk.receipts()]
        assert len(ids) == len(set(ids))
        assert set(ids) <= set(self.commands)

    @invariant()
    def a_request_is_told_and_resolved_once(self) -> None:
        asked = [one["requestId"] for kind in ("approval_request", "question") for one in self.talk.of_type(kind)]
        resolved = [one["requestId"] for one in self.talk.of_type("approval_resolved")]
        assert len(asked) == len(set(asked))
        assert len(resolved) == len(set(resolved))
        assert set(resolved) <= {*asked, "old"}

    @invariant()
    def status_and_state_say_the_same(self) -> None:
        state = self.talk.state
        if "openRequests" not in state:
            return
        still_open = json.loads(state["openRequests"])
        assert state["pendingApprovals"] == len(still_open)
        assert [request.id for request in state["requests"]] == still_open
        if self.talk.machine.status is Status.WAITING:
            assert still_open
        if self.talk.machine.status is Status.IDLE:
            assert not still_open
            assert not state["turn"]

    @invariant()
    def an_ended_session_is_closed(self) -> None:
        if not self.is_over:
            return
        assert self.talk.timer is None or self.talk.machine.handle(inputs.TimerFired(), 1e9) == []
        outcome = self.talk.outcome
        assert outcome is not None
        last = self.talk.effects[-1]
        if outcome.handed_over:
            assert isinstance(last, effects.PublishStatus)
            assert last.status is Status.RECOVERING
        else:
            assert isinstance(last, effects.PublishEnd)
            assert json.loads(self.talk.state["openRequests"]) == []
            cut_at_last = self.talk.state.get("lastTurn") == "cut"
            assert not (cut_at_last and outcome.status is Status.DONE and outcome.reason is not Reason.STOPPED)


Walk.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
test_any_walk = Walk.TestCase
