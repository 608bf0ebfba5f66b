"""Providers by settings, by ``runners_dir`` and built in: sessions of small fake agents through a real worker."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentrq import AsyncAgentClient, CommandRejected, Event, Message, StatusEvent
from tests.fakes.model_server import ModelServer
from tests.sessions import contents, until
from tests.workers import Worker

Start = Callable[..., Worker]
FAKES = Path(__file__).parents[1] / "fakes"
TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"
FAST = ("--lease-s", "2", "--beat-s", "0.5")


async def story(session: Any, turns: int = 1) -> list[Event]:
    """The events up to the end of so many turns, or of the session."""
    events: list[Event] = []
    async with asyncio.timeout(30):
        async for event in session.events():
            events.append(event)
            if isinstance(event, StatusEvent) and event.status == "idle":
                turns -= 1
                if not turns:
                    break
    return events


async def first(session: Any, kind: str) -> Any:
    """The first message of a type."""
    async with asyncio.timeout(30):
        async for message in session.messages():
            if message.type == kind:
                return message
    raise AssertionError(f"the session ended without {kind}")


def statuses(events: list[Event]) -> list[str]:
    return [event.status for event in events if isinstance(event, StatusEvent)]


def texts(events: list[Event]) -> list[str]:
    return [content.text for content in contents(events, "text")]


# An ACP agent, by settings alone --------------------------------------------------------------------------------


@pytest.fixture
def acp(config: Path, tmp_path: Path) -> None:
    with config.open("a") as file:
        file.write(f"""
