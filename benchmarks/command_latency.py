"""How long a command is on its way: from the client's call until the runner has read it from its stdin.

Run: python -m benchmarks.command_latency [COUNT]
One private server, one worker, one idle session whose runner writes down when it reads a prompt (the system's
monotonic clock, which processes share). Each prompt is sent once the turn before it is over.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from agentrq import AsyncAgentClient, StatusEvent
from agentrq.embedded.server_process import ServerProcess

RUNNER = Path(__file__).parents[1] / "tests" / "fakes" / "diary_runner.py"
PROVIDER = """
[providers.diary]
protocol = "runner"
parser = "claude"
command = ["{python}", "-S", "-E", "{runner}"]
env = {{ DIARY_DIR = "{directory}" }}
"""
GOAL_MS = 5.0


async def send(url: str, session_id: str, count: int) -> list[tuple[int, int]]:
    """When each prompt was sent and its call was back, in ns."""
    called: list[tuple[int, int]] = []
    async with AsyncAgentClient.from_url(url) as client:
        session = await client.start("diary", "warm", session_id)
        events = session.events()
        async for event in events:
            if isinstance(event, StatusEvent) and event.status == "idle":
                if len(called) == count:
                    break
                await asyncio.sleep(0.005)  # idle: what the turn's end still set going has come to rest
                before = time.monotonic_ns()
                await session.prompt(f"p{len(called)}")
                called.append((before, time.monotonic_ns()))
        await session.stop()
        await session.wait(20)
    return called


def percentile(figures: list[float], share: float) -> float:
    return sorted(figures)[min(int(len(figures) * share), len(figures) - 1)]


def line(what: str, figures: list[float]) -> str:
    shown = [statistics.median(figures), *(percentile(figures, share) for share in (0.9, 0.99)), max(figures)]
    return f"{what:<28}" + "".join(f"{figure:9.2f}" for figure in shown)


def run(count: int) -> tuple[list[float], list[float]]:
    """Milliseconds until the runner has read each of ``count`` prompts, and until the client's call was back."""
    with tempfile.TemporaryDirectory() as directory, ServerProcess(Path(directory)) as server:
        config = Path(directory) / "agentrq.toml"
        config.write_text(PROVIDER.format(python=sys.executable, runner=RUNNER, directory=directory))
        command = [sys.executable, "-m", "agentrq_worker", "--redis", server.url, "--config", str(config)]
        worker: Any = subprocess.Popen([*command, "--log-level", "ERROR"], env=os.environ)
        try:
            called = asyncio.run(send(server.url, "latency", count))
        finally:
            worker.terminate()
            worker.wait(20)
        diary = (Path(directory) / "latency").read_text().splitlines()
    read = [json.loads(entry)[1] for entry in diary[1:]]
    to_runner = [(at - before) / 1e6 for at, (before, _) in zip(read, called, strict=True)]
    return to_runner, [(after - before) / 1e6 for before, after in called]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    to_runner, call = run(count)
    print(f"{f'{count} prompts, ms':<28}" + "".join(f"{name:>9}" for name in ("median", "p90", "p99", "max")))
    print(line("call → read by the runner", to_runner))
    print(line("call → back at the client", call))
    print(f"goal: median below {GOAL_MS:g} ms: {'met' if statistics.median(to_runner) < GOAL_MS else 'MISSED'}")


if __name__ == "__main__":
    main()
