"""Commands in great number, of great size, at the same moment, and at the edges of a turn; entries nobody can read."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from rq import Queue
from rq.serializers import JSONSerializer

from agentrq import AsyncAgentClient, CommandRejected, InvalidOption, Receipt
from agentrq.errors import AgentRQError, InboxFull, SessionEnded
from agentrq.wire.commands import MAX_INBOX, MAX_PROMPT_BYTES
from tests.rq_checks import result_of
from tests.sessions import asked, contents, until
from tests.workers import Worker

Start = Callable[..., Worker]
FAST = ("--lease-s", "1.5", "--beat-s", "0.3")
WAIT: dict[str, Any] = {"wait": True, "timeout": 30}


async def everything(session: Any) -> list[Any]:
    return [event async for event in session.events()]


async def test_one_session_id_from_many_clients_starts_once(
    redis_url: str, client: AsyncAgentClient, start_worker: Start
) -> None:
    start_worker()
    session = await client.start("demo", "/echo hi")
    async with contextlib.AsyncExitStack() as stack:
        others = [await stack.enter_async_context(AsyncAgentClient.from_url(redis_url)) for _ in range(8)]
        receipts = await asyncio.gather(*(
            other.session(session.id).prompt("/echo once", command_id="same", **WAIT) for other in others
        ))  # fmt: skip
    assert {receipt.cursor for receipt in receipts} == {receipts[0].cursor}
    await session.stop()
    events = await everything(session)
    assert [prompt.text for prompt in contents(events, "prompt")].count("/echo once") == 1


async def test_ten_thousand_prompts_fill_the_inbox_and_lose_none(
    redis_url: str, client: AsyncAgentClient, start_worker: Start
) -> None:
    """A busy session takes what its inbox holds and refuses the rest; each that was taken is told its fate."""
    worker = start_worker()
    session = await client.start("demo", "/sleep 600")
    await until(session, "running")
    sent: list[str] = []
    refused = 0

    async def flood(number: int) -> None:
        nonlocal refused
        async with AsyncAgentClient.from_url(redis_url) as other:
            for at in range(1000):
                try:
                    sent.append(await other.session(session.id).prompt("/echo x", command_id=f"{number}.{at}"))
                except InboxFull:
                    refused += 1

    await asyncio.gather(*(flood(number) for number in range(10)))
    assert (len(sent), refused) == (MAX_INBOX, 10_000 - MAX_INBOX)
    await session.stop()  # a stop fits always, and overtakes them all
    assert (await session.wait(30)).reason == "stopped"
    receipts = [event for event in await everything(session) if isinstance(event, Receipt)]
    assert {receipt.command_id for receipt in receipts[:-1]} == set(sent)
    assert Counter(receipt.outcome for receipt in receipts) == {"expired": MAX_INBOX, "applied": 1}
    assert worker.process.poll() is None


@pytest.mark.usefixtures("fake_claude")
async def test_an_enormous_answer_is_refused(client: AsyncAgentClient, start_worker: Start) -> None:
    start_worker()
    session = await client.start("fake-claude", "ask ls", permission_mode="default")
    request: Any = (await asked(session)).content
    with pytest.raises(InvalidOption, match="answer"):
        await session.answer(request.request_id, {"decision": "deny", "message": "x" * MAX_PROMPT_BYTES})
    message = "y" * (MAX_PROMPT_BYTES - 100)
    await session.answer(request.request_id, {"decision": "deny", "message": message}, **WAIT)
    await until(session, "idle")
    events = await everything_until_stopped(session)
    assert contents(events, "text")[-1].text == message


async def everything_until_stopped(session: Any) -> list[Any]:
    await session.stop()
    return await everything(session)


@pytest.mark.usefixtures("fake_claude")
async def test_an_interrupt_at_the_edge_of_a_turn_has_one_receipt(
    client: AsyncAgentClient, start_worker: Start
) -> None:
    """Whenever it comes, an interrupt has its receipt, and the prompt that follows is heard."""
    start_worker()
    session = await client.start("fake-claude", "say 0")
    for number in range(1, 31):
        prompt = session.prompt(f"say {number}", **WAIT)
        outcomes = await asyncio.gather(
            prompt, *(session.interrupt(**WAIT) for _ in range(number % 3)), return_exceptions=True
        )
        for outcome in outcomes:
            assert isinstance(outcome, Receipt) or "rejected: idle" in str(outcome)
    await session.prompt("say last", **WAIT)
    async with asyncio.timeout(30):
        async for message in session.messages():
            if any(text.text == "last" for text in contents([message], "text")):
                break
    await until(session, "idle", message.cursor)
    events = await everything_until_stopped(session)
    assert [prompt.text for prompt in contents(events, "prompt")][-1] == "say last"
    assert contents(events, "error") == []


@pytest.mark.usefixtures("fake_claude")
@pytest.mark.parametrize("mode", ["steer", "interrupt"])
async def test_a_steered_prompt_at_the_edge_of_a_turn_is_not_lost(
    client: AsyncAgentClient, start_worker: Start, mode: Any
) -> None:
    """A prompt of any mode may meet the turn's end: it is handed over once, whatever it finds."""
    start_worker()
    session = await client.start("fake-claude", "say 0")
    for number in range(1, 31):
        await asyncio.gather(session.prompt(f"say {number}a", **WAIT), session.prompt(f"say {number}b", mode, **WAIT))
    await session.prompt("say last", **WAIT)
    async with asyncio.timeout(30):
        async for message in session.messages():
            if any(text.text == "last" for text in contents([message], "text")):
                break
    events = await everything_until_stopped(session)
    prompts = Counter(prompt.text for prompt in contents(events, "prompt"))
    assert set(prompts.values()) == {1}
    assert len(prompts) == 62


