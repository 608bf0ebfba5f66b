"""Many sessions on several workers: all start, are prompted and stopped without error, spread by free capacity."""

from __future__ import annotations

import asyncio
import configparser
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis
from click.testing import CliRunner

from agentrq import AsyncAgentClient, AsyncSession, Message
from agentrq_worker.cli import worker
from agentrq_worker.settings import Settings, load
from tests.faults.deaths import LIGHT_PROVIDER
from tests.rq_checks import eventually, stuck
from tests.workers import Worker

Start = Callable[..., Worker]


@pytest.fixture
def light(config: Path) -> None:
    with config.open("a") as file:
        file.write(LIGHT_PROVIDER)


def test_the_systemd_units_command_line_starts_a_worker() -> None:
    """Ends workers as they want to be ended: a signal to the worker alone, and time for its turns."""
    unit = configparser.RawConfigParser()
    unit.optionxform = str  # type: ignore[assignment]
    unit.read(Path(__file__).parents[2] / "deploy" / "agentrq-worker@.service")
    service = unit["Service"]
    assert (service["KillMode"], service["Restart"]) == ("mixed", "always")
    assert float(service["TimeoutStopSec"]) > Settings().drain_s + 60  # docs/how-to/end-a-worker.md: a minute to end
    assert service["OOMPolicy"] == "continue"
    # Nothing that another instance needs is in a private /tmp.
    environment = dict(word.split("=", 1) for word in service["Environment"].split())
    settings = load(None, environment)
    directory = service["ExecStartPre"].split()[-1]
    assert service["ReadWritePaths"] == f"-{directory}"
    for path in (settings.homes_path, settings.spool_path):
        assert path.is_relative_to(directory)
    options = [word for word in service["ExecStart"].split() if word.startswith("--")]
    shown = CliRunner().invoke(worker, ["--help"]).output
    assert all(f"{option} " in shown for option in options)


async def idle_after(session: AsyncSession, turns: int) -> None:
    """Until the session has had so many turns."""
    async with asyncio.timeout(240):
        async for event in session.messages():
            assert isinstance(event, Message)
            assert event.type != "error"
            turns -= event.type == "cost"
            if not turns:
                return


async def idle_sessions(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, count: int, workers: int, most: int
) -> Counter[str | None]:
    """Start ``count`` sessions, prompt all, stop all; answers how they were spread."""
    hosts = [start_worker("--name", f"w{number}", "--max-sessions", str(most)) for number in range(workers)]
    sessions = list(await asyncio.gather(*(client.start("light", "0") for _ in range(count))))
    await asyncio.gather(*(idle_after(session, 1) for session in sessions))
    spread = Counter(state.worker for state in await client.states())
    await eventually(lambda: raw.zcard("rq:wip:agentrq") == count)
    if os.geteuid() == 0:  # the kernel shows a worker's connections to nobody else
        for host in hosts:
            assert len(psutil.Process(host.pid).net_connections("all")) < 30  # whatever many starts at once took
    await asyncio.gather(*(session.prompt("0") for session in sessions))
    await asyncio.gather(*(idle_after(session, 2) for session in sessions))
    await asyncio.gather(*(session.stop() for session in sessions))
    states = await asyncio.gather(*(session.wait(240) for session in sessions))
    assert {(state.status, state.reason, state.num_turns) for state in states} == {("done", "stopped", 2)}
    await eventually(lambda: not stuck(raw))
    assert [host.terminate() for host in hosts] == [0] * workers
    for host in hosts:
        assert not [line for line in host.log if " ERROR " in line or "Traceback" in line], "".join(host.log)
    return spread


@pytest.mark.usefixtures("light")
async def test_two_workers_share_a_hundred_sessions(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    spread = await idle_sessions(client, start_worker, raw, 100, workers=2, most=70)
    assert min(spread.values()) >= 30, spread


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("light")
async def test_four_workers_carry_a_thousand_sessions(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    spread = await idle_sessions(client, start_worker, raw, 1000, workers=4, most=300)
    print(dict(spread))
    assert min(spread.values()) >= 100, spread
