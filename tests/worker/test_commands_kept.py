"""What befalls commands and requests inside one worker: their order, their atomic writing, what recovery finds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentrq.connection import connect_async
from agentrq.wire.codec import encode
from agentrq.wire.commands import Command, Options, make_options
from agentrq.wire.ids import Cursor
from agentrq.wire.keys import Keys
from agentrq.wire.messages import (
    ApprovalRequest,
    ApprovalResolved,
    Cost,
    Error,
    Prompt,
    SessionTotal,
    ToolCall,
    ToolResult,
)
from agentrq.wire.status import Reason, Status
from agentrq_worker.ownership.ownership import Ownership
from agentrq_worker.providers.protocol import Alive, Ended, Late
from agentrq_worker.redis_clock import RedisClock
from agentrq_worker.session.shell import SessionShell
from agentrq_worker.session_types import ClaimedSession, InboxCommand, InterruptedRequest, Outcome
from agentrq_worker.settings import Settings
from agentrq_worker.stream.buffer import EventBuffer as Queue
from agentrq_worker.stream.buffer_budget import BufferBudget
from agentrq_worker.stream.entry import Entry
from agentrq_worker.stream.event_log import EventLog
from agentrq_worker.stream.publisher import Publisher
from tests.worker.machine_talk import Talk, asks, cost, cut
from tests.worker.recovered_turns import read_back

# -- the conversation


def test_interrupting_prompts_keep_their_order_and_come_first() -> None:
    talk = Talk().begin().say(Alive())
    talk.command("prompt", text="queued")
    talk.command("prompt", text="now 1", mode="interrupt")
    talk.command("prompt", text="now 2", mode="interrupt")
    for _ in range(3):
        talk.say(cost())
    prompts = [words for words in talk.written if words.startswith("prompt")]
    assert prompts == ["prompt first", "prompt now 1", "prompt now 2", "prompt queued"]


def test_a_prompt_that_came_too_late_for_its_turn_has_the_next() -> None:
    """It has its receipt already, so nothing may lose it: not those that wait, not a worker that is leaving."""
    talk = Talk().begin().say(Alive())
    talk.command("prompt", text="queued")
    talk.command("prompt", text="joins", mode="steer")
    talk.leave()
    talk.say(Late("joins"))
    assert talk.written[-1] == "steer joins"
    talk.say(cost())
    assert talk.written[-1] == "prompt joins"
    assert (talk.statuses, talk.outcome) == (["running", "idle", "running"], None)
    talk.say(cost(2))
    assert talk.outcome == Outcome(None, handed_over=True)
    assert "prompt queued" not in talk.written  # the next owner's
    assert [prompt["text"] for prompt in talk.of_type("prompt")] == ["first", "joins"]


def test_a_prompt_that_came_too_late_is_given_to_an_idle_agent_at_once() -> None:
    talk = Talk().begin().say(Alive(), cost(), Late("joins"))
    assert talk.written[-1] == "prompt joins"
    assert talk.statuses == ["running", "idle", "running"]
    talk.say(cost(2))
    assert talk.statuses[-1] == "idle"


@pytest.mark.parametrize("ends", [[Ended(), cost()], [Ended("crashed"), cost()]])
def test_an_ending_session_hands_nothing_over(ends: list[Any]) -> None:
    talk = Talk().begin().say(Alive())
    talk.command("prompt", text="late")
    talk.say(*ends)
    assert talk.receipts() == []
    assert talk.written[-1] == "prompt first"


def test_the_last_allowed_turn_hands_nothing_over() -> None:
    talk = Talk(max_turns=1).begin().say(Alive())
    talk.command("prompt", text="late")
    talk.say(cost(1))
    assert talk.receipts() == []


def test_all_open_requests_are_counted() -> None:
    talk = Talk().begin().say(Alive(), asks("r1"), asks("r2"))
    assert talk.state["pendingApprovals"] == 2
    talk.command("answer", request_id="r1", answer="allow")
    assert talk.state["pendingApprovals"] == 1
    assert talk.statuses == ["running", "waiting"]
    talk.command("answer", request_id="r2", answer="allow")
    assert talk.state["pendingApprovals"] == 0
    assert talk.statuses == ["running", "waiting", "running"]


def test_a_request_after_the_turn_is_waited_for() -> None:
    """A sub-agent that works on behind the turn's end asks: the session says so, and is idle again once answered."""
    talk = Talk().begin().say(Alive(), cost()).say(asks())
    assert talk.statuses == ["running", "idle", "running", "waiting"]
    talk.command("answer", request_id="r1", answer="allow")
    assert talk.statuses[-1] == "idle"


def test_what_a_resumed_agent_does_not_ask_again_is_withdrawn() -> None:
    talk = Talk(cut=cut(InterruptedRequest("old", "Bash", {})), recovering=True).begin()
    assert talk.state["pendingApprovals"] == 1
    talk.command("prompt", text="go on")
    talk.say(Alive(), cost())
    late = talk.command("answer", request_id="old", answer="allow")
    assert talk.of_type("approval_resolved") == [{"requestId": "old", "decision": "withdrawn", "by": "agent"}]
    assert talk.state["pendingApprovals"] == 0
    assert talk.receipts()[-1] == (late, "rejected", "answered already: withdrawn by agent")


