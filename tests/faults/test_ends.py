"""Workers that are told to end, or freeze, while something else goes wrong: nothing is lost, and they do end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from agentrq import AsyncAgentClient, AsyncSession, Receipt
from agentrq.wire.keys import Keys
from tests.faults.deaths import LIGHT_PROVIDER, check_stream, leftovers
from tests.faults.restarts import Restartable
from tests.rq_checks import eventually, stuck
from tests.sessions import contents, until
from tests.workers import Worker

Start = Callable[..., Worker]
FAST = ("--lease-s", "2", "--beat-s", "0.5", "--stop-grace-s", "0.3")
ENDS_S = 60.0
"""A worker that was told twice ends within a minute, as docs/how-to/end-a-worker.md says."""


@pytest.fixture(autouse=True)
def light(config: Path) -> Path:
    with config.open("a") as file:
        file.write(LIGHT_PROVIDER)
    return config


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Restartable]:
    with Restartable(tmp_path / "valkey") as server:
        yield server


async def stopped_whole(session: AsyncSession, worker: str | None = None) -> None:
    """One more turn, the stop, and a stream that holds all of it."""
    receipt = await session.prompt("0", wait=True, timeout=60)
    assert isinstance(receipt, Receipt)
    await until(session, "idle", receipt.cursor)
    await session.stop()
    state = await session.wait(30)
    assert (state.status, state.reason) == ("done", "stopped")
    assert worker is None or state.worker == worker
    events = [event async for event in session.events()]
    check_stream(events)
    prompts = [content.command_id for content in contents(events, "prompt")]
    assert prompts == [session.id, receipt.command_id]


async def begun(
    client: AsyncAgentClient, idle: int, busy: int, prompt: str = "SLOW"
) -> tuple[list[AsyncSession], list[AsyncSession]]:
    """Sessions that have had a turn, and sessions in the middle of their first."""
    idle_ones = [await client.start("light", "0") for _ in range(idle)]
    busy_ones = [await client.start("light", prompt) for _ in range(busy)]
    for session in idle_ones:
        await until(session, "idle")
    for session in busy_ones:
        await until(session, "running")
    return idle_ones, busy_ones


@pytest.mark.slow
async def test_redis_dies_while_a_worker_drains(server: Restartable, light: Path) -> None:
    first = Worker(server.url, light, (*FAST, "--name", "first"), os.environ)
    second = None
    try:
        first.wait_ready()
        async with AsyncAgentClient.from_url(server.url) as client:
            idle, busy = await begun(client, 4, 3, "SLOWEST")
            first.process.terminate()
            first.wait_log("stopping: ")
            server.kill()
            first.wait_log("connection lost|Connection refused|dequeue on")
            server.start()
            assert await asyncio.to_thread(first.process.wait, ENDS_S) == 0, "".join(first.log)
            second = Worker(server.url, light, (*FAST, "--name", "second"), os.environ).wait_ready()
            for session in (*idle, *busy):
                await stopped_whole(session, "second")
        with redis.Redis.from_url(server.url) as raw:
            await eventually(lambda: not stuck(raw))
        await eventually(lambda: not leftovers({first.pid}))
    finally:
        first.close()
        if second is not None:
            second.close()


@pytest.mark.parametrize("away", [False, pytest.param(True, marks=pytest.mark.long)])
async def test_a_worker_that_is_told_to_end_while_it_starts_ends(server: Restartable, light: Path, away: bool) -> None:
    """It waits for its name, which another process holds, or for a Redis that has gone away meanwhile."""
    with redis.Redis.from_url(server.url) as raw:
        raw.set(Keys().worker("w"), "of another process", px=600_000)
        raw.sadd("rq:workers", "rq:worker:w")
    worker = Worker(server.url, light, (*FAST, "--name", "w"), os.environ)
    try:
        worker.wait_log("the name w is held")
        if away:
            server.kill()
        worker.process.terminate()
        assert await asyncio.to_thread(worker.process.wait, ENDS_S) == 0, "".join(worker.log)
        assert not [line for line in worker.log if "is ready" in line or "Traceback" in line]
        if not away:
            with redis.Redis.from_url(server.url) as raw:  # what the other process has there stays
                assert raw.smembers("rq:workers") == {b"rq:worker:w"}
                assert raw.get(Keys().worker("w")) == b"of another process"
    finally:
        worker.close()


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["dead", "frozen"])
async def test_a_worker_ends_though_redis_stays_away(server: Restartable, light: Path, how: str) -> None:
    """It cannot hand its sessions over: it ends all the same, with 0, and leaves no process."""
    worker = Worker(server.url, light, (*FAST, "--name", "w"), os.environ)
    try:
        worker.wait_ready()
        async with AsyncAgentClient.from_url(server.url) as client:
            await begun(client, 2, 1)
        server.kill() if how == "dead" else os.kill(server.pid, signal.SIGSTOP)
        worker.process.terminate()
        worker.wait_log("stopping: ")
        worker.process.terminate()
        assert await asyncio.to_thread(worker.process.wait, ENDS_S) == 0, "".join(worker.log)
        worker.wait_log("Redis does not answer: this worker.s lease and records there will expire")
        await eventually(lambda: not leftovers({worker.pid}))
    finally:
        if how == "frozen":
            os.kill(server.pid, signal.SIGCONT)
        worker.close()


@pytest.mark.slow
async def test_a_worker_drains_while_another_is_killed(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    drained, killed = (start_worker(*FAST, "--max-sessions", "8", "--name", name) for name in ("drained", "killed"))
    idle, busy = await begun(client, 6, 6)
    owners = {(await session.state()).worker for session in (*idle, *busy)}
    assert owners == {"drained", "killed"}
    drained.process.terminate()
    drained.wait_log("stopping: ")
    killed.kill()
    start_worker(*FAST, "--name", "third")
    assert await asyncio.to_thread(drained.process.wait, ENDS_S) == 0
    for session in (*idle, *busy):
        await stopped_whole(session, "third")
    await eventually(lambda: not stuck(raw))
    await eventually(lambda: not leftovers({drained.pid, killed.pid}))


@pytest.mark.slow
async def test_a_worker_freezes_in_a_burst_of_starts(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    """Claimed, spawned or neither: each session runs on the other worker, or where it was when that one thaws."""
    first = start_worker(*FAST, "--name", "first")
    sessions = [await client.start("light", "0") for _ in range(40)]
    await until(sessions[5], "starting")
    first.freeze()
    second = start_worker(*FAST, "--name", "second")
    for session in sessions:
        await until(session, "idle")
    await eventually(lambda: b"second" in [raw.hget(Keys().state(session.id), "worker") for session in sessions])
    first.thaw()
    for session in sessions:
        await stopped_whole(session)
    assert {(await session.state()).worker for session in sessions} >= {"second"}
    await eventually(lambda: not stuck(raw))
    assert not [line for line in first.log + second.log if "its worker did not close it" in line]
    assert (first.terminate(), second.terminate()) == (0, 0)
    await eventually(lambda: not leftovers({first.pid, second.pid}))


@pytest.mark.slow
async def test_a_worker_is_killed_while_it_drains(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    """Handed over, not yet, or in between: out of its hands in Redis and not back in RQ's queue."""
    first = start_worker(*FAST, "--name", "first")
    idle, busy = await begun(client, 20, 3)
    cursor = (await idle[0].state()).cursor
    first.process.terminate()
    await until(idle[0], "recovering", cursor)
    first.kill()
    start_worker(*FAST, "--name", "second")
    for session in (*idle, *busy):
        await stopped_whole(session, "second")
    await eventually(lambda: not stuck(raw))
    await eventually(lambda: not leftovers({first.pid}))
