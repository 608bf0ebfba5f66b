"""A worker dies, freezes or is told to end: its sessions go on elsewhere, nothing lost, nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentrq import AgentClient, AsyncAgentClient, Message
from tests.fakes.probe_provider import PROBE
from tests.faults.stream_checks import check_moves, check_stream
from tests.rq_checks import eventually
from tests.sessions import contents, until
from tests.workers import Worker, alive

Start = Callable[..., Worker]
FAST = ("--lease-s", "2", "--beat-s", "0.5")


def runner_of(raw: Any, session_id: str) -> psutil.Process:
    return psutil.Process(int(raw.hget(f"agentrq:{{{session_id}}}:state", "pid") or 0))


def gone(*processes: psutil.Process) -> bool:
    _, left = psutil.wait_procs(processes, timeout=10)
    return not any(map(alive, left))


@pytest.mark.parametrize("busy", [False, True])
async def test_a_killed_workers_session_is_resumed_by_another(
    client: AsyncAgentClient, start_worker: Start, raw: Any, busy: bool
) -> None:
    first = start_worker(*FAST, "--name", "first")
    session = await client.start("demo", "/spawn 300")
    idle = await until(session, "idle")
    if busy:
        await session.prompt("/sleep 60")
        idle = await until(session, "running", idle)
    runner = runner_of(raw, session.id)
    family = [runner, *runner.children(recursive=True)]
    start_worker(*FAST, "--name", "second")
    first.kill()
    recovering = await until(session, "recovering", idle)
    idle = await until(session, "idle", recovering)
    assert gone(*family)
    await session.prompt("/echo still here", wait=True, timeout=20)
    await until(session, "idle", idle)
    await session.stop()
    state = await session.wait(20)
    assert (state.status, state.worker, state.epoch) == ("done", "second", 2)
    events = [event async for event in session.events()]
    check_stream(raw, session.id)
    check_moves(events)
    codes = [content.code for content in contents(events, "error")]
    assert ("turn_interrupted" in codes) is busy
    calls = [content.tool_use_id for content in contents(events, "tool_call")]
    results = [content.tool_use_id for content in contents(events, "tool_result")]
    assert sorted(calls) == sorted(results)
    texts = [content.text for content in contents(events, "text")]
    assert texts[-1] == "still here"


@pytest.mark.slow
async def test_a_frozen_worker_is_superseded(client: AsyncAgentClient, start_worker: Start, raw: Any) -> None:
    first = start_worker(*FAST, "--name", "first")
    session = await client.start("demo", "/sleep 60")
    await until(session, "running")
    runner = runner_of(raw, session.id)
    start_worker(*FAST, "--name", "second")
    first.freeze()
    await until(session, "idle")
    first.thaw()
    first.wait_log("superseded")
    assert gone(runner)
    other = await client.start("demo", "/echo free again")
    await until(other, "idle")
    await session.stop()
    assert (await session.wait(20)).worker == "second"
    check_stream(raw, session.id)
    assert first.process.poll() is None


@pytest.mark.slow
async def test_a_session_that_ended_while_its_worker_was_frozen_leaves_no_runner(
    client: AsyncAgentClient, start_worker: Start, raw: Any
) -> None:
    first = start_worker(*FAST, "--name", "first")
    session = await client.start("demo", "hello")
    await until(session, "idle")
    runner = runner_of(raw, session.id)
    first.freeze()
    await eventually(lambda: not raw.exists("agentrq:worker:first"), "the lease of a frozen worker")
    await session.stop()
    start_worker(*FAST, "--name", "second")
    assert (await session.wait(20)).status == "done"
    first.thaw()
    assert gone(runner)
    first.wait_log("superseded")
    check_stream(raw, session.id)


@pytest.mark.slow
async def test_a_second_signal_hands_over_now(client: AsyncAgentClient, start_worker: Start) -> None:
    first = start_worker(*FAST, "--name", "first")
    session = await client.start("demo", "/sleep 60", on_interrupt="continue")
    running = await until(session, "running")
    second = start_worker(*FAST, "--name", "second")
    first.process.terminate()
    first.wait_log("stopping: ")
    assert first.terminate() == 0
    async with asyncio.timeout(30):
        async for event in session.events(running):
            if isinstance(event, Message) and event.type == "prompt":
                assert event.cursor is not None
                assert event.cursor.startswith("2-")
                break
    await session.stop()
    assert (await session.wait(20)).worker == second.name


@pytest.mark.slow
@pytest.mark.parametrize("on_interrupt", ["continue", "fail"])
async def test_a_cut_turn_is_treated_as_on_interrupt_says(
    client: AsyncAgentClient, start_worker: Start, raw: Any, on_interrupt: str
) -> None:
    first = start_worker(*FAST, "--name", "first")
    session = await client.start("demo", "/sleep 60", on_interrupt=on_interrupt)
    running = await until(session, "running")
    first.kill()
    start_worker(*FAST, "--name", "second")
    if on_interrupt == "continue":
        recovered = await until(session, "recovering", running)
        await until(session, "running", recovered)
        await session.stop()
    state = await session.wait(30)
    events = [event async for event in session.events()]
    check_stream(raw, session.id)
    check_moves(events)
    assert [content.code for content in contents(events, "error")] == ["turn_interrupted"]
    prompts = [content.command_id for content in contents(events, "prompt")]
    if on_interrupt == "continue":
        assert (state.status, state.reason, state.epoch) == ("done", "stopped", 2)
        assert prompts == [session.id, f"{session.id}-continue-2"]
    else:
        assert (state.status, state.reason) == ("error", "failed")
        assert state.error == "Interrupted: its worker was lost in a turn"
        assert prompts == [session.id]


@pytest.mark.slow
async def test_a_session_that_keeps_losing_workers_ends_in_error(
    client: AsyncAgentClient, start_worker: Start, raw: Any
) -> None:
    session = await client.start("demo", "/sleep 60", max_recoveries=1)
    for number in range(2):
        worker = start_worker(*FAST, "--name", f"w{number}")
        await until(session, "running" if number == 0 else "idle")
        worker.kill()
    start_worker(*FAST, "--name", "last")
    state = await session.wait(30)
    assert (state.status, state.reason) == ("error", "lost")
    assert "2 times" in (state.error or "")
    check_stream(raw, session.id)


@pytest.mark.slow
async def test_an_idle_session_survives_any_number_of_lost_workers(
    client: AsyncAgentClient, start_worker: Start
) -> None:
    """Only a session whose turns are cut again and again is suspected of being the cause."""
    session = await client.start("demo", "/echo hi", max_recoveries=1)
    idle = None
    for number in range(4):
        worker = start_worker(*FAST, "--name", f"w{number}")
        idle = await until(session, "idle", idle)
        worker.kill()
    start_worker(*FAST, "--name", "last")
    await until(session, "idle", idle)
    await session.stop()
    assert (await session.wait(20)).epoch == 5


@pytest.mark.slow
async def test_a_session_that_no_worker_takes_ends_as_lost(client: AsyncAgentClient, start_worker: Start) -> None:
    first = start_worker(*FAST, "--name", "first")
    session = await client.start("demo", "/sleep 60")
    await until(session, "running")
    start_worker(*FAST, "--name", "other", "--queue", "elsewhere", "--recovery-timeout-s", "1")
    first.kill()
    state = await session.wait(30)
    assert (state.status, state.reason) == ("error", "lost")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["async", "sync"])
async def test_a_reader_ends_a_session_that_no_worker_is_left_for(
    redis_url: str, start_worker: Start, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("AGENTRQ_RECOVERY_TIMEOUT_S", "1")
    worker = start_worker(*FAST)
    async with AsyncAgentClient.from_url(redis_url) as client:
        session = await client.start("demo", "/sleep 60")
        await until(session, "running")
        worker.kill()
        if how == "async":
            state = await session.wait(40)
        else:
            with AgentClient.from_url(redis_url) as other:
                state = await asyncio.to_thread(other.session(session.id).wait, 40)
    assert (state.status, state.reason) == ("error", "lost")


async def test_a_last_turn_is_the_last_though_its_worker_dies_before_it_says_so(
    client: AsyncAgentClient, start_worker: Start, config: Path
) -> None:
    config.write_text(f"{config.read_text()}{PROBE}")
    first = start_worker(*FAST, "--name", "first", "--stop-grace-s", "100")
    session = await client.start("probe", "say('up'); result(); import time; time.sleep(1000)", max_turns=1)
    await until(session, "idle")  # and its runner does not end
    first.kill()
    start_worker(*FAST, "--name", "second")
    state = await session.wait(30)
    assert (state.status, state.reason, state.num_turns) == ("done", "max_turns", 1)