async def test_a_stop_at_any_moment_of_a_start_ends_the_session(client: AsyncAgentClient, start_worker: Start) -> None:
    """Queued, being claimed, starting, running: a stop ends the session, and nothing of it is left."""
    worker = start_worker()

    async def one(number: int) -> None:
        session = await client.start("demo", "/sleep 60", f"moment-{number}")
        statuses = ["queued", "starting", "running"]
        with contextlib.suppress(AssertionError):
            await until(session, statuses[number % 3])
        await asyncio.gather(session.stop(), session.stop())
        state = await session.wait(30)
        assert (state.status, state.reason) == ("done", "stopped")
        with pytest.raises(SessionEnded):
            await session.prompt("x")
        receipts = [event for event in await everything(session) if isinstance(event, Receipt)]
        assert {(receipt.command, receipt.outcome) for receipt in receipts} <= {("stop", "applied")}

    await asyncio.gather(*(one(number) for number in range(15)))
    assert worker.process.poll() is None


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["recovering", "ownerless"])
async def test_a_stop_ends_a_session_without_a_live_owner(
    client: AsyncAgentClient, start_worker: Start, moment: str
) -> None:
    worker = start_worker(*FAST, "--name", "w0")
    session = await client.start("demo", "/sleep 60", on_interrupt="continue")
    running = await until(session, "running")
    worker.kill()
    if moment == "recovering":  # claimed anew, or just about to be
        start_worker(*FAST, "--name", "w1")
        await until(session, "recovering", running)
    await session.stop()
    state = await session.wait(30)
    assert (state.status, state.reason) == ("done", "stopped")


@pytest.mark.slow
@pytest.mark.usefixtures("fake_claude")
async def test_a_deadline_that_passed_without_an_owner_is_applied_by_the_next(
    client: AsyncAgentClient, start_worker: Start
) -> None:
    worker = start_worker(*FAST, "--name", "w0")
    policy = {"deadlineS": 2, "onDeadline": "allow"}
    session = await client.start(
        "fake-claude", "ask make", permission_mode="default", on_interrupt="continue", approvals=policy
    )
    request: Any = (await asked(session)).content
    worker.kill()
    start_worker(*FAST, "--name", "w1")
    await until(session, "idle")
    events = await everything_until_stopped(session)
    resolved = contents(events, "approval_resolved")
    assert {(one.decision, one.by) for one in resolved} == {("allow", "deadline")}
    assert resolved[0].request_id == request.request_id
    assert contents(events, "text")[-1].text == "ran make"


@pytest.mark.usefixtures("fake_claude")
async def test_an_answer_after_two_deaths_has_the_agent_go_on(
    client: AsyncAgentClient, start_worker: Start, raw: Any
) -> None:
    """It is given to an agent that has not asked again: that is resumed, asks, and has its answer at once."""
    workers = [start_worker(*FAST, "--name", "w0")]
    session = await client.start("fake-claude", "ask make", permission_mode="default")
    request: Any = (await asked(session)).content
    place = await until(session, "waiting")
    for number in (1, 2):
        workers[-1].kill()
        workers.append(start_worker(*FAST, "--name", f"w{number}"))
        place = await until(session, "waiting", place)
    answer = {"decision": "allow", "input": {"command": "make all"}, "by": "alice"}
    await session.answer(request.request_id, answer, **WAIT)
    await until(session, "idle", place)
    with pytest.raises(CommandRejected, match="answered already: allow by alice"):
        await session.answer(request.request_id, "deny", **WAIT)
    assert not raw.hget(f"agentrq:{{{session.id}}}:state", "kept")
    events = await everything_until_stopped(session)
    assert contents(events, "text")[-1].text == "ran make all"


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


