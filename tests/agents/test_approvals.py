"""Claude Code and Codex ask, and somebody answers: through a worker's death too, each with its own resumed session."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agentrq import AsyncAgentClient, CommandRejected
from tests.agents.codex_provider import CODEX_SETTINGS
from tests.agents.conftest import SETTINGS
from tests.agents.following import PATIENCE_S, collect, first, statuses
from tests.agents.installing import place
from tests.fakes.model_server import ModelServer
from tests.rq_checks import eventually
from tests.sessions import contents, until
from tests.workers import Worker

ASKER = Path(__file__).parents[1] / "fakes" / "fake_mcp_server.py"
HOOK = {
    "hookEventName": "PreToolUse",
    "permissionDecision": "ask",
    "permissionDecisionReason": "the hook wants to know",
}
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
    path.write_text((SETTINGS + CODEX_SETTINGS) % values)
    return path


async def kept(directory: Path, words: str) -> None:
    """Wait until the agent has written these words into its own transcript: what is not there it cannot resume."""
    async with asyncio.timeout(PATIENCE_S):
        await eventually(lambda: any(words in path.read_text() for path in directory.rglob("*.jsonl")))


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
        with pytest.raises(CommandRejected, match="does not support changing the input"):
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
    assert [(one.request_id, one.decision, one.by) for one in resolved] == [(asked.request_id, "withdrawn", "client")]
    with pytest.raises(CommandRejected, match="withdrawn"):
        await session.answer(asked.request_id, "allow", **WAIT)
    assert not (workspace / "never").exists()
    assert (await session.state()).pending_approvals == 0
    await session.stop()


async def test_a_policy_by_command(
    client: AsyncAgentClient, start_worker: Start, workspace: Path, agent: Agent
) -> None:
    """The same rules for both, though Codex shows the shell that runs a command; nobody is asked."""
    start_worker()
    rules = [
        {"command": "touch no*", "decision": "deny"},
        {"path": "/etc/*", "decision": "deny"},
        {"command": "touch *", "decision": "allow"},
    ]
    prompt = "[[bash:touch yes]] [[bash:touch no]]"
    options = agent.options | {"approvals": {"rules": rules}}
    session = await client.start(agent.name, prompt, cwd=str(workspace), **options)
    events = await collect(session)
    resolved = contents(events, "approval_resolved")
    assert [(one.decision, one.by) for one in resolved] == [("allow", "policy"), ("deny", "policy")]
    assert [path.name for path in workspace.iterdir()] == ["yes"]
    await session.stop()


async def test_a_deadline(client: AsyncAgentClient, start_worker: Start, workspace: Path, agent: Agent) -> None:
    start_worker()
    options = agent.options | {"approvals": {"deadlineS": 0.5}}
    session = await client.start(agent.name, "[[bash:touch never]]", cwd=str(workspace), **options)
    events = await collect(session)
    assert [(one.decision, one.by) for one in contents(events, "approval_resolved")] == [("deny", "deadline")]
    assert "waiting" in statuses(events)
    assert not list(workspace.iterdir())
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


@pytest.mark.parametrize(
    ("answer", "came"),
    [
        ({"answers": {"0": {"colour": "Red"}}}, {"action": "accept", "content": {"colour": "Red"}}),
        ("Blue", {"action": "accept", "content": {"colour": "Blue"}}),
        ("deny", {"action": "decline"}),
    ],
)
async def test_an_elicitation(
    client: AsyncAgentClient, start_worker: Start, home: Path, workspace: Path, agent: Agent, answer: Any,
    came: dict[str, Any],
) -> None:  # fmt: skip
    """A tool of an MCP server has to be allowed, then asks for a form; Codex puts both in the same kind of request."""
    _mcp_server(home)
    start_worker()
    options = agent.options | {"approvals": {"rules": [{"tool": "mcp__asker__ask", "decision": "allow"}]}}
    session = await client.start(agent.name, "[[mcp:asker.ask]]", cwd=str(workspace), **options)
    asked = (await first(session, "question")).content
    (question,) = asked.questions
    assert (question["header"], question["question"]) == ("asker", "Which colour?")
    assert list(question["requestedSchema"]["properties"]) == ["colour"]
    await session.answer(asked.request_id, answer, **WAIT)
    events = await collect(session)
    (allowed,) = contents(events, "approval_request")
    assert (allowed.name, allowed.input) == ("mcp__asker__ask", {})
    resolved = [(one.decision, one.by) for one in contents(events, "approval_resolved")]
    assert resolved == [("allow", "policy"), ("deny" if answer == "deny" else "answer", "client")]
    (result,) = contents(events, "tool_result")
    output = result.output["content"] if isinstance(result.output, dict) else result.output
    said = json.loads(output[0]["text"])
    assert {name: value for name, value in said.items() if value is not None} == came
    await session.stop()


def _mcp_server(home: Path) -> None:
    """Both agents know the server ``asker``."""
    command = {"command": sys.executable, "args": ["-S", str(ASKER)]}
    (home / ".claude.json").write_text(json.dumps({"mcpServers": {"asker": command}}))
    (home / ".codex").mkdir()
    text = f'[mcp_servers.asker]\ncommand = "{sys.executable}"\nargs = ["-S", "{ASKER}"]\n'
    (home / ".codex" / "config.toml").write_text(text)


@pytest.mark.parametrize("decision", ["allow", "deny"])
async def test_a_hook_of_claudes_that_asks(
    client: AsyncAgentClient, start_worker: Start, home: Path, workspace: Path, decision: str
) -> None:
    """Even where every permission is bypassed."""
    hook = {"type": "command", "command": f"echo '{json.dumps({'hookSpecificOutput': HOOK})}'"}
    (home / ".claude").mkdir()
    settings = {"hooks": {"PreToolUse": [{"matcher": "Bash", "hooks": [hook]}]}}
    (home / ".claude" / "settings.json").write_text(json.dumps(settings))
    start_worker()
    session = await client.start("claude", "[[bash:touch made]]", cwd=str(workspace))
    asked = (await first(session, "approval_request")).content
    assert asked.input["command"] == "touch made"
    await session.answer(asked.request_id, decision, **WAIT)
    await collect(session)
    assert (workspace / "made").exists() == (decision == "allow")
    await session.stop()


@pytest.mark.skipif(not place("codex").exists(), reason="codex is not installed: make test-agents AGENTS=codex")
async def test_codex_asks_for_user_input(
    client: AsyncAgentClient, start_worker: Start, model: ModelServer, config: Path
) -> None:
    """Its tool for that is behind a switch, outside of its plan mode."""
    switch = '"-c", "features.default_mode_request_user_input=true"'
    config.write_text(config.read_text().replace('"app-server"', f'"app-server", {switch}'))
    start_worker()
    session = await client.start("codex", "[[ask:Which?]]")
    asked = (await first(session, "question")).content
    assert [(one["id"], one["question"]) for one in asked.questions] == [("colour", "Which?")]
    assert [option["label"] for option in asked.questions[0]["options"]] == ["Red", "Blue"]
    with pytest.raises(CommandRejected, match="from its ids"):
        await session.answer(asked.request_id, {"answers": {"size": "3"}}, **WAIT)
    await session.answer(asked.request_id, {"answers": {"colour": "Blue"}}, **WAIT)
    events = await collect(session)
    assert statuses(events) == ["queued", "starting", "running", "waiting", "running", "idle"]
    assert model.requests[-1].body["input"][-1]["output"] == '{"answers":{"colour":{"answers":["Blue"]}}}'
    await session.stop()
