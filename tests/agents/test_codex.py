"""Codex itself, pinned, through a real worker, against the scripted model: what people do with a session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentrq import AsyncAgentClient, Message
from tests.agents.codex_provider import CODEX_SETTINGS
from tests.agents.following import collect, first, statuses, story
from tests.agents.installing import place
from tests.fakes.model_server import ModelServer
from tests.rq_checks import eventually
from tests.sessions import contents, until
from tests.workers import Worker

pytestmark = pytest.mark.agents
Start = Callable[..., Worker]
FAST = ("--lease-s", "2", "--beat-s", "0.5")
WAIT: dict[str, Any] = {"wait": True, "timeout": 30}


def running(words: str) -> list[psutil.Process]:
    """The processes whose command line has these words."""
    return [process for process in psutil.process_iter(["cmdline"]) if words in " ".join(process.info["cmdline"] or ())]


@pytest.fixture
def config(tmp_path: Path, home: Path, model: ModelServer) -> Path:
    if not place("codex").exists():
        pytest.skip("codex is not installed: make test-agents AGENTS=codex")
    path = tmp_path / "agentrq.toml"
    path.write_text(CODEX_SETTINGS % {"codex": place("codex"), "home": home, "model": model.url})
    return path


async def test_a_tool_call(client: AsyncAgentClient, start_worker: Start, workspace: Path) -> None:
    start_worker()
    session = await client.start("codex", "[[bash:echo made > made.txt; cat made.txt]]", cwd=str(workspace))
    events = await collect(session)
    assert story(events)[:-1] == [
        ("prompt", "[[bash:echo made > made.txt; cat made.txt]]"),
        ("init", None),
        ("tool_call", "command_execution"),
        ("tool_result", "made\n"),
        ("text", "Done."),
    ]
    assert (workspace / "made.txt").read_text() == "made\n"
    assert statuses(events) == ["queued", "starting", "running", "idle"]
    (begun,) = contents(events, "init")
    assert (begun.model, begun.cwd) == ("gpt-5", str(workspace))
    state = await session.state()
    assert state.provider_session_id == begun.provider_session_id
    assert state.input_tokens == contents(events, "cost")[0].input_tokens == 200
    await session.stop()
    assert (await session.wait(30)).reason == "stopped"


async def test_deltas_thoughts_and_prompts_while_busy(
    client: AsyncAgentClient, start_worker: Start, model: ModelServer
) -> None:
    start_worker()
    session = await client.start("codex", "[[hold:first]]")
    live: list[Message] = []

    async def follow() -> None:
        async for message in session.messages(deltas=True):
            live.append(message)
            if len(contents(live, "cost")) == 3:
                return

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(follow())
        await first(session, "text_delta", deltas=True)
        for words in ("[[think:Hm.]]", "[[text:three]]"):
            await session.prompt(words)
        model.release("first")
    said = contents(live, "text") + contents(live, "thinking")
    assert {each.text for each in said} == {"Held and released.", "Hm.", "Thought about it.", "three"}
    pieces: dict[str, str] = {}
    for delta in contents(live, "text_delta") + contents(live, "thinking_delta"):
        assert delta.offset == len(pieces.get(delta.block_id, ""))
        pieces[delta.block_id] = pieces.get(delta.block_id, "") + delta.text
    assert pieces == {each.block_id: each.text for each in said}
    assert [cost.input_tokens for cost in contents(live, "cost")] == [100, 100, 100]
    await until(session, "idle")
    await session.stop()


async def test_steer_joins_the_turn(client: AsyncAgentClient, start_worker: Start, workspace: Path) -> None:
    start_worker()
    wait = "[[bash:until test -e go; do sleep 0.05; done; echo waited]] [[text:not steered]]"
    session = await client.start("codex", wait, cwd=str(workspace))
    await first(session, "tool_call")
    await session.prompt("[[text:steered]]", "steer", **WAIT)
    (workspace / "go").touch()
    events = await collect(session)
    assert [text.text for text in contents(events, "text")] == ["steered"]
    assert contents(events, "tool_result")[0].output == "waited\n"
    assert len(contents(events, "cost")) == 1
    await session.stop()


async def test_steer_when_the_turn_is_just_over(
    client: AsyncAgentClient, start_worker: Start, model: ModelServer
) -> None:
    """Whether it still joins the turn or comes too late: the model is told of it, once, and of what follows."""
    start_worker()
    session = await client.start("codex", "[[text:begin]]")
    await collect(session)
    for number in range(8):
        idle = (await session.state()).cursor
        await session.prompt(f"[[hold:last{number}]]")
        await until(session, "running", idle)
        steering = session.prompt(f"[[text:steered {number}]]", "steer", **WAIT)
        await asyncio.gather(steering, asyncio.to_thread(model.release, f"last{number}"))
        await session.prompt(f"[[text:queued {number}]]")
        async with asyncio.timeout(60):
            async for message in session.messages():
                if any(text.text == f"queued {number}" for text in contents([message], "text")):
                    break
        await until(session, "idle", message.cursor)
    told = str(model.requests[-1].body["input"])
    assert [told.count(f"[[text:steered {number}]]") for number in range(8)] == [1] * 8
    await session.stop()


@pytest.mark.parametrize("work", ["[[bash:sleep 61.9]]", "[[endless]]"])
async def test_interrupt(client: AsyncAgentClient, start_worker: Start, work: str) -> None:
    start_worker()
    session = await client.start("codex", work)
    await first(session, "text_delta" if "endless" in work else "tool_call", deltas=True)
    await session.interrupt(**WAIT)
    events = await collect(session)
    assert contents(events, "cost")[0].errors == ["The turn was interrupted"]
    assert len(contents(events, "tool_result")) == len(contents(events, "tool_call")) == ("bash" in work)
    await session.prompt("[[text:after]]")
    assert contents(await collect(session, times=2), "text")[-1].text == "after"
    await session.stop()
    assert (await session.wait(30)).status == "done"


async def test_a_stop_in_mid_tool_leaves_nothing(client: AsyncAgentClient, start_worker: Start) -> None:
    start_worker()
    session = await client.start("codex", "[[bash:sleep 62.3]]")
    await first(session, "tool_call")
    async with asyncio.timeout(30):
        await eventually(lambda: running("sleep 62.3"))
    await session.stop()
    assert (await session.wait(30)).reason == "stopped"
    assert running("sleep 62.3") == []


@pytest.mark.parametrize(("answer", "made"), [("allow", True), ("deny", False)])
async def test_approvals(
    client: AsyncAgentClient, start_worker: Start, workspace: Path, answer: str, made: bool
) -> None:
    start_worker()
    session = await client.start("codex", "[[bash:touch made]]", cwd=str(workspace), approvals="ask")
    request = (await first(session, "approval_request")).content
    assert request.name == "command_execution"
    assert "touch made" in request.input["command"]
    await session.answer(request.request_id, answer, **WAIT)
    events = await collect(session)
    assert statuses(events) == ["queued", "starting", "running", "waiting", "running", "idle"]
    assert [found.decision for found in contents(events, "approval_resolved")] == [answer]
    assert [result.is_error for result in contents(events, "tool_result")] == [not made]
    assert (workspace / "made").exists() == made
    await session.stop()


async def test_a_session_goes_on_on_another_worker(client: AsyncAgentClient, start_worker: Start) -> None:
    worker = start_worker(*FAST)
    session = await client.start("codex", "[[text:one]]")
    first_turn = await collect(session)
    worker.kill()
    start_worker(*FAST)
    await collect(session, times=2)
    await session.prompt("[[text:two]]")
    events = await collect(session, times=3)
    assert [text.text for text in contents(events, "text")] == ["one", "two"], "no history repeated"
    begun = contents(events, "init")
    assert {each.provider_session_id for each in begun} == {contents(first_turn, "init")[0].provider_session_id}
    assert [cost.input_tokens for cost in contents(events, "cost")] == [100, 100], "nothing counted twice"
    assert (await session.state()).input_tokens == 200
    await session.stop()


@pytest.mark.parametrize(("status", "words"), [(401, "401"), (500, "high demand")])
async def test_api_errors(client: AsyncAgentClient, start_worker: Start, status: int, words: str) -> None:
    start_worker()
    session = await client.start("codex", f"[[error:{status}]]")
    events = await collect(session)
    (cost,) = contents(events, "cost")
    assert cost.is_error
    assert words in cost.errors[0]
    assert contents(events, "error")[0].message == cost.errors[0]
    await session.prompt("[[text:after]]")
    assert contents(await collect(session, times=2), "text")[-1].text == "after"
    await session.stop()