[providers.echo-acp]
protocol = "jsonrpc"
command = ["{sys.executable}", "-S", "{FAKES / "fake_acp_agent.py"}"]
env = {{ FAKE_ACP_HOME = "{tmp_path}" }}
""")


@pytest.mark.usefixtures("acp")
async def test_an_acp_agent_runs_a_session(client: AsyncAgentClient, start_worker: Start, tmp_path: Path) -> None:
    session = await client.start("echo-acp", "one", cwd=str(tmp_path))
    await session.prompt("read")
    await session.prompt("fail")
    start_worker()
    events = await story(session)
    assert [event.type for event in events if isinstance(event, Message)] == [
        *("prompt", "init", "thinking", "text", "cost"),
        *("prompt", "unknown", "text", "cost"),
        *("prompt", "error", "cost"),
    ]
    assert texts(events) == ["You said 'one' after 0 others.", "refused with -32601"]
    assert contents(events, "error")[0].message == "Internal error: no model"
    assert statuses(events) == ["queued", "starting", "running", "idle"]
    state: Any = await session.state()
    assert (state.cost_usd, state.input_tokens, state.num_turns, state.cwd) == (0.5, 20, 3, str(tmp_path))
    assert state.provider_session_id.startswith("acp-")
    await session.stop()
    assert (await session.wait(20)).reason == "stopped"


@pytest.mark.usefixtures("acp")
@pytest.mark.parametrize(("answer", "failed"), [("allow", False), ("deny", True)])
async def test_an_acp_permission_is_asked_and_answered(
    client: AsyncAgentClient, start_worker: Start, answer: str, failed: bool
) -> None:
    start_worker()
    session = await client.start("echo-acp", "ask", permission_mode="default")
    request = (await first(session, "approval_request")).content
    assert (request.name, request.input) == ("execute", {"command": "touch x"})
    assert (await session.state()).status == "waiting"
    await session.answer(request.request_id, answer, wait=True, timeout=20)
    events = await story(session)
    assert statuses(events)[2:] == ["running", "waiting", "running", "idle"]
    assert [resolved.decision for resolved in contents(events, "approval_resolved")] == [answer]
    assert [result.is_error for result in contents(events, "tool_result")] == [failed]
    await session.stop()


@pytest.mark.usefixtures("acp")
async def test_an_acp_turn_can_be_interrupted_but_not_steered(client: AsyncAgentClient, start_worker: Start) -> None:
    start_worker()
    session = await client.start("echo-acp", "wait")
    await first(session, "tool_call")
    with pytest.raises(CommandRejected, match="does not support adding a prompt"):
        await session.prompt("more", "steer", wait=True, timeout=20)
    await session.interrupt(wait=True, timeout=20)
    events = await story(session)
    assert contents(events, "tool_result")[0].is_error
    assert contents(events, "cost")[0].errors == ["The turn ended: cancelled"]
    await session.prompt("after")
    assert texts(await story(session, 2)) == ["You said 'after' after 1 others."]
    await session.stop()


@pytest.mark.usefixtures("acp")
async def test_what_an_acp_agent_says_after_its_turn_leaves_the_session_idle(
    client: AsyncAgentClient, start_worker: Start
) -> None:
    start_worker()
    session = await client.start("echo-acp", "late")
    async with asyncio.timeout(30):
        async for event in session.events():
            if texts([event]) == ["And this came late."]:
                break
    assert (await session.state()).status == "idle"
    await session.prompt("next", wait=True, timeout=20)
    events = await story(session, 2)
    assert texts(events)[-1] == "You said 'next' after 1 others."
    assert statuses(events)[2:] == ["running", "idle", "running", "idle"]
    assert all(cost.duration_ms > 0 for cost in contents(events, "cost"))
    await session.stop()


@pytest.mark.usefixtures("acp")
@pytest.mark.parametrize(
    ("word", "shown", "answer"),
    [("form", "question", {"action": "cancel"}), ("cross", "tool_call", {"outcome": {"outcome": "cancelled"}})],
    ids=["a form that is open", "a permission that crosses the cancel"],
)
async def test_an_interrupt_answers_what_an_acp_agent_asks(
    client: AsyncAgentClient, start_worker: Start, word: str, shown: str, answer: Any
) -> None:
    start_worker()
    session = await client.start("echo-acp", word, permission_mode="default")
    await first(session, shown)
    await session.interrupt(wait=True, timeout=20)
    events = await story(session)
    assert json.loads(texts(events)[-1]) == answer
    assert [resolved.decision for resolved in contents(events, "approval_resolved")] == ["withdrawn"]
    assert (await session.state()).pending_approvals == 0
    await session.prompt("after")
    assert texts(await story(session, 2))[-1] == "You said 'after' after 1 others."
    await session.stop()


@pytest.mark.usefixtures("acp")
async def test_a_mode_that_an_acp_agent_refuses_is_rejected_in_its_words(
    client: AsyncAgentClient, start_worker: Start
) -> None:
    start_worker()
    session = await client.start("echo-acp", "hi", permission_mode="default")
    await until(session, "idle")
    with pytest.raises(CommandRejected, match="this mode is forbidden here"):
        await session.set_permission_mode("forbidden", wait=True, timeout=20)
    await session.set_permission_mode("yolo", wait=True, timeout=20)
    await session.stop()


async def test_an_agent_that_does_not_answer_the_handshake_ends_in_error(
    client: AsyncAgentClient, start_worker: Start, config: Path
) -> None:
    with config.open("a") as file:
        file.write(f"""
