"""Commands and approvals, attacked from outside: together, too late, in the wrong moment, twice, ill-typed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentrq import AgentClient, AsyncAgentClient, CommandRejected, InvalidOption, Receipt
from agentrq.wire.messages import ApprovalRequest
from tests.rq_checks import eventually
from tests.sessions import asked, contents, until
from tests.workers import Worker

Start = Callable[..., Worker]
FAST = ("--lease-s", "1.5", "--beat-s", "0.3")


async def outcome(call: Any) -> str:
    try:
        return str((await call).outcome)
    except CommandRejected as error:
        return str(error)


async def request_of(session: Any, after: str | None = None) -> ApprovalRequest:
    content = (await asked(session, after)).content
    assert isinstance(content, ApprovalRequest)
    return content


@pytest.mark.usefixtures("fake_claude")
async def test_the_second_of_two_answers_is_rejected(
    redis_url: str, client: AsyncAgentClient, start_worker: Start
) -> None:
    start_worker()
    session = await client.start("fake-claude", "ask ls", permission_mode="default")
    request = await request_of(session)
    async with AsyncAgentClient.from_url(redis_url) as other:
        answers = [
            (session, {"decision": "allow", "by": "alice"}),
            (other.session(session.id), {"decision": "deny", "message": "no", "by": "bob"}),
        ]
        said = await asyncio.gather(*(
            outcome(one.answer(request.request_id, answer, wait=True, timeout=20)) for one, answer in answers
        ))  # fmt: skip
    assert sorted(map(len, said))[0] == len("applied")
    await until(session, "idle")
    await session.stop()
    events = [event async for event in session.events()]
    (resolved,) = contents(events, "approval_resolved")
    assert any(f"answered already: {resolved.decision} by {resolved.by}" in words for words in said)
    assert contents(events, "text")[-1].text == ("ran ls" if resolved.decision == "allow" else "no")


@pytest.mark.usefixtures("fake_claude")
async def test_an_answer_that_crosses_the_withdrawal_is_rejected(client: AsyncAgentClient, start_worker: Start) -> None:
    """The turn is interrupted and its request answered in one breath: one of them wins, nothing hangs."""
    start_worker()
    session = await client.start("fake-claude", "ask ls", permission_mode="default")
    request = await request_of(session)
    said = await asyncio.gather(
        outcome(session.interrupt(wait=True, timeout=20)),
        outcome(session.answer(request.request_id, "allow", wait=True, timeout=20)),
    )
    assert "applied" in said
    await session.prompt("say on", wait=True, timeout=20)
    await session.stop()
    events = [event async for event in session.events()]
    assert len(contents(events, "approval_resolved")) == 1
    assert (await session.state()).pending_approvals == 0


@pytest.mark.slow
@pytest.mark.usefixtures("fake_claude")
async def test_a_request_outlives_two_workers(client: AsyncAgentClient, start_worker: Start) -> None:
    """It stays open and answerable through recoveries; its answer has the agent go on with its turn."""
    worker = start_worker(*FAST, "--name", "w0")
    session = await client.start("fake-claude", "ask make", permission_mode="default")
    request = await request_of(session)
    waiting = await until(session, "waiting")
    for number in (1, 2):
        worker.kill()
        worker = start_worker(*FAST, "--name", f"w{number}")
        waiting = await until(session, "waiting", waiting)
        assert (await session.state()).pending_approvals == 1
    cursor = (await session.state()).cursor
    receipt = await session.answer(request.request_id, "allow", wait=True, timeout=20)
    assert isinstance(receipt, Receipt)
    assert (await session.state()).pending_approvals == 0
    assert "answered already: allow" in await outcome(session.answer(request.request_id, "deny", wait=True, timeout=20))
    await until(session, "idle", cursor)
    await session.stop()
    events = [event async for event in session.events()]
    assert contents(events, "text")[-1].text == "ran make"
    assert [error.code for error in contents(events, "error")] == ["turn_interrupted"]


@pytest.mark.slow
@pytest.mark.usefixtures("fake_claude")
async def test_a_request_that_is_not_asked_again_is_withdrawn(client: AsyncAgentClient, start_worker: Start) -> None:
    worker = start_worker(*FAST, "--name", "w0")
    session = await client.start("fake-claude", "ask make", permission_mode="default")
    request = await request_of(session)
    waiting = await until(session, "waiting")
    worker.kill()
    start_worker(*FAST, "--name", "w1")
    waiting = await until(session, "waiting", waiting)
    await session.prompt("say something else")
    await until(session, "idle", waiting)
    assert "withdrawn" in await outcome(session.answer(request.request_id, "allow", wait=True, timeout=20))
    await session.stop()
    events = [event async for event in session.events()]
    assert [(one.request_id, one.decision) for one in contents(events, "approval_resolved")] == [
        (request.request_id, "withdrawn")
    ]


@pytest.mark.usefixtures("fake_claude")
async def test_a_stop_lets_no_prompt_through(client: AsyncAgentClient, start_worker: Start) -> None:
    """The stop ends the turn; what waited for the turn's end is not handed to a runner that is told to go."""
    start_worker()
    session = await client.start("fake-claude", "work")
    await until(session, "running")
    await session.prompt("say never", command_id="late")
    await session.stop()
    await session.wait(20)
    events = [event async for event in session.events()]
    outcomes = {event.command_id: event.outcome for event in events if isinstance(event, Receipt)}
    assert outcomes["late"] == "expired"
    assert [prompt.text for prompt in contents(events, "prompt")] == ["work"]


