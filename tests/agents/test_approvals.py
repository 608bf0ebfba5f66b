"""Claude Code and Codex ask, and somebody answers: through a worker's death too, each with its own resumed session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agentrq import AsyncAgentClient, CommandRejected
from tests.agents import test_codex
from tests.agents.conftest import SETTINGS
from tests.agents.following import PATIENCE_S, collect, first, statuses
from tests.agents.installing import place
from tests.fakes.model_server import ModelServer
from tests.sessions import contents, until
from tests.workers import Worker

pytestmark = pytest.mark.agents
Start = Callable[..., Worker]
FAST = ("--lease-s", "2", "--beat-s", "0.5")
WAIT: dict[str, Any] = {"wait": True, "timeout": 30}


class Agent(NamedTuple):
    """An agent that asks before it runs a command."""

    name: str
    options: dict[str, Any]
    tool: str
    transcripts: str
    """Where it keeps its conversations, below its home."""


AGENTS = [
    Agent("claude", {"permission_mode": "default"}, "Bash", ".claude/projects"),
    Agent("codex", {"approvals": "ask"}, "command_execution", ".codex/sessions"),
]


@pytest.fixture(params=AGENTS, ids=lambda agent: agent.name)
def agent(request: pytest.FixtureRequest) -> Agent:
    found: Agent = request.param
    if not place(found.name).exists():
        pytest.skip(f"{found.name} is not installed: make test-agents AGENTS={found.name}")
    return found


@pytest.fixture
def config(tmp_path: Path, home: Path, model: ModelServer) -> Path:
    path = tmp_path / "agentrq.toml"
    values = {"claude": place("claude"), "codex": place("codex"), "home": home, "model": model.url}
    path.write_text((SETTINGS + test_codex.SETTINGS) % values)
    return path


async def kept(directory: Path, words: str) -> None:
    """Wait until the agent has written these words into its own transcript: what is not there it cannot resume."""
    async with asyncio.timeout(PATIENCE_S):
        while not any(words in path.read_text() for path in directory.rglob("*.jsonl")):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("decision", ["allow", "deny"])
async def test_allow_and_deny(
    client: AsyncAgentClient, start_worker: Start, workspace: Path, agent: Agent, decision: str
) -> None:
    start_worker()
    session = await client.start(agent.name, "[[bash:touch made]]", cwd=str(workspace), **agent.options)
    asked = (await first(session, "approval_request")).content
    assert asked.name == agent.tool
    assert "touch made" in asked.input["command"]
    await until(session, "waiting")
    assert (await session.state()).pending_approvals == 1
    answer = {"decision": decision, "message": "not today", "by": "alice"}
    await session.answer(asked.request_id, answer, **WAIT)
    with pytest.raises(CommandRejected, match=f"answered already: {decision} by alice"):
        await session.answer(asked.request_id, "allow", **WAIT)
    events = await collect(session)
    assert [(one.decision, one.by) for one in contents(events, "approval_resolved")] == [(decision, "alice")]
    assert statuses(events) == ["queued", "starting", "running", "waiting", "running", "idle"]
    assert (workspace / "made").exists() == (decision == "allow")
    assert (await session.state()).pending_approvals == 0
    await session.stop()


async def test_changed_input(client: AsyncAgentClient, start_worker: Start, workspace: Path, agent: Agent) -> None:
    """Claude runs the changed command; Codex has no such answer: refused, and the request stays open."""
    start_worker()
    session = await client.start(agent.name, "[[bash:touch asked]]", cwd=str(workspace), **agent.options)
    asked = (await first(session, "approval_request")).content
    changed = {"decision": "allow", "input": {"command": "touch changed"}}
    if agent.name == "claude":
        await session.answer(asked.request_id, changed, **WAIT)
    else:
        with pytest.raises(CommandRejected, match="takes no changed input"):
            await session.answer(asked.request_id, changed, **WAIT)
        assert (await session.state()).status == "waiting"
        await session.answer(asked.request_id, "allow", **WAIT)
    await collect(session)
    assert [path.name for path in workspace.iterdir()] == ["changed" if agent.name == "claude" else "asked"]
    await session.stop()


async def test_withdrawn(client: AsyncAgentClient, start_worker: Start, workspace: Path, agent: Agent) -> None:
    """The turn is interrupted, and with it goes what was asked in it."""
    start_worker()
    session = await client.start(agent.name, "[[bash:touch never]]", cwd=str(workspace), **agent.options)
    asked = (await first(session, "approval_request")).content
    await session.interrupt(**WAIT)
    events = await collect(session)
    resolved = contents(events, "approval_resolved")
    assert [(one.request_id, one.decision, one.by) for one in resolved] == [(asked.request_id, "withdrawn", "agent")]
    with pytest.raises(CommandRejected, match="withdrawn"):
        await session.answer(asked.request_id, "allow", **WAIT)
    assert not (workspace / "never").exists()
    assert (await session.state()).pending_approvals == 0
    await session.stop()


@pytest.mark.parametrize("answered", ["meanwhile", "asked again"])
@pytest.mark.parametrize("decision", ["allow", "deny"])
async def test_a_request_outlives_its_worker(
    client: AsyncAgentClient, start_worker: Start, workspace: Path, home: Path, agent: Agent, answered: str,
    decision: str,
) -> None:  # fmt: skip
    """Killed while it waits, resumed by another worker: the agent asks the same again, and it is the same request."""
    worker = start_worker(*FAST, "--name", "first")
    options = agent.options | {"on_interrupt": "continue"}
    session = await client.start(agent.name, "[[bash:touch made]]", cwd=str(workspace), **options)
    asked = (await first(session, "approval_request")).content
    waiting = await until(session, "waiting")
    provider_session = (await session.state()).provider_session_id
    await kept(home / agent.transcripts, "touch made")
    worker.kill()
    answer = {"decision": decision, "by": "alice"}
    if answered == "meanwhile":
        await session.answer(asked.request_id, answer)
    start_worker(*FAST, "--name", "second")
    if answered == "asked again":
        recovering = await until(session, "recovering", waiting)
        again = (await first(session, "approval_request", recovering)).content
        assert again.request_id == asked.request_id
        await until(session, "waiting", recovering)
        await session.answer(asked.request_id, answer, **WAIT)
    events = await collect(session)
    resolved = contents(events, "approval_resolved")
    assert {(one.request_id, one.decision, one.by) for one in resolved} >= {(asked.request_id, decision, "alice")}
    assert {(one.decision, one.by) for one in resolved} == {(decision, "alice")}
    assert len(contents(events, "approval_request")) == 2
    assert statuses(events).count("waiting") == (1 if answered == "meanwhile" else 2)
    assert (workspace / "made").exists() == (decision == "allow")
    state = await session.state()
    assert (state.worker, state.pending_approvals) == ("second", 0)
    assert state.provider_session_id == provider_session
    with pytest.raises(CommandRejected, match=f"answered already: {decision} by alice"):
        await session.answer(asked.request_id, "allow", **WAIT)
    await session.stop()
