"""The workers of one machine see each other's ends: sessions and names are free long before the lease runs out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agentrq import AsyncAgentClient
from agentrq.connection import connect_async
from agentrq.wire.keys import Keys
from agentrq_worker.ownership.neighbours import Neighbours, read_record
from agentrq_worker.process import procfs
from agentrq_worker.process.identity import machine_id, own_process
from tests.rq_checks import eventually
from tests.sessions import until
from tests.workers import Worker

pytestmark = pytest.mark.skipif(not procfs.AVAILABLE, reason="there is no /proc")

Start = Callable[..., Worker]
LONG = ("--lease-s", "300", "--beat-s", "1")
"""A lease that no test outlives."""
KEYS = Keys()


@pytest.mark.slow
async def test_a_killed_workers_session_is_resumed_by_its_neighbour(
    client: AsyncAgentClient, start_worker: Start, raw: Any
) -> None:
    first = start_worker(*LONG, "--name", "first")
    session = await client.start("demo", "hello")
    idle = await until(session, "idle")
    second = start_worker(*LONG, "--name", "second")
    first.kill()
    await until(session, "idle", idle)
    assert (await session.state()).worker == "second"
    second.wait_log(r"worker first \(process \d+\) has ended: its lease is given back")
    (machine,) = raw.keys("agentrq:machine:*")
    assert list(raw.hgetall(machine)) == [b"second"]


async def test_a_lone_worker_that_comes_back_by_its_name_takes_its_sessions(
    client: AsyncAgentClient, start_worker: Start
) -> None:
    first = start_worker(*LONG, "--name", "only")
    session = await client.start("demo", "hello")
    idle = await until(session, "idle")
    first.kill()
    start_worker(*LONG, "--name", "only")
    await until(session, "idle", idle)


@pytest.mark.slow
async def test_a_lone_workers_successor_by_another_name_takes_its_sessions(
    client: AsyncAgentClient, start_worker: Start
) -> None:
    first = start_worker(*LONG, "--name", "old")
    session = await client.start("demo", "hello")
    idle = await until(session, "idle")
    first.kill()
    start_worker(*LONG, "--name", "new")
    await until(session, "idle", idle)


async def test_a_worker_that_ends_leaves_no_record(client: AsyncAgentClient, start_worker: Start, raw: Any) -> None:
    worker = start_worker(*LONG)
    await eventually(lambda: bool(raw.keys("agentrq:machine:*")), "the worker's record")
    worker.terminate()
    assert not raw.keys("agentrq:machine:*")


@pytest.fixture
async def neighbours(redis_url: str) -> AsyncIterator[Neighbours]:
    async with connect_async(redis_url) as client:
        yield Neighbours(client, KEYS, "w", "token-of-w")


@pytest.fixture
def machine() -> str:
    found = machine_id()
    assert found is not None
    return KEYS.machine(found)


async def test_a_frozen_worker_keeps_its_lease(
    neighbours: Neighbours, machine: str, raw: Any, start_worker: Start
) -> None:
    frozen = start_worker(*LONG, "--name", "frozen")
    await eventually(lambda: raw.hexists(machine, "frozen"), "its record")
    frozen.freeze()
    assert not await neighbours.release_if_ended("frozen")
    assert raw.exists(KEYS.worker("frozen"))


async def test_a_lease_that_another_process_took_since_is_left_alone(
    neighbours: Neighbours, machine: str, raw: Any
) -> None:
    own = own_process()
    assert own is not None
    raw.hset(machine, "other", f"{own.pid}.{own.starttime - 1}.token-of-the-dead")
    raw.set(KEYS.worker("other"), "token-of-the-living")
    assert not await neighbours.release_if_ended("other")
    assert raw.get(KEYS.worker("other")) == b"token-of-the-living"
    raw.hset(machine, "other", f"{own.pid}.{own.starttime - 1}.token-of-the-dead")
    raw.set(KEYS.worker("other"), "token-of-the-dead")
    assert await neighbours.release_if_ended("other")
    assert not raw.exists(KEYS.worker("other"), machine)


@pytest.mark.parametrize(
    "garbage", [b"", b"1.2", b"x.2.token", b"-1.2.token", b"0.2.token", b"1..token", b"9" * 40 + b".1.t", b"\xff.1.t"]
)
def test_a_record_that_is_not_valid_is_nobodys(garbage: bytes) -> None:
    assert read_record(garbage) is None


def _in_another_pid_namespace(*options: str) -> str:
    code = "from agentrq_worker.process.identity import machine_id; print(machine_id())"
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid() != 0:
        pytest.skip("needs unshare(1) and root")
    command = [unshare, "--pid", "--fork", *options, sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        pytest.skip(f"no namespaces here: {done.stderr.strip()}")
    return done.stdout.strip()


def test_a_worker_in_another_pid_namespace_is_on_another_machine() -> None:
    there = _in_another_pid_namespace("--mount-proc")
    assert there not in (str(machine_id()), "None")


def test_a_worker_that_sees_another_namespaces_processes_watches_nobody() -> None:
    assert _in_another_pid_namespace() == "None"
