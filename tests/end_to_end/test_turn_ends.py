"""A turn's end as users see it: on a real worker, with scripted agents that leave, fall silent or ask too late."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Queue
from rq.serializers import JSONSerializer

from agentrq import AsyncAgentClient
from tests.rq_checks import eventually, result_of
from tests.sessions import contents, until
from tests.workers import Worker

Start = Callable[..., Worker]
FAST = ("--lease-s", "2", "--beat-s", "0.5", "--stop-grace-s", "0.3")

CLAUDE = r"""
import json, os, sys
def say(**line): print(json.dumps(line), flush=True)
def init(): say(type="system", subtype="init", session_id="c", model="m", cwd="/", tools=[])
def says(text): say(type="assistant", message={"id": text, "role": "assistant", "content": [{"type": "text", "text": text}]})
def calls(): say(type="assistant", message={"id": "m", "role": "assistant", "content": [{"type": "tool_use", "id": f"t{os.getpid()}", "name": "Bash", "input": {"command": "make"}}]})
def asks(): say(type="control_request", request_id=f"q{os.getpid()}", request={"subtype": "can_use_tool", "tool_name": "Bash", "input": {"command": "make"}, "tool_use_id": f"t{os.getpid()}"})
def ends(): say(type="result", subtype="success", is_error=False, num_turns=1, total_cost_usd=0, duration_ms=1, usage={}, uuid=os.urandom(4).hex())
for line in sys.stdin:
    given = json.loads(line)
    if given["type"] == "control_request":
        if given["request"]["subtype"] == "end_session": sys.exit()
        say(type="control_response", response={"subtype": "success", "request_id": given["request_id"]})
    elif given["type"] == "control_response":
        says("made"); ends()
    else:
        init()
        match given["message"]["content"].split()[0]:
            case "leave": calls(); sys.exit()
            case "late": ends(); says("late")
            case "work": calls()
            case _: calls(); asks()
"""  # fmt: skip # noqa: E501


@pytest.fixture(autouse=True)
def agent(config: Path, tmp_path: Path) -> None:
    """The provider ``agent``; what it does is the first word of its prompt."""
    program = tmp_path / "agent.py"
    program.write_text(CLAUDE)
    with config.open("a") as file:
        file.write(f'[providers.agent]\nprotocol = "claude"\ncommand = ["{sys.executable}", "{program}"]\n')
        file.write(
            '[providers.mute]\nprotocol = "jsonrpc"\nparser = "acp"\ncommand = ["sh", "-c", "cat > /dev/null"]\n'
        )


async def test_a_job_that_depends_on_a_cut_turn_does_not_run(raw: redis.Redis, start_worker: Start) -> None:
    queue = Queue("agentrq", connection=raw, serializer=JSONSerializer)
    build = queue.enqueue("agentrq.start", args=["build", "agent", "leave", {}], job_id="build", job_timeout=-1)
    deploy = ["deploy", "agent", "leave", {}]
    queue.enqueue("agentrq.start", args=deploy, job_id="deploy", job_timeout=-1, depends_on=build)
    start_worker()
    status, error = await result_of(raw, "build")
    assert (status, raw.hget("agentrq:{build}:state", "lastTurn")) == ("failed", b"cut")
    assert "in the middle of a turn" in str(error)
    assert not raw.exists("agentrq:{deploy}:state")


async def test_a_session_whose_only_turn_was_cut_fails_its_job_when_it_idles_out(
    client: AsyncAgentClient, raw: redis.Redis, start_worker: Start
) -> None:
    first = start_worker(*FAST, "--name", "first")
    session = await client.start("agent", "work", idle_timeout_s=0.5)
    await until(session, "running")
    first.kill()
    start_worker(*FAST, "--name", "second")
    state = await session.wait(30)
    assert (state.status, state.last_turn) == ("error", "cut")
    assert (await result_of(raw, session.id))[0] == "failed"


async def test_text_behind_a_turns_end_leaves_the_session_idle_and_usable(
    client: AsyncAgentClient, raw: redis.Redis, start_worker: Start
) -> None:
    start_worker()
    session = await client.start("agent", "late")
    await eventually(lambda: raw.hmget(f"agentrq:{{{session.id}}}:state", "numTurns", "status") == [b"1", b"idle"])
    await session.prompt("late", wait=True, timeout=20)
    await eventually(lambda: raw.hmget(f"agentrq:{{{session.id}}}:state", "numTurns", "status") == [b"2", b"idle"])
    await session.stop()
    events = [event async for event in session.events()]
    assert {text.text for text in contents(events, "text")} == {"late"}


@pytest.mark.parametrize("ends", ["handed over", "killed"])
async def test_an_answer_after_its_worker_has_gone_makes_the_agent_go_on(
    client: AsyncAgentClient, start_worker: Start, ends: str
) -> None:
    first = start_worker(*FAST, "--name", "first")
    session = await client.start("agent", "ask", permission_mode="default")
    place = await until(session, "waiting")
    start_worker(*FAST, "--name", "second")
    if ends == "killed":
        first.kill()
    else:
        first.process.send_signal(signal.SIGTERM)
        first.wait_log("stopping: ")
        first.process.send_signal(signal.SIGTERM)
    place = await until(session, "waiting", place)
    state = await session.state()
    assert (state.worker, state.pending_approvals) == ("second", 1)
    requests = (event async for event in session.messages() if event.type == "approval_request")
    request: Any = (await anext(requests)).content
    await session.answer(request.request_id, "allow", wait=True, timeout=20)
    await until(session, "idle", place)
    state = await session.state()
    assert (state.pending_approvals, state.last_turn) == (0, "whole")
    await session.stop()


async def test_an_agent_that_never_answers_its_handshake_ends_its_session(
    client: AsyncAgentClient, start_worker: Start
) -> None:
    start_worker("--handshake-s", "0.5", "--stop-grace-s", "0.1")
    state = await (await client.start("mute", "hello")).wait(30)
    assert (state.status, state.error) == ("error", "The agent did not answer its handshake within 0.5 s")
