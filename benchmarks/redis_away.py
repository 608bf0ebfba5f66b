"""``python -m benchmarks.redis_away [SECONDS] [MESSAGES_A_SECOND]``: a worker's memory while Redis is away.

Ten sessions speak at a steady pace; Redis is killed (SIGKILL, AOF everysec), stays away, comes back. Measured: the
worker's resident memory before, at its highest and after, its spool, how long the backlog takes to drain, and how
old a live session's messages are when a reader gets them while it drains. At the end every session's messages are
compared with what its runner said. Linux only (/proc).
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil

from agentrq import AsyncAgentClient, Message
from agentrq.embedded.server_process import ServerProcess

SESSIONS: Final = 10
BEFORE_S: Final = 10.0
AFTER_S: Final = 30.0

RUNNER: Final = """
import json, sys, time
rate, size = (int(word) for word in json.loads(sys.stdin.readline())["prompt"].split())
began, said = time.monotonic(), 0
print(json.dumps({"type": "agent_started"}), flush=True)
while True:
    due = int((time.monotonic() - began) * rate)
    for number in range(said, due):
        text = f"{number} {time.time()} ".ljust(size, "x")
        block = {"type": "text", "text": text}
        message = {"id": f"m{number}", "role": "assistant", "content": [block]}
        print(json.dumps({"type": "assistant", "message": message}))
    said = due
    sys.stdout.flush()
    time.sleep(0.01)
"""


def spooled(pid: int, directory: Path) -> int:
    """Bytes of the worker's spool: unlinked files that it holds open."""
    total = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        try:
            if os.readlink(path).startswith(str(directory)):
                total += os.stat(path).st_size
        except OSError:
            continue
    return total


async def main(away: float, rate: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        (directory / "spool").mkdir()
        (directory / "runner.py").write_text(RUNNER)
        config = directory / "agentrq.toml"
        config.write_text(f'spool_dir = "{directory}/spool"\n[providers.ticker]\nprotocol = "runner"\n'
                          f'command = ["{sys.executable}", "{directory}/runner.py"]\n')  # fmt: skip
        server = ServerProcess(directory / "valkey")
        worker = psutil.Popen(
            [sys.executable, "-m", "agentrq_worker", "--redis", server.url, "--config", str(config)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=(directory / "log").open("wb"),
        )  # fmt: skip
        try:
            await measure(away, rate, directory, server.url, worker, server)
        finally:
            worker.kill()  # its guardian ends the runners
            worker.wait()
            server.stop()


async def measure(
    away: float, rate: int, directory: Path, url: str, worker: psutil.Popen, server: ServerProcess
) -> None:
    resident: list[int] = []
    spool = [0]
    ages: list[tuple[float, float]] = []  # (when, how old)

    async def watch() -> None:
        while True:
            resident.append(worker.memory_info().rss)
            spool.append(spooled(worker.pid, directory / "spool"))
            await asyncio.sleep(0.1)

    async def live(session_id: str) -> None:
        async with AsyncAgentClient.from_url(url) as client:
            async for event in client.session(session_id).messages():
                if event.type == "text":
                    now = time.time()
                    ages.append((now, now - float(event.content.text.split()[1])))  # type: ignore[union-attr]

    async with AsyncAgentClient.from_url(url) as client, asyncio.TaskGroup() as group:
        busy = [await client.start("ticker", f"{rate // SESSIONS} 100") for _ in range(SESSIONS)]
        quiet = await client.start("ticker", "10 100")
        tasks = [group.create_task(watch()), group.create_task(live(quiet.id))]
        await asyncio.sleep(BEFORE_S)
        before = statistics.median(resident)
        server.kill()
        await asyncio.sleep(away)
        peak_away = max(resident)
        back = ServerProcess(directory / "valkey")
        returned, drained = time.time(), 0.0
        while not drained:
            oldest = time.time()
            for session in busy:
                entries = await client._redis.xrevrange(client.context.keys.events(session.id), count=1)
                newest = next(iter(entries[0][1].values()))
                at = newest.find(b'"timestamp":') + 12
                oldest = min(oldest, int(newest[at : at + 13]) / 1000)
            if time.time() - oldest < 0.5:
                drained = time.time() - returned
            await asyncio.sleep(0.05)
        await asyncio.sleep(AFTER_S)
        after = statistics.median(resident[-50:])
        for task in tasks:
            task.cancel()
        for session in [*busy, quiet]:
            await session.stop()
            await session.wait(60)
        messages = await compare(client, [session.id for session in busy])
    back.stop()
    said = sorted(age for when, age in ages if returned + 3 < when <= returned + max(drained, 5) and age < away / 2)
    calm = sorted(age for when, age in ages if when > returned + drained + 5)
    mib = 1 << 20
    print(f"Redis away for {away:g} s under {rate} messages/s of 100 bytes, {SESSIONS} sessions")
    figures = (before, peak_away, max(resident), after)
    print("worker RSS, MiB: {:.0f} before, {:.0f} at most while away, {:.0f} at most, {:.0f} after".format(
        *(figure / mib for figure in figures)))  # fmt: skip
    print(f"spool: {max(spool) / mib:.0f} MiB at its highest, {spool[-1]} bytes at the end")
    print(f"backlog of {away * rate:.0f} messages drained in {drained:.1f} s "
          f"({away * rate / max(drained, 0.1):.0f} messages/s beside the live ones)")  # fmt: skip
    for name, found in (("while it drains", said), ("afterwards", calm)):
        if found:
            print(f"age of a live session's messages {name}: p50 {found[len(found) // 2] * 1000:.1f} ms, "
                  f"p99 {found[int(len(found) * 0.99)] * 1000:.0f} ms, {len(found)} messages")  # fmt: skip
    print(messages)


async def compare(client: AsyncAgentClient, session_ids: list[str]) -> str:
    """Each session's messages are numbered by its runner without a gap, but for what is declared lost."""
    total = lost = 0
    for session_id in session_ids:
        expected = 0
        async for event in client.session(session_id).events():
            if not isinstance(event, Message):
                continue
            if event.type == "error" and event.content.code == "history_lost":  # type: ignore[union-attr]
                lost += 1
                expected = -1
            elif event.type == "text":
                number = int(event.content.text.split()[0])  # type: ignore[union-attr]
                assert expected in (-1, number), (session_id, expected, number)
                expected = number + 1
                total += 1
    return f"{total} messages compared: in order, none missing, none doubled; {lost} holes declared (history_lost)"


if __name__ == "__main__":
    asyncio.run(
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0, int(sys.argv[2]) if len(sys.argv) > 2 else 5000)
    )
