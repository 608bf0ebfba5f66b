"""The talk between a session and its runner: statuses, turns, prompts, approvals; no process, no Redis."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrq.connection import connect_async
from agentrq.wire.approval_policy import Policy, read_policy
from agentrq.wire.commands import Command, Options, make_options
from agentrq.wire.ids import Cursor
from agentrq.wire.messages import (
    ApprovalRequest,
    ApprovalResolved,
    Cost,
    Init,
    Question,
    SessionTotal,
    Text,
    ToolCall,
    ToolResult,
)
from agentrq.wire.status import MOVES, Reason, Status
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import AgentProtocol, Alive, CommandRefused, Ended, ProtocolEvent, Write
from agentrq_worker.session.machine import SessionMachine
from agentrq_worker.session_types import ClaimedSession, InboxCommand, InterruptedRequest, InterruptedTurn, Outcome
from agentrq_worker.settings import Settings
from agentrq_worker.stream.event_log import EventLog
from agentrq_worker.stream.publisher import Publisher


class Scripted(AgentProtocol):
    """A dialect that says what a test puts into `says` and writes the name of what it was asked for."""

    def __init__(self) -> None:
        self.says: list[ProtocolEvent] = []
        self.can = True

    def command(self, program: list[str], options: Options) -> list[str]:
        return program

    def prompt(self, text: str) -> bytes:
        return f"prompt {text}".encode()

    def _if_it_can(self, words: str) -> bytes:
        if not self.can:
            raise CommandRefused("it cannot")
        return words.encode()

    def steer(self, text: str) -> bytes:
        return self._if_it_can(f"steer {text}")

    def interrupt(self) -> bytes:
        return self._if_it_can("interrupt")

    def answer(self, request_id: str, answer: Any) -> bytes:
        return self._if_it_can(f"answer {request_id} {json.dumps(answer)}")

    def receive(self, line: bytes) -> list[ProtocolEvent]:
        return self.says

    def close(self, reason: str) -> list[DraftMessage]:
        return []


class Talk:
    """A conversation with everything around it that a test looks at."""

    def __init__(
        self,
        *,
        cut: InterruptedTurn | None = None,
        recovering: bool = False,
        worker: Policy | None = None,
        **options: Any,
    ) -> None:
        self.written: list[str] = []
        self.outcomes: list[Outcome] = []
        self.seen: list[dict[str, Any]] = []
        publisher = Publisher(connect_async("redis://127.0.0.1:1"), Settings())
        self.lane: EventLog = publisher.open_log("s", Cursor(1, 0), {"claim": "mine"})
        chosen = make_options(options)
        claimed = ClaimedSession("s", "x", "first", chosen, recovering, cut, 0, SessionTotal(), 0)
        self.talk = SessionMachine(
            claimed, chosen, self.lane, worker or read_policy(None),
            lambda data: self.written.append(data.decode()), self.outcomes.append,
        )  # fmt: skip
        self.dialect = Scripted()
        self._entries = 0

    def begin(self) -> Talk:
        self.talk.begin(self.dialect, 7)
        self.flush()
        return self

    def say(self, *said: ProtocolEvent) -> Talk:
        self.dialect.says = list(said)
        self.talk.lines([b"{}"])
        self.flush()
        return self

    def command(self, kind: Any, **members: Any) -> str:
        self._entries += 1
        command_id = f"c{self._entries}"
        self.talk.deliver(InboxCommand(b"%d-0" % self._entries, Command(command_id, kind, **members)))
        self.flush()
        return command_id

    def flush(self) -> None:
        """What Redis would confirm."""
        while entries := self.lane.waiting.peek(1000, 1 << 30):
            # The script gives the end its cursor: its JSON begins behind it.
            self.seen += [json.loads(b"{" * (entry.kind == "e") + text) for entry in entries for text in entry.jsons]
            self.lane.confirm(entries)

    @property
    def statuses(self) -> list[str]:
        return [event["status"] for event in self.seen if "status" in event]

    def receipts(self) -> list[tuple[str, str, str | None]]:
        return [(e["commandId"], e["outcome"], e.get("reason")) for e in self.seen if "outcome" in e]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [event["content"] for event in self.seen if event.get("type") == kind]


def cost(turns: int = 1) -> DraftMessage:
    return DraftMessage("cost", Cost(0.0, 1, 0, 0, 1, False, session_total=SessionTotal(0.0, 0, 0, turns)))


def asks(request_id: str = "r1", command: str = "ls") -> DraftMessage:
    return DraftMessage("approval_request", ApprovalRequest(request_id, "Bash", {"command": command}, "t1"))


def test_a_turn() -> None:
    talk = Talk().begin()
    assert talk.written == ["", "prompt first"]
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


@pytest.mark.parametrize("said", [Alive(by_itself=False), DraftMessage("init", Init(model="m"))])
def test_a_resumed_runner_that_says_that_it_is_there_has_begun_no_turn(said: ProtocolEvent) -> None:
    talk = Talk(recovering=True).begin().say(said)
    assert talk.statuses == ["idle"]
    talk.command("prompt", text="go on")
    assert talk.written[-1] == "prompt go on"
    talk.say(said, DraftMessage("text", Text("hi"))).say(cost())
    assert talk.statuses == ["idle", "running", "idle"]
    talk.say(DraftMessage("text", Text("of a task in the background")))
    assert talk.statuses[-1] == "running"


def test_nothing_reaches_the_runner_before_redis_has_it() -> None:
    talk = Talk()
    talk.talk.begin(talk.dialect, 7)
    assert talk.written == [""]
    talk.flush()
    assert talk.written == ["", "prompt first"]


@pytest.mark.parametrize("can", [True, False])
@pytest.mark.parametrize("mode", ["steer", "interrupt"])
def test_modes_of_a_prompt_in_a_turn(mode: str, can: bool) -> None:
    talk = Talk().begin().say(Alive())
    talk.dialect.can = can
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


def test_a_runner_that_hears_nothing_gets_no_more() -> None:
    talk = Talk().begin().say(Alive())
    talk.talk.deaf = lambda: "it is deaf"
    written = list(talk.written)
    commands = [talk.command("prompt", text="now", mode=mode) for mode in ("queue", "steer", "interrupt")]
    commands += [talk.command("set_model", text="large"), talk.command("interrupt")]
    assert talk.receipts() == [(command, "rejected", "it is deaf") for command in commands]
    assert talk.written == written
    assert len(talk.of_type("prompt")) == 1


def test_what_comes_when_the_runner_has_gone_is_not_applied() -> None:
    """It has its receipt by the end of the session (``expired``), or by the next owner."""
    talk = Talk().begin().say(Alive())
    talk.talk.ending = True
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
    talk.dialect.can = False
    bad = talk.command("answer", request_id="r1", answer={"decision": "maybe"})
    talk.dialect.can = True
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
    talk = Talk(approvals={"deadlineS": 0.000001}).begin().say(Alive(), asks())
    talk.talk.pass_deadlines()
    talk.flush()
    assert talk.of_type("approval_resolved") == [{"requestId": "r1", "decision": "deny", "by": "deadline"}]


def cut(*asked: InterruptedRequest) -> InterruptedTurn:
    return InterruptedTurn("first", [("t9", None)], list(asked), {})


def test_recovery_marks_the_cut_turn_and_is_idle() -> None:
    talk = Talk(cut=cut(), recovering=True)
    talk.talk.close_cut_turn(cut())
    talk.begin()
    assert talk.of_type("tool_result")[0]["toolUseId"] == "t9"
    assert talk.of_type("error")[0]["code"] == "turn_interrupted"
    assert talk.statuses == ["idle"]
    assert talk.written == [""]


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
    assert talk.outcomes == []
    talk.command("prompt", text="again")
    talk.say(cost(2))
    assert talk.outcomes == [Outcome(Status.DONE, Reason.MAX_TURNS)]


def test_max_turns_ends_a_session_that_is_to_leave() -> None:
    talk = Talk(max_turns=1).begin().say(Alive())
    talk.talk.leaving = True
    talk.say(cost(1))
    assert talk.outcomes[0] == Outcome(Status.DONE, Reason.MAX_TURNS)


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
    "cannot": lambda talk: setattr(talk.dialect, "can", not talk.dialect.can),
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
        assert (talk.talk.status is Status.IDLE) <= (not talk.talk.busy)
    before = [Status.STARTING, *map(Status, talk.statuses)]
    for current, following in itertools.pairwise(before):
        assert following in MOVES[current]
    known = [receipt[0] for receipt in talk.receipts()]
    assert len(known) == len(set(known))
    talk.talk.end(Outcome(Status.DONE, Reason.STOPPED), 0)
    talk.flush()
    cursors = [int(event["cursor"].partition("-")[2]) for event in talk.seen if "cursor" in event]
    assert cursors == list(range(1, len(cursors) + 1))
