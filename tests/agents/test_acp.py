"""ACP agents, pinned, named by settings alone, through a real worker, against the scripted model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentrq import AsyncAgentClient
from tests.agents.following import collect, first, statuses, story
from tests.agents.installing import place
from tests.fakes.model_server import ModelServer
from tests.rq_checks import eventually
from tests.sessions import contents
from tests.workers import Worker

pytestmark = pytest.mark.agents
Start = Callable[..., Worker]
FAST = ("--lease-s", "2", "--beat-s", "0.5")
WAIT: dict[str, Any] = {"wait": True, "timeout": 30}
AGENTS = ["gemini-acp", "opencode-acp"]
SETTINGS = """
[providers.gemini-acp]
protocol = "jsonrpc"
parser = "acp"
command = ["%(gemini)s", "--acp"]
env = { HOME = "%(home)s", GEMINI_API_KEY = "none", GOOGLE_GEMINI_BASE_URL = "%(model)s", \
GEMINI_CLI_TRUST_WORKSPACE = "true" }
public_env = ["GEMINI_API_KEY", "GEMINI_CLI_TRUST_WORKSPACE"]
options = { model = "gemini-2.5-pro" }

[providers.opencode-acp]
protocol = "jsonrpc"
parser = "acp"
command = ["%(opencode)s", "acp"]
env = { HOME = "%(home)s" }
"""
OPENCODE = {
    "model": "fake/fake-model",
    "small_model": "fake/fake-model",
    "autoupdate": False,
    "permission": {"edit": "ask"},
    "provider": {"fake": {"npm": "@ai-sdk/anthropic", "name": "Fake", "models": {"fake-model": {"name": "Fake"}}}},
}


def running(words: str) -> list[psutil.Process]:
    """The processes whose command line has these words."""
    return [process for process in psutil.process_iter(["cmdline"]) if words in " ".join(process.info["cmdline"] or ())]


@pytest.fixture
def config(tmp_path: Path, home: Path, model: ModelServer) -> Path:
    for name in ("gemini", "opencode"):
        if not place(name).exists():
            pytest.skip(f"{name} is not installed: make test-agents AGENTS='gemini opencode'")
    opencode: dict[str, Any] = json.loads(json.dumps(OPENCODE))
    opencode["provider"]["fake"]["options"] = {"baseURL": f"{model.url}/v1", "apiKey": "none"}
    settings = home / ".config" / "opencode" / "opencode.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(opencode))
    path = tmp_path / "agentrq.toml"
    path.write_text(
        SETTINGS % {"gemini": place("gemini"), "opencode": place("opencode"), "home": home, "model": model.url}
    )
    return path


# gemini tells its permission mode as a text, which nothing but its words tells from one of the model.
MODE_NOTE = "[MODE_UPDATE] yolo"


@pytest.mark.parametrize("agent", AGENTS)
async def test_turns(client: AsyncAgentClient, start_worker: Start, workspace: Path, agent: str) -> None:
    start_worker()
    session = await client.start(agent, "[[bash:echo made > made.txt]]", cwd=str(workspace))
    await session.prompt("[[think:Hm.]]")
    events = await collect(session)
    told = [(kind, gist) for kind, gist in story(events) if kind not in ("unknown", "cost") and gist != MODE_NOTE]
    assert told[:2] == [("prompt", "[[bash:echo made > made.txt]]"), ("init", None)]
    assert [kind for kind, _ in told[2:]] == ["tool_call", "tool_result", "text", "prompt", "thinking", "text"]
    assert [gist for _, gist in told[4:6]] == ["Done.", "[[think:Hm.]]"]
    assert told[-1] == ("text", "Thought about it.")
    assert (workspace / "made.txt").read_text() == "made\n"
    assert statuses(events) == ["queued", "starting", "running", "idle"]
    assert [cost.is_error for cost in contents(events, "cost")] == [False, False]
    state = await session.state()
    assert state.provider_session_id == contents(events, "init")[0].provider_session_id
    assert state.input_tokens > 0
    await session.stop()
    assert (await session.wait(30)).reason == "stopped"


@pytest.mark.parametrize("agent", AGENTS)
async def test_interrupt(client: AsyncAgentClient, start_worker: Start, agent: str) -> None:
    start_worker()
    session = await client.start(agent, "[[bash:sleep 63.1]]")
    await first(session, "tool_call")
    await session.interrupt(**WAIT)
    events = await collect(session)
    assert contents(events, "cost")[0].errors == ["The turn ended: cancelled"]
    assert len(contents(events, "tool_result")) == 1
    await session.prompt("[[text:after]]")
    assert contents(await collect(session, times=2), "text")[-1].text == "after"
    await session.stop()
    assert (await session.wait(30)).status == "done"


@pytest.mark.parametrize("agent", AGENTS)
async def test_a_stop_in_mid_tool_leaves_nothing(client: AsyncAgentClient, start_worker: Start, agent: str) -> None:
    start_worker()
    session = await client.start(agent, "[[bash:sleep 63.7]]")
    await first(session, "tool_call")
    async with asyncio.timeout(30):
        await eventually(lambda: running("sleep 63.7"))
    await session.stop()
    assert (await session.wait(30)).reason == "stopped"
    assert running("sleep 63.7") == []


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize(("answer", "made"), [("allow", True), ("deny", False)])
async def test_permissions(
    client: AsyncAgentClient, start_worker: Start, workspace: Path, agent: str, answer: str, made: bool
) -> None:
    start_worker()
    file = workspace / "made.txt"
    session = await client.start(agent, f"[[write:{file}=hello]]", cwd=str(workspace), permission_mode="default")
    request = (await first(session, "approval_request")).content
    assert request.input["path"] == str(file)
    await session.answer(request.request_id, answer, **WAIT)
    events = await collect(session)
    assert [status for status in statuses(events) if status == "waiting"] == ["waiting"]
    assert [found.decision for found in contents(events, "approval_resolved")] == [answer]
    assert [result.is_error for result in contents(events, "tool_result")] == [not made]
    assert file.exists() == made
    await session.stop()


@pytest.mark.parametrize("agent", AGENTS)
async def test_a_session_goes_on_on_another_worker(client: AsyncAgentClient, start_worker: Start, agent: str) -> None:
    worker = start_worker(*FAST)
    session = await client.start(agent, "[[text:one]]")
    await collect(session)
    worker.kill()
    start_worker(*FAST)
    await collect(session, times=2)
    await session.prompt("[[text:two]]")
    events = await collect(session, times=3)
    texts = [text.text for text in contents(events, "text") if text.text != MODE_NOTE]
    assert texts == ["one", "two"], "no history repeated"
    # gemini 0.61 does not always find again what it has kept; that is said, and a new session begins.
    errors = [error.code for error in contents(events, "error")]
    assert errors == [] or (agent == "gemini-acp" and errors == ["not_resumed"])
    assert len({each.provider_session_id for each in contents(events, "init")}) == 1 + len(errors)
    await session.stop()


async def test_an_api_error(client: AsyncAgentClient, start_worker: Start) -> None:
    start_worker()
    session = await client.start("opencode-acp", "[[error:401]]")
    events = await collect(session)
    assert len(contents(events, "cost")) == 1
    await session.prompt("[[text:after]]")
    assert contents(await collect(session, times=2), "text")[-1].text == "after"
    await session.stop()
