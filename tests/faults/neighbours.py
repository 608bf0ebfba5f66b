"""``python -m tests.faults.neighbours [SECONDS]``: what the sessions beside a hostile runner notice of it.

One worker, `NEIGHBOURS` sessions that prompt and wait for the answer all the time, and one hostile session; a quiet
time before and after each attack. Prints the answer times as ratios to the quiet ones around them: absolute times say
how busy the machine is.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from agentrq import AsyncAgentClient
from agentrq.embedded.server_process import ServerProcess
from tests.conftest import PROVIDERS
from tests.fakes.hostile import CHATTER, DEAF_ONLY, DISK, FORK_LOOP, FORKS, SOCKETS, STDERR, no_newline
from tests.fakes.probe_provider import PROBE
from tests.sessions import contents, until
from tests.workers import Worker, resident

NEIGHBOURS = 10
PAUSE_S = 0.02
ATTACKS = {
    "floods stderr": (STDERR, "flooding"),
    "60 processes that ignore signals, in sessions of their own": (FORKS, "forked"),
    "forks on and on": (FORK_LOOP, "forking"),
    "fills its disk (file_size, 64 MiB files)": (DISK, None),
    "500 sockets": (SOCKETS, "open"),
    "ignores signals": (DEAF_ONLY, "deaf"),
    "4 GiB without a newline": (no_newline(4096), "without a newline"),
    "prints messages as fast as it can": (CHATTER, "chattering"),
}


class Neighbour:
    """A session that is asked the same again and again; `times` are the seconds until it answered."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.times: list[float] = []
        self.answers: asyncio.Queue[str] = asyncio.Queue()

    async def follow(self) -> None:
        async for event in self.session.events():
            for content in contents([event], "text"):
                self.answers.put_nowait(content.text)

    async def ask(self) -> None:
        number = 0
        while True:
            number += 1
            began = time.perf_counter()
            await self.session.prompt(f"/echo {number}")
            while await self.answers.get() != str(number):
                pass
            self.times.append(time.perf_counter() - began)
            await asyncio.sleep(PAUSE_S)


async def measure(neighbours: list[Neighbour], seconds: float) -> tuple[float, float, int]:
    """Median, 99th percentile (in seconds) and number of the answers within a time."""
    for neighbour in neighbours:
        neighbour.times.clear()
    await asyncio.sleep(seconds)
    times = sorted(each for neighbour in neighbours for each in neighbour.times)
    return statistics.median(times), times[int(len(times) * 0.99)], len(times)


async def attacked(client: AsyncAgentClient, program: str, says: str | None, directory: Path) -> Any:
    session = await client.start("probe", program, cwd=str(directory))
    async for event in session.events():
        if says is None and contents([event], "prompt"):
            break
        if [content for content in contents([event], "text") if content.text == says]:
            break
    return session


async def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as name, ServerProcess(Path(name) / "server") as server:
        config = Path(name) / "agentrq.toml"
        sandbox = f"[providers.probe.sandbox]\nfile_size = {64 << 20}\n"
        config.write_text(PROVIDERS % {"python": sys.executable} + PROBE + sandbox)
        worker = Worker(server.url, config, ("--stop-grace-s", "0"), os.environ).wait_ready()
        async with AsyncAgentClient.from_url(server.url) as client, asyncio.TaskGroup() as group:
            neighbours = [Neighbour(await client.start("demo", "/echo 0")) for _ in range(NEIGHBOURS)]
            for neighbour in neighbours:
                await until(neighbour.session, "idle")
            tasks = [group.create_task(run()) for each in neighbours for run in (each.follow, each.ask)]
            await measure(neighbours, 1)
            print(f"{NEIGHBOURS} neighbours of one worker, {seconds:g} s each; answer times")
            before = await measure(neighbours, seconds)
            for what, (program, says) in ATTACKS.items():
                workspace = Path(name) / what.replace(" ", "-")
                workspace.mkdir()
                session = await attacked(client, program, says, workspace)
                during = await measure(neighbours, seconds)
                memory = resident(worker.pid) >> 20
                began = time.perf_counter()
                await session.stop()
                await session.wait(60)
                ended = time.perf_counter() - began
                after = await measure(neighbours, seconds)
                quiet = [(before[at] + after[at]) / 2 for at in (0, 1)]
                print(
                    f"{what:45} p50 ×{during[0] / quiet[0]:5.1f}  p99 ×{during[1] / quiet[1]:5.1f}"
                    f"  (quiet {quiet[0] * 1000:5.1f} / {quiet[1] * 1000:6.1f} ms, {during[2]} answers)"
                    f"  worker {memory} MiB, ended in {ended:.1f} s",
                    flush=True,
                )
                before = after
            for task in tasks:
                task.cancel()
        worker.close()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0))
