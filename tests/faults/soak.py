"""For a person to run: ``make soak`` (``SOAK_MINUTES``, default 15) keeps sessions at work while workers die at random.

``python -m tests.faults.soak recovery 12`` measures how long sessions wait for another owner after a SIGKILL, with the
default lease; ``… rolling`` what a rolling restart costs. Prints what happened; ends with an error for anything that
does not hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agentrq import AsyncAgentClient
from agentrq.embedded.server_process import ServerProcess
from tests.faults.deaths import LIGHT_PROVIDER, Deaths, roll, spread
from tests.rq_checks import stuck
from tests.sessions import until
from tests.workers import Worker

AT_ONCE: Final = 12
"""Sessions that run at any time of a soak."""
LIMIT_S: Final = 20.0


@contextlib.contextmanager
def _stage() -> Iterator[tuple[str, Path]]:
    """An empty server and a worker's settings."""
    with (
        tempfile.TemporaryDirectory(prefix="agentrq-soak-") as folder,
        ServerProcess(Path(folder) / "valkey") as server,
    ):
        config = Path(folder) / "agentrq.toml"
        config.write_text(LIGHT_PROVIDER)
        yield server.url, config


async def soak(minutes: float, seed: int) -> None:
    """Run and print a summary."""
    chance = random.Random(seed)
    with _stage() as (url, config):
        async with Deaths(url, config, seed) as deaths:
            ends = time.monotonic() + minutes * 60

            async def keep_busy() -> None:
                while time.monotonic() < ends:
                    await deaths.drive(chance.randrange(1, 12))

            async def tell() -> None:
                while True:
                    await asyncio.sleep(30)
                    print(f"{ends - time.monotonic():5.0f} s left: {_summary(deaths)}", flush=True)

            async with asyncio.TaskGroup() as group:
                others = [group.create_task(deaths.torment(0.5, 4)), group.create_task(tell())]
                await asyncio.gather(*(keep_busy() for _ in range(AT_ONCE)))
                for task in others:
                    task.cancel()
            await deaths.finish()
            print(f"soak of {minutes:g} minutes, seed {seed}: {_summary(deaths)}")
            print(
                "no stream with a gap or a double, every status legal, every command answered once, all ended as asked"
            )
            print(f"stuck in RQ: {stuck(deaths.raw) or 'nothing'}; processes left: none; workers ended with 0")
            print(_rq_info(url), end="")


def _rq_info(url: str) -> str:
    """What the real ``rq info`` shows."""
    rq = Path(sys.executable).with_name("rq")
    return subprocess.run([rq, "info", "-u", url], capture_output=True, text=True, check=True, timeout=60).stdout


def _summary(deaths: Deaths) -> str:
    faults = ", ".join(f"{count} {name}" for name, count in sorted(deaths.faults.items()))
    return (
        f"{deaths.sessions} sessions, {deaths.turns} turns, {deaths.cut_turns} turns cut; {faults}; "
        f"seconds after a kill to a new owner: {spread(deaths.recovered)}, to the last process's end: "
        f"{spread(deaths.cleared)}"
    )


async def recovery(kills: int) -> None:
    """Kill the owner again and again, default lease; print how long until the next owner, and until idle."""
    claimed: list[float] = []
    idle: list[float] = []
    with _stage() as (url, config):
        workers: list[Worker] = []

        def fresh() -> Worker:
            worker = Worker(url, config, ("--name", f"w{len(workers)}"), os.environ)
            workers.append(worker)
            return worker.wait_ready()

        try:
            async with AsyncAgentClient.from_url(url) as client:
                await asyncio.to_thread(fresh)
                sessions = [await client.start("light", "SLOW", max_recoveries=1000) for _ in range(5)]
                cursors = [await until(session, "idle") for session in sessions]
                for number in range(kills):
                    await asyncio.to_thread(fresh)
                    await asyncio.sleep(random.uniform(0, 2.5))  # anywhere between two beats
                    workers[number].kill()
                    began = time.monotonic()
                    for at, session in enumerate(sessions):
                        cursors[at] = await until(session, "starting", cursors[at])
                        claimed.append(time.monotonic() - began)
                    for at, session in enumerate(sessions):
                        cursors[at] = await until(session, "idle", cursors[at])
                        idle.append(time.monotonic() - began)
                    print(
                        f"kill {number + 1}: owned again after {claimed[-5]:.1f} s, idle after {idle[-1]:.1f} s",
                        flush=True,
                    )
                for session in sessions:
                    await session.stop()
                    await session.wait(20)
        finally:
            for worker in workers:
                worker.close()
    print(
        f"default lease, {kills} kills of 5 sessions each: owned again after (s) {spread(claimed)}; idle {spread(idle)}"
    )
    if max(idle) > LIMIT_S:
        sys.exit(f"over {LIMIT_S:g} s")


async def rolling(seed: int) -> None:
    """Replace all workers, one after the other, while their sessions run turns; print what it cost."""
    with _stage() as (url, config):
        deaths = await roll(url, config, seed, sessions=AT_ONCE * 2, turns=15)
    print(
        f"rolling restart of 3 workers under {deaths.sessions} sessions: {deaths.turns} turns, {deaths.events} events, "
        f"none lost or doubled; {deaths.moved} sessions moved, {deaths.cut_turns} turns cut; "
        f"seconds a worker {spread(deaths.drained)}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["recovery"]:
        asyncio.run(recovery(int(sys.argv[2])))
    elif sys.argv[1:2] == ["rolling"]:
        asyncio.run(rolling(0))
    else:
        seed = int(os.environ.get("SOAK_SEED") or time.time())
        asyncio.run(soak(float(os.environ.get("SOAK_MINUTES") or 15), seed))