async def test_the_last_turn_lets_no_prompt_through(client: AsyncAgentClient, start_worker: Start) -> None:
    session = await client.start("demo", "/echo one", max_turns=1)
    await session.prompt("/echo two", command_id="late")
    start_worker()
    assert (await session.wait(30)).reason == "max_turns"
    receipts = [event async for event in session.events() if isinstance(event, Receipt)]
    assert [(receipt.command_id, receipt.outcome) for receipt in receipts] == [("late", "expired")]


async def test_a_waiter_gives_up_and_the_command_does_not(
    redis_url: str, client: AsyncAgentClient, start_worker: Start
) -> None:
    worker = start_worker()
    session = await client.start("demo", "/echo hi")
    idle = await until(session, "idle")
    worker.freeze()
    with pytest.raises(TimeoutError, match="patient"):
        await session.prompt("/echo one", wait=True, timeout=2, command_id="patient")  # sent within it
    with AgentClient.from_url(redis_url) as sync, pytest.raises(TimeoutError):
        await asyncio.to_thread(sync.session(session.id).prompt, "/echo two", wait=True, timeout=0.2)
    worker.thaw()
    await until(session, "idle", idle)
    receipt = await session.prompt("/echo one", wait=True, timeout=20, command_id="patient")
    assert receipt.outcome == "applied"
    await session.stop()
    events = [event async for event in session.events()]
    assert [text.text for text in contents(events, "text")] == ["hi", "one", "two"]


@pytest.mark.usefixtures("fake_claude")
async def test_a_changed_model_or_mode_has_a_receipt(client: AsyncAgentClient, start_worker: Start) -> None:
    start_worker()
    claude = await client.start("fake-claude", "say hi")
    await until(claude, "idle")
    assert await outcome(claude.set_model("other", wait=True, timeout=20)) == "applied"
    assert await outcome(claude.set_permission_mode("plan", wait=True, timeout=20)) == "applied"
    demo = await client.start("demo", "/echo hi")
    await until(demo, "idle")
    assert "does not support changing the model" in await outcome(demo.set_model("other", wait=True, timeout=20))
    assert "does not support changing the permission mode" in await outcome(
        demo.set_permission_mode("plan", wait=True, timeout=20)
    )
    with pytest.raises(InvalidOption, match="model"):
        await demo.set_model("")
    for session in (claude, demo):
        await session.stop()


@pytest.mark.slow
@pytest.mark.usefixtures("fake_claude")
async def test_a_changed_mode_outlives_its_worker(client: AsyncAgentClient, start_worker: Start, raw: Any) -> None:
    worker = start_worker(*FAST, "--name", "w0")
    session = await client.start("fake-claude", "say hi")
    idle = await until(session, "idle")
    await session.set_model("other-model", wait=True, timeout=20)
    worker.kill()
    start_worker(*FAST, "--name", "w1")
    await until(session, "idle", idle)
    pid = raw.hget(f"agentrq:{{{session.id}}}:state", "pid")
    # Empty for a moment, while the process becomes the program.
    await eventually(lambda: "other-model" in Path(f"/proc/{int(pid)}/cmdline").read_text("utf-8").split("\0"))
    await session.stop()


async def test_the_word_stop_in_an_answer_stops_nothing(client: AsyncAgentClient, start_worker: Start) -> None:
    """A command in the inbox that only speaks of a stop, while its session is handed over."""
    first = start_worker(*FAST, "--name", "first")
    session = await client.start("demo", "/sleep 60")
    running = await until(session, "running")
    for number in range(2):
        await session.prompt("/echo on", command_id=f"wait {number}")
    with pytest.raises(CommandRejected, match="no such request is open"):
        await session.answer("nobody", {"decision": "allow", "input": {"command": "stop"}})
    second = start_worker(*FAST, "--name", "second")
    first.process.send_signal(signal.SIGTERM)
    first.wait_log("stopping: ")
    first.process.send_signal(signal.SIGTERM)
    await until(session, "idle", running)
    state = await session.state()
    assert (state.ended, state.worker) == (False, second.name)
    await session.stop()


@pytest.mark.parametrize("answer", [object(), {(1, 2): 3}, {"input": {1j}}])
async def test_an_ill_typed_answer_is_rejected(client: AsyncAgentClient, answer: Any) -> None:
    session = await client.start("demo", "/echo hi")
    with pytest.raises(InvalidOption, match="answer"):
        await session.answer("r1", answer)
    for levels in (600, 100_000):
        deep: list[Any] = []
        for _ in range(levels):
            deep = [deep]
        with pytest.raises(InvalidOption, match="answer"):
            await session.answer("r1", deep)


@pytest.mark.parametrize("command_id", ["", 7, "x" * 201, "\ud800"])
async def test_an_ill_typed_command_id_is_refused(client: AsyncAgentClient, command_id: Any) -> None:
    session = await client.start("demo", "/echo hi")
    if command_id == "":
        await session.prompt("x", command_id=command_id)  # as good as none
        return
    with pytest.raises(InvalidOption, match="command_id"):
        await session.prompt("x", command_id=command_id)