[providers.mute-acp]
protocol = "jsonrpc"
command = ["{sys.executable}", "-S", "{FAKES / "fake_acp_agent.py"}"]
env = {{ FAKE_ACP_HOME = "/", FAKE_ACP_MUTE = "1" }}
""")
    start_worker("--handshake-s", "1")
    state = await (await client.start("mute-acp", "hi")).wait(30)
    assert (state.status, state.reason) == ("error", "failed")
    assert "handshake" in str(state.error)


@pytest.mark.usefixtures("acp")
async def test_an_acp_session_is_resumed_by_another_worker(client: AsyncAgentClient, start_worker: Start) -> None:
    worker = start_worker(*FAST)
    session = await client.start("echo-acp", "one")
    await until(session, "idle")
    worker.kill()
    start_worker(*FAST)
    await until(session, "idle", (await story(session))[-1].cursor)
    await session.prompt("two")
    events = await story(session, 3)
    assert texts(events) == ["You said 'one' after 0 others.", "You said 'two' after 1 others."], "no history repeated"
    assert (await session.state()).cost_usd == 0.5
    await session.stop()


# Codex, built in ------------------------------------------------------------------------------------------------


@pytest.fixture
def path_with_codex(tmp_path: Path) -> str:
    program = tmp_path / "bin" / "codex"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {FAKES / "fake_codex.py"} "$@"\n')
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


async def test_codex_is_found_on_path(client: AsyncAgentClient, start_worker: Start, path_with_codex: str) -> None:
    session = await client.start("codex", "one", config_dir="/srv/codex")
    await session.prompt("wait")
    start_worker(PATH=path_with_codex)
    await first(session, "tool_call")
    await session.prompt("faster", "steer", wait=True, timeout=20)
    events = await story(session)
    assert texts(events) == ["You said 'one'; home /srv/codex, policy never.", "steered by 'faster'"]
    await session.prompt("wait")
    async with asyncio.timeout(30):
        async for message in session.messages():
            content: Any = message.content
            if message.type == "tool_call" and content.tool_use_id == "c3":
                break
    await session.interrupt(wait=True, timeout=20)
    events = await story(session, 2)
    assert [cost.input_tokens for cost in contents(events, "cost")] == [100, 100, 100]
    assert [cost.is_error for cost in contents(events, "cost")] == [False, False, True]
    assert (await session.state()).input_tokens == 300
    await session.stop()
    assert (await session.wait(20)).status == "done"


async def test_a_codex_approval_by_policy(client: AsyncAgentClient, start_worker: Start, path_with_codex: str) -> None:
    start_worker(PATH=path_with_codex)
    rules = {"default": "allow", "rules": [{"tool": "command_execution", "command": "rm *", "decision": "deny"}]}
    session = await client.start("codex", "ask", approvals=rules)
    events = await story(session)
    assert texts(events) == ["decision decline"]
    assert [(found.decision, found.by) for found in contents(events, "approval_resolved")] == [("deny", "policy")]
    await session.stop()


async def test_a_missing_codex_is_one_line_with_the_remedy(
    client: AsyncAgentClient, start_worker: Start, tmp_path: Path
) -> None:
    start_worker(PATH=str(tmp_path))
    state: Any = await (await client.start("codex", "hi")).wait(30)
    assert state.status == "error"
    assert state.error == "Codex CLI not found. Install it first: npm install -g @openai/codex"


# Runners --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (shutil.which("deno") or shutil.which("node")), reason="neither deno nor node is here")
async def test_a_javascript_runner_runs_unchanged(
    client: AsyncAgentClient, start_worker: Start, tmp_path: Path
) -> None:
    runners = tmp_path / "runners"
    runners.mkdir()
    shutil.copy(FAKES / "greeter-runner.mjs", runners)
    session = await client.start("greeter", "world", model="m", system_prompt="kind", cwd=str(tmp_path))
    await session.prompt("moon")
    start_worker("--runners-dir", str(runners))
    events = await story(session)
    assert texts(events) == ["Hello world 👋 (kind, turn 1)", "Hello moon 👋 (kind, turn 2)"]
    assert [error.code for error in contents(events, "error")] == ["invalid_json"] * 2
    assert [cost.total_cost_usd for cost in contents(events, "cost")] == [0.5, 0.5]
    state: Any = await session.state()
    assert (state.provider_session_id, state.cwd, state.model) == ("js-1", str(tmp_path), "m")
    await session.stop()
    assert (await session.wait(20)).reason == "stopped"


async def test_the_ollama_runner_runs_a_session(
    client: AsyncAgentClient, start_worker: Start, config: Path, tmp_path: Path
) -> None:
    with ModelServer() as model:
        with config.open("a") as file:
            file.write(f"""
