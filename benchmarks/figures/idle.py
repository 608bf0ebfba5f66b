"""Figures 9 and 10: what an idle session costs its worker in memory, threads and CPU time, heartbeats included.

The peer is a stock RQ worker a session: the worker and the process it forked for a job that stays. Memory is the
proportional share (PSS), so that what processes have in common counts once.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Final

import psutil
import redis
from rq import Queue

from benchmarks.peers import rq_jobs
from benchmarks.report import Row, at_most, told
from benchmarks.stage import Stage, cpu, pss, stage

FIGURES: Final = (9, 10)
SESSIONS: Final = 500
PEERS: Final = 4


async def _rq_memory(on: Stage) -> float:
    """Bytes a session with a stock RQ worker for each."""
    workers = [await on.helper("benchmarks.peers.rq_worker", on.url, "stay", ready=True) for _ in range(PEERS)]
    with redis.Redis.from_url(on.url) as connection:
        queue = Queue("stay", connection=connection)
        for _ in workers:
            queue.enqueue(rq_jobs.stay, 600, job_timeout=900)
        deadline = time.monotonic() + 30
        while not all(worker.system.children() for worker in workers):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        processes = [process for worker in workers for process in (worker.system, *worker.system.children())]
        found = sum(map(pss, processes)) / PEERS
        for worker in workers:
            for horse in worker.system.children():
                horse.kill()
        for process in [process for worker in workers for process in worker.system.children()]:
            process.wait(10)
    await on.close(*workers)
    return found


async def _measure(quick: bool, wanted: set[int]) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    count = 40 if quick else SESSIONS
    async with stage() as on:
        peer = await _rq_memory(on) if 9 in wanted else 0.0
        worker = await on.worker("--max-sessions", str(count + 20))
        await on.sessions(20, "small")  # what the first sessions bring along is no session's
        await asyncio.sleep(1)
        before, threads = pss(worker.system), worker.system.num_threads()
        await on.sessions(count, "small")
        await asyncio.sleep(1 if quick else 5)
        each = (pss(worker.system) - before) / count
        if 9 in wanted:
            shown = f"{each / 1024:.1f} KiB"
            rows.append(at_most(9, f"memory an idle session ({count})", "", shown, each / 1024, 40, " KiB"))
            rows.append(at_most(9, "against a stock RQ worker a session", f"{peer / 2**20:.1f} MiB", shown,
                                each / peer, 0.01))  # fmt: skip
            whole = pss(worker.system)
            shown = f"{whole / count / 1024:.0f} KiB of {whole / 2**20:.0f} MiB"
            rows.append(told(9, "the worker whole, a session", "", shown, f"1/{peer / (whole / count):.0f}"))
            after = worker.system.num_threads()
            rows.append(at_most(9, f"threads at 20 and at {count + 20} sessions", str(threads), str(after),
                                after - threads, 0, " more"))  # fmt: skip
        if 10 in wanted:
            rows.append(await _idle_cpu(worker.system, count + 20, 2 if quick else 62))
    return rows, []


async def _idle_cpu(worker: psutil.Process, count: int, seconds: int) -> Row:
    """The slowest beats are RQ's heartbeats and the cleaning of its registries, some 30 s apart: two of each."""
    had, began = cpu(worker), time.monotonic()
    await asyncio.sleep(seconds)
    share = (cpu(worker) - had) / (time.monotonic() - began)
    tick = 1 / os.sysconf("SC_CLK_TCK") / seconds
    measure, shown = f"idle CPU of a core, {count} sessions", f"{share:.2%} ± {tick:.2%}"
    if seconds < 60:  # the slowest beats are not in it
        return told(10, measure, "", shown)
    return at_most(10, measure, "", shown, share, 0.015, "%")


def run(quick: bool, wanted: set[int]) -> tuple[list[Row], list[str]]:
    return asyncio.run(_measure(quick, wanted))
