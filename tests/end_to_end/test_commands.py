"""Commands and approvals through a real worker: receipts, answers, bad input; nothing lost, nothing applied twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentrq import (
    AgentClient,
    AsyncAgentClient,
    CommandRejected,
    InvalidOption,
    Receipt,
    SessionEnded,
    SessionNotFound,
    StatusEvent,
)
from agentrq.errors import InboxFull
from agentrq.wire.commands import MAX_INBOX, MAX_PROMPT_BYTES
from agentrq.wire.messages import ApprovalRequest
from tests.sessions import asked, contents, until
from tests.workers import Worker

Start = Callable[..., Worker]
FAST = ("--lease-s", "2", "--beat-s", "0.5")


@pytest.mark.parametrize(
    ("answer", "text", "decision"),
    [
        ("allow", "ran ls", "allow"),
        ("deny", None, "deny"),
        ({"decision": "deny", "message": "not today", "by": "alice"}, "not today", "deny"),
        ({"decision": "allow", "input": {"command": "ls -l"}}, "ran ls -l", "allow"),
    ],
)
@pytest.mark.usefixtures("fake_claude")
async def test_an_answered_approval_lets_the_turn_go_on(
    client: AsyncAgentClient, start_worker: Start, answer: Any, text: str | None, decision: str
) -> None:
    start_worker()
    session = await client.start("fake-claude", "ask ls", permission_mode="default")
    request = await asked(session)
    assert isinstance(request.content, ApprovalRequest)
    waiting = await until(session, "waiting")
    assert (await session.state()).pending_approvals == 1
    await session.answer(request.content.request_id, answer, wait=True, timeout=20)
    with pytest.raises(CommandRejected, match="answered already"):
        await session.answer(request.content.request_id, "allow", wait=True, timeout=20)
    await until(session, "idle", waiting)
    events = [event async for event in _to_idle(session)]
    resolved = contents(events, "approval_resolved")
    assert [(one.decision, one.request_id) for one in resolved] == [(decision, request.content.request_id)]
    if text is not None:
        assert contents(events, "text")[-1].text == text
    assert (await session.state()).pending_approvals == 0
    await session.stop()


async def _to_idle(session: Any) -> Any:
    async for event in session.events():
        yield event
        if isinstance(event, StatusEvent) and event.status == "idle":
            return


@pytest.mark.usefixtures("fake_claude")
async def test_the_workers_policy_wins_over_the_sessions(
    client: AsyncAgentClient, start_worker: Start, config: Path
) -> None:
    """The worker's word comes first; what it leaves open the session's policy decides; nobody is asked."""
    policy = '{ rules = [{ command = "rm *", decision = "deny" }] }'
    config.write_text(f"approvals = {policy}\n{config.read_text()}")
    start_worker()
    session = await client.start("fake-claude", "ask rm x", permission_mode="default", approvals="allow")
    await session.prompt("ask ls")
    events = []
    async with asyncio.timeout(30):
        async for event in session.events():
            events.append(event)
            if len(contents(events, "text")) == 2:
                break
    assert [text.text for text in contents(events, "text")] == ["The user denied this.", "ran ls"]
    resolved = contents(events, "approval_resolved")
    assert [(one.decision, one.by) for one in resolved] == [("deny", "policy"), ("allow", "policy")]
    assert "waiting" not in [event.status for event in events if isinstance(event, StatusEvent)]
    await session.stop()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.usefixtures("fake_claude")
async def test_an_approval_can_be_answered_after_its_worker_was_killed(
    client: AsyncAgentClient, start_worker: Start, when: str
) -> None:
    first = start_worker(*FAST, "--name", "first")
    session = await client.start("fake-claude", "ask make", permission_mode="default", on_interrupt="continue")
    request = (await asked(session)).content
    assert isinstance(request, ApprovalRequest)
    first.kill()
    if when == "before":
        await session.answer(request.request_id, "allow")
    start_worker(*FAST, "--name", "second")
    if when == "after":
        recovering = await until(session, "recovering")
        again = (await asked(session, recovering)).content
        assert isinstance(again, ApprovalRequest)
        assert again.request_id == request.request_id
        await session.answer(request.request_id, "allow", wait=True, timeout=20)
    await until(session, "idle")
    events = [event async for event in _to_idle(session)]
    assert contents(events, "text")[-1].text == "ran make"
    await session.stop()


@pytest.mark.usefixtures("fake_claude")
async def test_interrupt_steer_and_interrupting_prompts_reach_the_turn(
    client: AsyncAgentClient, start_worker: Start
) -> None:
    start_worker()
    session = await client.start("fake-claude", "work")
    running = await until(session, "running")
    receipt = await session.prompt("hurry", mode="steer", wait=True, timeout=20)
    assert receipt.outcome == "applied"
    await session.interrupt(wait=True, timeout=20)
    idle = await until(session, "idle", running)
    with pytest.raises(CommandRejected, match="idle"):
        await session.interrupt(wait=True, timeout=20)
    await session.prompt("work")
    working = await until(session, "running", idle)
    await session.prompt("say next", mode="interrupt", wait=True, timeout=20)
    await until(session, "idle", working)
    events = [event async for event in _all_until_stopped(session)]
    assert [prompt.text for prompt in contents(events, "prompt")] == ["work", "hurry", "work", "say next"]
    assert contents(events, "text")[-1].text == "next"


async def _all_until_stopped(session: Any) -> Any:
    await session.stop()
    async for event in session.events():
        yield event


@pytest.mark.usefixtures("fake_claude")
async def test_a_callback_answers_approvals(redis_url: str, client: AsyncAgentClient, start_worker: Start) -> None:
    start_worker()
    session = await client.start("fake-claude", "ask one", permission_mode="default")
    await asked(session)
    told: list[str] = []

    def decide(request: Any) -> Any:
        told.append(request.input["command"])
        return "allow" if request.input["command"] == "one" else "deny"

    async def then() -> None:
        idle = await until(session, "idle")
        await session.prompt("ask two")
        await until(session, "idle", idle)
        await session.stop()

    with AgentClient.from_url(redis_url) as sync:
        answering = asyncio.to_thread(sync.session(session.id).ask_for_approval, decide)
        state, _ = await asyncio.gather(answering, then())
    assert state.status == "done"
    assert told == ["one", "two"]


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        ({"timeout_s": 1}, "error", "timeout"),
        ({"turn_timeout_s": 1}, "error", "timeout"),
        ({"idle_timeout_s": 0.5}, "done", "idle_timeout"),
        ({"max_turns": 1}, "done", "max_turns"),
    ],
)
async def test_a_session_ends_at_its_limits_of_time_and_turns(
    client: AsyncAgentClient, start_worker: Start, config: Path, options: dict[str, Any], status: str, reason: str
) -> None:
    with config.open("a") as file:
        file.write('[providers.silent]\ncommand = ["sh", "-c", "cat > /dev/null"]\n')
    start_worker()
    provider = "silent" if "timeout_s" in options or "turn_timeout_s" in options else "demo"
    state = await (await client.start(provider, "/echo hi", **options)).wait(40)
    assert (state.status, state.reason) == (status, reason)


@pytest.mark.usefixtures("fake_claude")
async def test_a_turn_over_its_time_is_interrupted(client: AsyncAgentClient, start_worker: Start) -> None:
    start_worker()
    session = await client.start("fake-claude", "work", turn_timeout_s=0.5)
    await until(session, "idle")
    await session.stop()


async def test_a_bad_command_is_refused_in_words(client: AsyncAgentClient, start_worker: Start) -> None:
    start_worker()
    session = await client.start("demo", "/echo hi")
    await until(session, "idle")
    for bad in ("", 7, None, "x" * (MAX_PROMPT_BYTES + 1)):
        with pytest.raises(InvalidOption, match="prompt"):
            await session.prompt(bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="mode"):
        await session.prompt("x", mode="shout")  # type: ignore[call-overload]
    with pytest.raises(InvalidOption, match="request_id"):
        await session.answer("", "allow")
    with pytest.raises(CommandRejected, match="no such request"):
        await session.answer("nobody", "allow", wait=True, timeout=20)
    with pytest.raises(SessionNotFound):
        await client.session("nobody").prompt("hello")
    await session.stop()
    await session.wait(20)
    for call in (session.prompt("x"), session.interrupt(), session.answer("r", "allow")):
        with pytest.raises(SessionEnded):
            await call


async def test_a_command_id_sent_twice_is_applied_once(client: AsyncAgentClient, start_worker: Start) -> None:
    start_worker()
    session = await client.start("demo", "/echo hi")
    for _ in range(3):
        await session.prompt("/echo once", wait=True, command_id="same", timeout=20)
    await session.stop()
    events = [event async for event in session.events()]
    assert [event.command_id for event in events if isinstance(event, Receipt)].count("same") == 1
    assert [prompt.text for prompt in contents(events, "prompt")] == ["/echo hi", "/echo once"]


async def test_a_flood_of_commands_is_applied_in_order(client: AsyncAgentClient, start_worker: Start) -> None:
    """The inbox is bounded while nobody reads it; a stop always fits; what fitted is told its fate."""
    session = await client.start("demo", "/echo hi")
    for number in range(MAX_INBOX):
        await session.prompt("/echo x", command_id=f"c{number}")
    with pytest.raises(InboxFull):
        await session.prompt("one too many")
    await session.stop()
    receipts = [event async for event in session.events() if isinstance(event, Receipt)]
    assert len(receipts) == MAX_INBOX + 1
    assert {receipt.outcome for receipt in receipts[:-1]} == {"expired"}
    assert (receipts[-1].command, receipts[-1].outcome) == ("stop", "applied")