[providers.ollama]
env = {{ OLLAMA_HOST = "{model.url}", XDG_STATE_HOME = "{tmp_path}" }}
options = {{ model = "m" }}
""")
        session = await client.start("ollama", "[[think:hm]]")
        await session.prompt("[[text:two]]")
        await session.prompt("[[error:500]]")
        start_worker()
        events = await story(session)
        assert [event.type for event in events if isinstance(event, Message)] == [
            *("prompt", "init", "thinking", "text", "cost"),
            *("prompt", "text", "cost"),
            *("prompt", "error", "cost"),
        ]
        state: Any = await session.state()
        assert (state.model, state.num_turns, state.provider_session_id) == ("m", 3, session.id)
        with pytest.raises(CommandRejected, match="idle"):
            await session.interrupt(wait=True, timeout=20)
        await session.prompt("[[hold:never]]")
        model.wait_request("hold:never")
        await session.stop()
        assert (await session.wait(20)).reason == "stopped"


async def test_ollama_without_a_server_is_one_line(client: AsyncAgentClient, start_worker: Start, config: Path) -> None:
    with ModelServer() as model:
        gone = model.url
    with config.open("a") as file:
        file.write(f'[providers.ollama]\nenv = {{ OLLAMA_HOST = "{gone}" }}\npublic_env = ["OLLAMA_HOST"]\n')
    start_worker()
    state: Any = await (await client.start("ollama", "hi", model="m")).wait(30)
    assert state.status == "error"
    assert state.error.startswith(f"Ollama is not reachable at {gone}: Connection refused")


async def test_the_aider_runner_runs_a_session(
    client: AsyncAgentClient, start_worker: Start, config: Path, tmp_path: Path
) -> None:
    program = tmp_path / "bin" / "aider"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {FAKES / "fake_aider.py"} "$@"\n')
    program.chmod(0o755)
    with config.open("a") as file:
        file.write(f"""
[providers.aider]
env = {{ XDG_STATE_HOME = "{tmp_path}", FAKE_AIDER_PIDS = "{tmp_path / "pids"}" }}
""")
    start_worker(PATH=f"{program.parent}:{os.environ['PATH']}")
    session = await client.start("aider", "add a function", model="gpt-5", cwd=str(tmp_path))
    events = await story(session)
    assert "You said 'add a function' after 0 others" in texts(events)[0]
    assert [call.input for call in contents(events, "tool_call")] == [{"path": "hello.py"}]
    assert (await session.state()).cost_usd == 0.0123
    await session.prompt("sleep")
    async with asyncio.timeout(30):
        async for event in session.events(events[-1].cursor):
            if isinstance(event, Message) and event.type == "status" and "Main model" in str(event.content):
                break
    await session.stop()
    assert (await session.wait(20)).reason == "stopped"


@pytest.mark.parametrize("name", ["gemini-steps3", "opencode-steps3", "codexapp-turns", "claudeacp-turns"])
async def test_the_replay_runner_plays_recordings(client: AsyncAgentClient, start_worker: Start, name: str) -> None:
    start_worker()
    session = await client.start("replay", f"{name}.ndjson --speed 0", cwd=str(TRANSCRIPTS))
    turns = {"codexapp-turns": 4, "claudeacp-turns": 5}.get(name, 1)
    async with asyncio.timeout(30):
        async for message in session.messages():
            if message.type == "cost" and (turns := turns - 1) == 0:
                break
    state: Any = await session.state()
    assert state.num_turns == {"codexapp-turns": 4, "claudeacp-turns": 5}.get(name, 1)
    await session.stop()
    await session.wait(20)


# The demo, which asks like any agent ----------------------------------------------------------------------------


async def test_the_demo_asks_for_real_and_does_what_was_answered(
    client: AsyncAgentClient, start_worker: Start, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text("secret\n")
    start_worker()
    session = await client.start("demo", "look", cwd=str(tmp_path), permission_mode="default")
    approval = (await first(session, "approval_request")).content
    assert (approval.name, approval.input["file_path"]) == ("Read", str(tmp_path / "README.md"))
    await session.answer(approval.request_id, "deny")
    question = (await first(session, "question")).content
    await session.answer(question.request_id, {"colour": "green"})
    events = await story(session)
    assert [(resolved.decision, resolved.by) for resolved in contents(events, "approval_resolved")] == [
        ("deny", "client"), ("answer", "client"),
    ]  # fmt: skip
    assert "You chose green." in texts(events)[-1]
    assert not any("secret" in str(result.output) for result in contents(events, "tool_result"))


async def test_an_interrupt_reaches_a_runner_that_accepts_it(client: AsyncAgentClient, start_worker: Start) -> None:
    start_worker()
    session = await client.start("demo", "/sleep 600")
    await first(session, "text")
    await session.interrupt()
    events = await story(session)
    assert [cost.errors for cost in contents(events, "cost")] == [["Interrupted by the user"]]