def test_a_setting_becomes_an_option() -> None:
    talk = Talk(model="old", metadata={"a": "b"}).begin()
    talk.command("set_model", text="new")
    assert talk.state["options"] == encode(Options(model="new", metadata={"a": "b"}))


def test_a_setting_that_is_refused_becomes_none() -> None:
    talk = Talk().begin()
    talk.agent.can = False
    talk.command("set_model", text="new")
    assert "options" not in talk.state


def test_a_bug_in_a_command_costs_its_session_only(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings()
    publisher = Publisher(connect_async("redis://127.0.0.1:1"), settings)
    lane = publisher.open_log("s", Cursor(1, 0), {"claim": "mine"})
    session = SessionShell(
        ClaimedSession("s", "x", "p", make_options({}), False, None, 0, SessionTotal(), 0), lane, settings, ""
    )

    def bug(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(session._machine._commands, "receive", bug)
    session.deliver(InboxCommand(b"1-0", Command("c", "interrupt")))
    assert session.outcome is not None
    assert (session.outcome.status, session.outcome.reason) == (Status.ERROR, Reason.FAILED)


# -- a prompt and its receipt are written together


def entries(queue: Queue, most: int, most_bytes: int = 1 << 20) -> list[int]:
    return [entry.seq for entry in queue.peek(most, most_bytes)]


@pytest.mark.parametrize("memory", [1 << 20, 1, 700])
def test_joined_entries_are_never_parted(tmp_path: Path, memory: int) -> None:
    """However small the batch, and wherever the boundary between memory and disk falls."""
    queue = Queue(BufferBudget(memory, 1 << 20, tmp_path))
    for seq in range(1, 9):
        queue.add(Entry("m", seq, [b"x" * 100], size=100, atomic_with_next=seq % 4 == 2))  # 2+3, 6+7
    batches = []
    while queue:
        batch = entries(queue, 1, 1)
        queue.drop(len(batch))
        batches.append(batch)
    assert batches == [[1], [2, 3], [4], [5], [6, 7], [8]]


# -- what recovery reads back


END = Cost(0, 0, 0, 0, 1, False)


async def test_a_cut_turn_reaches_back_over_steering_prompts() -> None:
    found = await read_back(
        Prompt("before", "c0"), END, Prompt("the turn", "c1"), ToolCall("t1", "Bash", {}),
        ApprovalRequest("r1", "Bash", {}), Prompt("hurry", "c2"), ToolCall("t2", "Bash", {}),
    )  # fmt: skip
    assert found.prompt == "the turn"
    assert [call for call, _ in found.open_calls] == ["t2", "t1"]
    assert [asked.request_id for asked in found.requests] == ["r1"]


async def test_requests_of_a_turn_cut_earlier_are_still_open() -> None:
    found = await read_back(
        Prompt("first", "c1"), ToolCall("t1", "Bash", {}), ApprovalRequest("r1", "Bash", {}),
        ApprovalRequest("r2", "Bash", {}), ToolResult("t1", "Interrupted", True), Error("cut", "turn_interrupted"),
        ApprovalResolved("r2", "deny", "x"), Prompt("second", "c2"), ToolCall("t2", "Bash", {}),
    )  # fmt: skip
    assert found.prompt == "second"
    assert found.open_calls == [("t2", None)]
    assert [asked.request_id for asked in found.requests] == ["r1"]


# -- one inbox, several claims by one worker


CREATED = "2020-01-01T00:00:00.000000Z"
"""When an RQ job was created, as RQ writes it."""


class Recorder:
    """In a session's place."""

    def __init__(self) -> None:
        self.id = "s"
        self.got: list[str] = []

    def deliver(self, waiting: InboxCommand) -> None:
        self.got.append(waiting.command.command_id)

    def reject(self, entry: bytes, command_id: str, command: str, reason: str) -> None:
        self.got.append(f"{command_id}: {reason}")


def an_event_log(directory: Path) -> EventLog:
    budget = BufferBudget(1 << 20, 0, directory)
    return EventLog(Keys(), "s", Cursor(1, 0), {"claim": "mine"}, budget, lambda _: None, RedisClock())


async def test_a_session_claimed_again_gets_its_inbox_from_the_beginning_once(redis_url: str, tmp_path: Path) -> None:
    async with connect_async(redis_url) as client:
        ownership = Ownership(client, client, Settings())
        assert (
            await ownership.open_session("s", "demo", "x", Options(), "s", CREATED) == "gone"
        )  # no session without its job
        await client.hset("rq:job:s", "data", "…")
        assert await ownership.open_session("s", "demo", "x", Options(), "s", CREATED) == "created"
        await ownership.send_command("s", Command("a", "prompt", text="a"), "a")
        first, second = Recorder(), Recorder()
        ownership.inboxes.add(first, an_event_log(tmp_path), 0)
        await ownership.inboxes._read(["s"])
        ownership.inboxes.add(second, an_event_log(tmp_path), 0)
        await ownership.inboxes._read(["s"])
        ownership.inboxes.drop(first)
        await ownership.send_command("s", Command("b", "prompt", text="b"), "b")
        await asyncio.gather(ownership.inboxes._read(["s"]))
        assert (first.got, second.got) == (["a"], ["a", "b"])
