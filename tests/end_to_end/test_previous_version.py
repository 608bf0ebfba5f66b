"""A rolling upgrade: clients and workers of the previous version beside those of this one, on one Redis."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from agentrq import AsyncAgentClient
from tests.previous.environment import Previous, make_previous
from tests.rq_checks import eventually, stuck
from tests.sessions import contents, until
from tests.workers import Worker

pytestmark = pytest.mark.slow

Start = Callable[..., Worker]

CLIENT = """
import json, sys
from agentrq import AgentClient, StatusEvent

with AgentClient.from_url(sys.argv[1]) as client:
    session = client.start("demo", "/echo one", max_turns=9)
    said, turns = [], 0
    for event in session.events():
        if getattr(event, "type", None) == "text":
            said.append(event.content.text)
        if isinstance(event, StatusEvent) and event.status == "idle":
            turns += 1
            if turns == 2:
                break
            receipt = session.prompt("/echo two", wait=True)
    session.stop()
    state = session.wait(30)
    print(json.dumps([said, receipt.outcome, state.status, state.reason, state.num_turns]))
"""


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Previous:
    return make_previous(tmp_path_factory.mktemp("previous"))


@pytest.fixture
def start_previous(previous: Previous, redis_url: str, config: Path, tmp_path: Path) -> Iterator[Start]:
    """As ``start_worker``, a worker of the previous version."""
    workers: list[Worker] = []
    theirs = tmp_path / "previous.toml"
    theirs.write_text('[providers.demo]\nenv = { AGENTRQ_DEMO_PACE = "0" }\n')

    def start(*args: str) -> Worker:
        worker = Worker(redis_url, theirs, args, os.environ, python=previous.python)
        workers.append(worker)
        return worker.wait_ready()

    yield start
    for worker in workers:
        worker.close()


def test_a_previous_client_runs_a_session_on_this_worker(
    previous: Previous, redis_url: str, start_worker: Start, raw: redis.Redis
) -> None:
    start_worker()
    said, receipt, status, reason, turns = json.loads(previous.code(CLIENT, redis_url))
    assert said == ["one", "two"]
    assert (receipt, status, reason, turns) == ("applied", "done", "stopped", 2)


async def test_this_client_runs_a_session_on_a_previous_worker(
    client: AsyncAgentClient, start_previous: Start, raw: redis.Redis
) -> None:
    start_previous()
    session = await client.start("demo", "/echo one")
    idle = await until(session, "idle")
    assert (await session.prompt("/echo two", wait=True, timeout=30)).outcome == "applied"
    await until(session, "idle", idle)
    await session.stop()
    assert (await session.wait(30)).reason == "stopped"
    texts = [content.text for content in contents([event async for event in session.events()], "text")]
    assert texts == ["one", "two"]
    await eventually(lambda: not stuck(raw))
    await session.remove()


@pytest.mark.parametrize("first", ["previous", "this"])
async def test_a_killed_workers_session_is_resumed_by_the_other_version(
    client: AsyncAgentClient, start_previous: Start, start_worker: Start, raw: redis.Redis, first: str
) -> None:
    arguments = ("--lease-s", "2", "--beat-s", "0.4")
    starts = {"previous": start_previous, "this": start_worker}
    owner = starts.pop(first)(*arguments)
    session = await client.start("demo", "/echo before", metadata={"shop": "4"})
    idle = await until(session, "idle")
    (other,) = starts.values()
    other(*arguments)
    os.kill(owner.pid, signal.SIGKILL)
    await until(session, "idle", idle)
    receipt = await session.prompt("/echo after", wait=True, timeout=30)
    assert receipt.outcome == "applied"
    await until(session, "idle", receipt.cursor)
    await session.stop()
    state = await session.wait(30)
    assert (state.status, state.reason, state.metadata) == ("done", "stopped", {"shop": "4"})
    texts = [content.text for content in contents([event async for event in session.events()], "text")]
    assert texts == ["before", "after"]


@pytest.mark.parametrize("first", ["previous", "this"])
async def test_a_drained_workers_session_goes_on_at_the_other_version(
    client: AsyncAgentClient, start_previous: Start, start_worker: Start, raw: redis.Redis, first: str
) -> None:
    starts = {"previous": start_previous, "this": start_worker}
    owner = starts.pop(first)()
    sessions = [await client.start("demo", f"/echo {number}") for number in range(4)]
    idle = [await until(session, "idle") for session in sessions]
    (other,) = starts.values()
    other()
    assert owner.terminate() == 0
    for session, cursor in zip(sessions, idle, strict=True):
        await until(session, "idle", cursor)
        assert (await session.prompt("/echo after", wait=True, timeout=30)).outcome == "applied"
        await session.stop()
        assert (await session.wait(30)).reason == "stopped"
    await eventually(lambda: not stuck(raw))


START = """
import sys
from agentrq import AgentClient

with AgentClient.from_url(sys.argv[1]) as client:
    print(client.start("demo", "/echo one", metadata={"shop": "4"}).id)
"""


async def test_a_previous_clients_session_is_listed_by_what_it_has(
    previous: Previous, client: AsyncAgentClient, redis_url: str, start_previous: Start, raw: redis.Redis
) -> None:
    """Neither that client nor that worker knows the indexes."""
    await client.start("other", "nobody runs it")
    sid = previous.code(START, redis_url).strip()
    for wanted in ("queued", "idle"):
        found = await client.sessions(provider="demo", metadata={"shop": "4"}, status=wanted)
        assert [state.id for state in found] == [sid]
        if wanted == "queued":
            start_previous()
            await until(client.session(sid), "idle")
    await client.session(sid).stop()
    await client.session(sid).wait(30)
    assert [state.id for state in await client.sessions(status="done")] == [sid]
