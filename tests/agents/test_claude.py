"""Claude Code itself, pinned, through a real worker, against the scripted model: what people do with a session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentrq import AsyncAgentClient, CommandRejected, Message
from tests.agents.following import collect, first, statuses, story
from tests.fakes.model_server import ModelServer
from tests.sessions import contents, until
from tests.workers import Worker

pytestmark = pytest.mark.agents
Start = Callable[..., Worker]
FAST = ("--lease-s", "2", "--beat-s", "0.5")
WAIT: dict[str, Any] = {"wait": True, "timeout": 30}


def running(words: str) -> list[psutil.Process]:
    """The processes whose command line has these words."""
    return [process for process in psutil.process_iter(["cmdline"]) if words in " ".join(process.info["cmdline"] or ())]


async def test_a_tool_call(client: AsyncAgentClient, start_worker: Start, workspace: Path) -> None:
    start_worker()
    prompt = f"[[think:Hm, a file.]] [[bash:echo made > made.txt; cat made.txt]] [[write:{workspace}/other.txt=hello]]"
    session = await client.start("claude", prompt, cwd=str(workspace))
    # A thought comes with the text that follows it, which ends the turn: the next prompt goes on.
    assert story(await collect(session))[1:] == [
        ("init", None),
        ("thinking", "Hm, a file."),
        ("text", "Thought about it."),
        ("cost", "Thought about it."),
    ]
    await session.prompt(prompt.partition(" ")[2].partition("]] ")[2])
    events = await collect(session, times=2)
    assert story(events)[6:] == [
        ("tool_call", "Bash"),
        ("tool_result", "made"),
        ("tool_call", "Write"),
        ("tool_result", contents(events, "tool_result")[1].output),
        ("text", "Done."),
        ("cost", "Done."),
    ]
    assert (workspace / "other.txt").read_text() == "hello"
    assert statuses(events) == ["queued", "starting", "running", "idle", "running", "idle"]
    calls, results = contents(events, "tool_call"), contents(events, "tool_result")
    assert [call.tool_use_id for call in calls] == [result.tool_use_id for result in results]
    assert [result.is_error for result in results] == [False, False]
    begun = contents(events, "init")
    assert [(each.cwd, "Bash" in each.tools) for each in begun] == [(str(workspace), True)]
    state = await session.state()
    assert (state.provider_session_id, state.model) == (begun[0].provider_session_id, begun[0].model)
    # Each of the four requests to the model has cost the same; nothing is counted twice.
    costs = contents(events, "cost")
    assert [cost.input_tokens for cost in costs] == [100, 300]
    assert costs[1].total_cost_usd == pytest.approx(3 * costs[0].total_cost_usd)
    assert state.input_tokens == 400
    assert state.cost_usd == pytest.approx(4 * costs[0].total_cost_usd)
    await session.stop()
    assert (await session.wait(30)).reason == "stopped"


async def test_deltas_and_prompts_while_busy(client: AsyncAgentClient, start_worker: Start, model: ModelServer) -> None:
    start_worker()
    session = await client.start("claude", "[[hold:first]]")
    live: list[Message] = []

    async def follow() -> None:
        async for message in session.messages(deltas=True):
            live.append(message)
            if len([each for each in live if each.type == "cost"]) == 4:
                return

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(follow())
        await first(session, "text_delta", deltas=True)
        ids = [await session.prompt(f"[[text:number {number}]]") for number in range(3)]
        model.release("first")
    # The reader began before the model spoke, so that it saw all pieces of all texts.
    pieces: dict[str, str] = {}
    for message in live:
        content: Any = message.content
        if message.type == "text_delta":
            assert content.offset == len(pieces.get(content.block_id, ""))
            pieces[content.block_id] = pieces.get(content.block_id, "") + content.text
    texts = contents(live, "text")
    assert [text.text for text in texts] == ["Held and released.", "number 0", "number 1", "number 2"]
    assert {text.block_id: text.text for text in texts} == pieces
    assert [prompt.command_id for prompt in contents(live, "prompt")] == [session.id, *ids]
    await until(session, "idle")
    await session.stop()


async def test_steer_joins_the_turn(client: AsyncAgentClient, start_worker: Start, workspace: Path) -> None:
    start_worker()
    wait = "[[bash:until test -e go; do sleep 0.05; done; sleep 1; echo waited]]"
    session = await client.start("claude", f"{wait} [[text:not steered]]", cwd=str(workspace))
    await first(session, "tool_call")
    await session.prompt("[[text:steered]]", "steer", **WAIT)
    (workspace / "go").touch()
    events = await collect(session)
    assert [text.text for text in contents(events, "text")] == ["steered"]
    assert contents(events, "tool_result")[0].output == "waited"
    assert len(contents(events, "cost")) == 1
    await session.stop()


async def test_steer_after_the_last_step_is_a_turn_of_its_own(
    client: AsyncAgentClient, start_worker: Start, model: ModelServer
) -> None:
    start_worker()
    session = await client.start("claude", "[[hold:last]]")
    await first(session, "text_delta", deltas=True)
    await session.prompt("[[text:steered]]", "steer", **WAIT)
    await session.prompt("[[text:queued]]")
    model.release("last")
    async with asyncio.timeout(60):
        async for message in session.messages():
            if message.type == "text" and contents([message], "text")[0].text == "queued":
                break
    await until(session, "idle", message.cursor)
    # The CLI makes one turn of the steered and the queued prompt or two: none is lost, and it ends idle.
    assert "[[text:steered]]" in str(model.requests[-1].body["messages"])
    await session.stop()


@pytest.mark.parametrize("work", ["[[bash:sleep 61.7]]", "[[endless]]"])
async def test_interrupt(client: AsyncAgentClient, start_worker: Start, work: str) -> None:
    start_worker()
    session = await client.start("claude", work)
    await first(session, "text_delta" if "endless" in work else "tool_call", deltas=True)
    await session.interrupt(**WAIT)
    idle = await until(session, "idle")
    cost = contents(await collect(session), "cost")[0]
    assert cost.is_error
    assert [result.is_error for result in contents(await collect(session), "tool_result")] == [True][: "bash" in work]
    assert not running("sleep 61.7")
    await session.prompt("[[text:still here]]")
    await until(session, "idle", idle)
    assert contents(await collect(session, times=2), "text")[-1].text == "still here"
    await session.stop()


async def test_interrupt_before_the_turn_has_begun(client: AsyncAgentClient, start_worker: Start) -> None:
    start_worker()
    session = await client.start("claude", "[[text:one]]")
    await collect(session)
    await session.prompt("[[hold:never]]", wait=True, timeout=30)
    await session.interrupt(**WAIT)
    events = await collect(session, times=2)  # the model is never released: nothing else can end the turn
    assert contents(events, "cost")[-1].is_error
    await session.stop()


async def test_a_prompt_that_interrupts(client: AsyncAgentClient, start_worker: Start) -> None:
    start_worker()
    session = await client.start("claude", "[[bash:sleep 62.7]]")
    await first(session, "tool_call")
    await session.prompt("[[text:something else]]", "interrupt", **WAIT)
    assert story(await collect(session))[-2:] == [("text", "something else"), ("cost", "something else")]
    await session.stop()


@pytest.mark.parametrize("work", ["[[bash:sleep 63.7]]", "[[bg:sleep 63.7]] [[hold:never]]"])
async def test_stop_in_mid_tool(client: AsyncAgentClient, start_worker: Start, work: str) -> None:
    start_worker()
    session = await client.start("claude", work)
    await first(session, "tool_call" if "bash" in work else "text_delta", deltas=True)
    await session.stop()
    state = await session.wait(30)
    # It ended by itself, not by the ladder's signals.
    assert (state.status, state.reason) == ("done", "stopped")
    assert state.exit_code in (0, 1)
    events = await collect(session, "done")
    assert len(contents(events, "tool_call")) == len(contents(events, "tool_result")) == 1
    assert not running("sleep 63.7")


async def test_resume_after_its_worker_was_killed(
    client: AsyncAgentClient, start_worker: Start, model: ModelServer
) -> None:
    first_worker = start_worker(*FAST, "--name", "first")
    session = await client.start("claude", "[[text:before]]")
    await collect(session)
    await session.prompt("[[bash:sleep 64.7]]")
    await first(session, "tool_call")
    provider_session = (await session.state()).provider_session_id
    first_worker.kill()
    start_worker(*FAST, "--name", "second")
    recovering = await until(session, "recovering")
    idle = await until(session, "idle", recovering)
    assert not running("sleep 64.7")
    await session.prompt("[[text:after]]")
    await until(session, "idle", idle)
    events = await collect(session, times=3)
    assert [text.text for text in contents(events, "text")] == ["before", "after"]  # no history twice
    assert [result.is_error for result in contents(events, "tool_result")] == [True]
    assert {begun.provider_session_id for begun in contents(events, "init")} == {provider_session}
    # What claude had not written to its transcript yet, some tenths of a second, it does not know.
    assert "before" in str(model.requests[-1].body["messages"])
    # Two answers before the kill (one of them in the turn that was cut, without a result), one after.
    state, costs = await session.state(), contents(events, "cost")
    assert (state.input_tokens, len(costs)) == (200, 2)
    assert state.cost_usd == pytest.approx(costs[0].total_cost_usd + costs[1].total_cost_usd)
    await session.stop()


async def test_a_conversation_that_is_not_there(client: AsyncAgentClient, start_worker: Start) -> None:
    start_worker()
    missing = "00000000-0000-4000-8000-000000000000"
    state = await (await client.start("claude", "[[text:x]]", resume=missing)).wait(60)
    assert (state.status, state.error) == ("error", f"No conversation found with session ID: {missing}")


@pytest.mark.parametrize(
    ("status", "code"), [(400, "unknown"), (401, "authentication_failed"), (500, "server_error"), (529, "server_error")]
)
async def test_api_errors(client: AsyncAgentClient, start_worker: Start, status: int, code: str) -> None:
    start_worker()
    session = await client.start("claude", f"[[error:{status}]]")
    events = await collect(session)
    error = contents(events, "error")[0]
    assert error.code == code
    cost = contents(events, "cost")[0]
    assert (cost.is_error, cost.result) == (True, error.message)
    retries = [content.message for content in contents(events, "status") if content.subtype == "api_retry"]
    assert len(retries) == (0 if status == 400 else 2)
    await session.prompt("[[text:and yet]]")
    assert contents(await collect(session, times=2), "text")[-1].text == "and yet"
    await session.stop()


@pytest.mark.parametrize("status", [429, 529])
async def test_an_api_that_recovers(client: AsyncAgentClient, start_worker: Start, status: int) -> None:
    start_worker()
    session = await client.start("claude", f"[[error:{status}*2]] [[text:in the end]]")
    events = await collect(session)
    assert [text.text for text in contents(events, "text")] == ["in the end"]
    assert not contents(events, "cost")[0].is_error
    retries = [content.message for content in contents(events, "status") if content.subtype == "api_retry"]
    assert [f"({status}): retry {number} of 2" in text for number, text in enumerate(retries, 1)] == [True, True]
    await session.stop()


@pytest.mark.parametrize(
    ("answer", "output", "made"),
    [
        ("allow", "ran", ["asked"]),
        ("deny", "The user denied this.", []),
        ({"decision": "deny", "message": "not today"}, "not today", []),
        ({"decision": "allow", "input": {"command": "touch changed; echo ran"}}, "ran", ["changed"]),
        ({"behavior": "allow", "updatedInput": {"command": "touch changed; echo ran"}}, "ran", ["changed"]),
    ],
)
async def test_approvals(
    client: AsyncAgentClient, start_worker: Start, workspace: Path, answer: Any, output: str, made: list[str]
) -> None:
    start_worker()
    prompt = "[[bash:touch asked; echo ran]]"
    session = await client.start("claude", prompt, cwd=str(workspace), permission_mode="default")
    asked = (await first(session, "approval_request")).content
    assert asked.name == "Bash"
    assert asked.input["command"] == "touch asked; echo ran"
    await until(session, "waiting")
    with pytest.raises(CommandRejected, match='"allow" or "deny"'):
        await session.answer(asked.request_id, "perhaps", **WAIT)
    await session.answer(asked.request_id, answer, **WAIT)
    events = await collect(session)
    assert contents(events, "tool_result")[0].output == output
    assert sorted(path.name for path in workspace.iterdir()) == made
    assert [resolved.by for resolved in contents(events, "approval_resolved")] == ["client"]
    assert statuses(events)[2:] == ["running", "waiting", "running", "idle"]
    await session.stop()


async def test_an_approval_for_good(client: AsyncAgentClient, start_worker: Start, workspace: Path) -> None:
    start_worker()
    prompt = "[[bash:touch one]] [[bash:touch one]]"
    session = await client.start("claude", prompt, cwd=str(workspace), permission_mode="default")
    asked = (await first(session, "approval_request")).content
    await session.answer(asked.request_id, {"decision": "allow", "always": True}, **WAIT)
    events = await collect(session)
    assert len(contents(events, "tool_result")) == 2
    assert len(contents(events, "approval_request")) == 1
    await session.stop()


async def test_a_policy_is_asked_even_where_all_is_bypassed(
    client: AsyncAgentClient, start_worker: Start, workspace: Path, config: Path
) -> None:
    policy = '{ default = "allow", rules = [{ command = "touch no*", decision = "deny" }] }'
    config.write_text(f"approvals = {policy}\n{config.read_text()}")
    start_worker()
    prompt = "[[bash:touch yes]] [[bash:touch no]]"
    session = await client.start("claude", prompt, cwd=str(workspace), permission_mode="bypassPermissions")
    events = await collect(session)
    decided = [(resolved.decision, resolved.by) for resolved in contents(events, "approval_resolved")]
    assert decided == [("allow", "policy"), ("deny", "policy")]
    assert [path.name for path in workspace.iterdir()] == ["yes"]
    with pytest.raises(CommandRejected, match="policy"):
        await session.set_permission_mode("bypassPermissions", **WAIT)
    await session.stop()


async def test_an_interrupt_withdraws_a_request(client: AsyncAgentClient, start_worker: Start) -> None:
    start_worker()
    session = await client.start("claude", "[[bash:touch never]]", permission_mode="default")
    asked = (await first(session, "approval_request")).content
    await session.interrupt(**WAIT)
    events = await collect(session)
    resolved = contents(events, "approval_resolved")
    assert [(one.request_id, one.decision, one.by) for one in resolved] == [(asked.request_id, "withdrawn", "client")]
    with pytest.raises(CommandRejected):
        await session.answer(asked.request_id, "allow", **WAIT)
    await session.stop()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"answers": {"0": "Blue"}}, '"Which?"="Blue"'),
        ("Red", '"Which?"="Red"'),
        ("allow", "did not answer"),
        ("deny", "denied"),
    ],
)
async def test_a_question(client: AsyncAgentClient, start_worker: Start, answer: Any, words: str) -> None:
    start_worker()
    session = await client.start("claude", "[[ask:Which?]]")
    asked = (await first(session, "question")).content
    assert (asked.questions[0]["id"], asked.questions[0]["question"]) == ("0", "Which?")
    await session.answer(asked.request_id, answer, **WAIT)
    assert words in contents(await collect(session), "tool_result")[0].output
    await session.stop()


async def test_huge_output(client: AsyncAgentClient, start_worker: Start) -> None:
    start_worker()
    session = await client.start("claude", "[[huge:3000000]]")
    events = await collect(session)
    assert [len(text.text) for text in contents(events, "text")] == [3_000_000]
    await session.prompt("[[bash:yes | head -c 5000000]]")
    events = await collect(session, times=2)
    assert contents(events, "tool_result")[0].output  # what claude has cut it to
    assert not contents(events, "error")
    await session.stop()


async def test_background_tasks_and_sub_agents(client: AsyncAgentClient, start_worker: Start, workspace: Path) -> None:
    start_worker()
    prompt = "[[bg:until test -e go; do sleep 0.05; done]] [[text:meanwhile]]"
    session = await client.start("claude", prompt, cwd=str(workspace))
    await collect(session)
    (workspace / "go").touch()
    events = await collect(session, times=2)  # its end brings a turn that nobody asked for
    assert [text.text for text in contents(events, "text")] == ["meanwhile", "Done."]
    assert statuses(events)[-3:] == ["idle", "running", "idle"]
    await session.prompt("[[agent:[nothing scripted] ]] [[text:sent]]")
    async with asyncio.timeout(60):
        async for message in session.messages():
            if message.type == "text" and message.parent_id is not None:
                break
    call = contents(await collect(session, times=3), "tool_call")[-1]
    assert message.parent_id == call.tool_use_id
    await session.stop()


async def test_options(client: AsyncAgentClient, start_worker: Start, workspace: Path, model: ModelServer) -> None:
    await _git(workspace)
    start_worker()
    session = await client.start(
        "claude", "[[bash:pwd]] [[text:here]]", cwd=str(workspace), model="claude-sonnet-4-5", max_turns=9,
        system_prompt="- Speak like a pirate.\n--and only so", additional_directories=["/usr", "/opt"],
        permission_mode="acceptEdits", max_budget_usd=5.0, worktree_name="feature",
    )  # fmt: skip
    await until(session, "running")
    events = await collect(session)
    begun = contents(events, "init")[0]
    assert (begun.model, begun.cwd) == ("claude-sonnet-4-5", str(workspace / ".claude/worktrees/feature"))
    body = model.requests[0].body
    assert body["model"] == "claude-sonnet-4-5"
    assert any("- Speak like a pirate.\n--and only so" in part["text"] for part in body["system"])
    await session.set_model("claude-haiku-4-5", **WAIT)
    await session.set_permission_mode("plan", **WAIT)
    await session.prompt("[[text:again]]")
    events = await collect(session, times=2)
    assert model.requests[-1].body["model"] == "claude-haiku-4-5"
    changed = [content.message for content in contents(events, "status") if content.subtype == "init"]
    assert changed == ["model claude-haiku-4-5, permission mode plan"]
    await session.stop()


async def _git(directory: Path) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), (*identity, "commit", "-q", "--allow-empty", "-m", "x")):
        process = await asyncio.create_subprocess_exec("git", *words, cwd=directory)
        assert await process.wait() == 0
