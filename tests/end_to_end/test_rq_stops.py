"""RQ's own stop, wherever a session stands: carried out, or refused; never taken and forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from rq.command import send_stop_job_command
from rq.exceptions import InvalidJobOperation
from rq.serializers import JSONSerializer

from agentrq import AsyncAgentClient
from tests.fakes.probe_provider import PROBE
from tests.rq_checks import eventually, result_of, stuck
from tests.sessions import contents, until
from tests.workers import Worker

Start = Callable[..., Worker]
FAST = ("--lease-s", "2", "--beat-s", "0.5", "--stop-grace-s", "0.3")


async def test_rqs_stop_command_ends_the_session(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, config: Path
) -> None:
    with config.open("a") as file:
        file.write('[providers.silent]\ncommand = ["sh", "-c", "cat > /dev/null"]\n')
    silent, idle = await client.start("silent", "x"), await client.start("demo", "/echo hi")

    def refused() -> bool:
        with pytest.raises(InvalidJobOperation, match="not currently executing"):
            send_stop_job_command(raw, idle.id, serializer=JSONSerializer)
        return True

    assert refused()  # queued
    first = start_worker(*FAST, "--name", "first")
    await until(silent, "starting")
    await eventually(lambda: raw.hget(f"rq:job:{silent.id}", "worker_name") == b"first")
    send_stop_job_command(raw, silent.id, serializer=JSONSerializer)
    assert (await silent.wait(20)).reason == "stopped"
    assert (await result_of(raw, silent.id))[0] == "stopped"
    place = await until(idle, "idle")
    assert await asyncio.to_thread(first.terminate) == 0
    assert (await idle.state()).status == "recovering"
    assert refused()
    second = start_worker(*FAST, "--name", "second")
    place = await until(idle, "idle", place)
    second.kill()
    start_worker(*FAST, "--name", "third")
    await until(idle, "idle", place)
    await eventually(lambda: raw.hget(f"rq:job:{idle.id}", "worker_name") == b"third")
    send_stop_job_command(raw, idle.id, serializer=JSONSerializer)
    assert (await idle.wait(20)).reason == "stopped"
    assert (await result_of(raw, idle.id))[0] == "stopped"
    await eventually(lambda: not stuck(raw))


@pytest.mark.slow
async def test_rqs_stop_command_reaches_a_session_that_is_handed_over(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, config: Path
) -> None:
    config.write_text(f"{config.read_text()}{PROBE}")
    first = start_worker("--stop-grace-s", "5", "--name", "first")
    session = await client.start("probe", "say('up'); result(); import time; time.sleep(1000)")
    await until(session, "idle")
    await eventually(lambda: raw.hget(f"rq:job:{session.id}", "status") == b"started")
    first.process.terminate()
    first.wait_log("stopping: ")
    send_stop_job_command(raw, session.id, serializer=JSONSerializer)
    start_worker(*FAST, "--name", "second")
    assert (await session.wait(30)).reason == "stopped"
    assert (await result_of(raw, session.id))[0] == "stopped"
    await eventually(lambda: not stuck(raw))


@pytest.mark.slow
async def test_rqs_stop_command_after_the_end_changes_nothing(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, config: Path
) -> None:
    """The runner had said that it is over: the session is completed, and so is its job."""
    config.write_text(f"{config.read_text()}{PROBE}")
    start_worker("--stop-grace-s", "5", "--name", "first")
    over = 'import sys, time; sys.stdout.write(\'{"type":"agent_stopped"}\\n\'); sys.stdout.flush(); time.sleep(1000)'
    session = await client.start("probe", f"say('up'); {over}")
    async for event in session.events():
        if contents([event], "text"):
            break
    await eventually(lambda: raw.hget(f"rq:job:{session.id}", "status") == b"started")
    send_stop_job_command(raw, session.id, serializer=JSONSerializer)
    state = await session.wait(30)
    assert (await result_of(raw, session.id))[0] == ("stopped" if state.reason == "stopped" else "finished")