ENTRIES = [
    ("c1", '{"commandId":"c1","command":"fly"}', "enum value 'fly'"),
    ("c2", '{"commandId":"c2","command":"prompt"}', "prompt"),
    ("c3", '{"commandId":"c3","command":"prompt","text":7}', "Expected `str"),
    ("", '{"commandId":"c4","command":"answer","requestId":"r","answer":' + nested(100_000) + "}", ""),
    ("c7", '{"commandId":"c7","command":"answer","requestId":"r","answer":' + nested(600) + "}", "nested too deeply"),
    ("c5", json.dumps({"commandId": "c5", "command": "prompt", "text": "x" * (MAX_PROMPT_BYTES + 1)}), "bytes"),
    ("c6", '{"commandId":"c6","command":"prompt","text":"x","mode":"shout"}', "shout"),
    ("", '{"commandId":7,"command":"prompt","text":"x"}', ""),
    ("", "no JSON", ""),
    ("", "[]", ""),
]


async def test_inbox_entries_that_are_not_commands_are_dropped(
    client: AsyncAgentClient, start_worker: Start, raw: Any
) -> None:
    """Written past the client, as another language's may: each whose id can be told is rejected, none does harm."""
    start_worker()
    session = await client.start("demo", "/echo hi")
    await until(session, "idle")
    inbox = f"agentrq:{{{session.id}}}:inbox"
    for _, entry, _ in ENTRIES:
        raw.xadd(inbox, {"command": entry})
    raw.xadd(inbox, {"wrong": "field"})
    await session.prompt("/echo still here", command_id="good", **WAIT)
    assert raw.xlen(inbox) == 5  # what nobody can be told of; it goes with the session
    events = await everything_until_stopped(session)
    receipts = {event.command_id: event for event in events if isinstance(event, Receipt)}
    assert receipts["good"].outcome == "applied"
    for command_id, _, reason in ENTRIES:
        if command_id:
            assert receipts[command_id].outcome == "rejected"
            assert reason in str(receipts[command_id].reason)
    assert len(receipts) == 8


async def test_a_job_that_asks_too_much_is_refused(client: AsyncAgentClient, start_worker: Start, raw: Any) -> None:
    """By RQ, as a webhook may: too long, or a policy that is nonsense; the job says so, the session goes on."""
    start_worker()
    session = await client.start("demo", "/echo hi")
    await until(session, "idle")
    starts, others = (Queue(name, connection=raw, serializer=JSONSerializer) for name in ("agentrq", "agentrq-ctl"))
    huge = others.enqueue("agentrq.prompt", session.id, "x" * 10_000_000)
    nonsense = starts.enqueue("agentrq.start", None, "demo", "/echo hi", {"approvals": {"rules": [{"tol": "x"}]}})
    for job, says in ((huge, "prompt"), (nonsense, "approvals")):
        async with asyncio.timeout(30):
            status, error = await result_of(raw, job.id)
        assert status == "failed"
        assert f"InvalidOption: Invalid option {says!r}" in str(error)
    with pytest.raises(InvalidOption, match="approvals"):
        await client.start("demo", "x", approvals={"rules": [{"tol": "x"}]})
    with pytest.raises(CommandRejected, match="no such request"):
        await session.answer("r", "allow", **WAIT)
    await session.stop()


async def test_a_trimmed_receipt_is_an_error_in_words(client: AsyncAgentClient, start_worker: Start) -> None:
    """Who sends a command once more, long after, does not wait for what was trimmed away."""
    start_worker("--max-events", "40")
    session = await client.start("demo", "/echo hi")
    await session.prompt("/echo once", command_id="old", **WAIT)
    for number in range(12):
        await session.prompt(f"/echo {number}", **WAIT)
    with pytest.raises(AgentRQError, match=r"receipt of command old of session .* is no longer kept"):
        await session.prompt("/echo once", command_id="old", **WAIT)
    await session.stop()
