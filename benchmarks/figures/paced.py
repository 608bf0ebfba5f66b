"""Figure 14: what a message costs at the load that people have: many sessions that each say a few things a second.

The peer is the plain way: ``readline``, ``json``, and for each message an awaited pipeline of XADD and PUBLISH. Both
have one plain subscriber of all sessions. CPU is that of the worker and of the server, over some seconds in the middle
of a turn; the time is from the runner's write to the subscriber.
"""

from __future__ import annotations

import asyncio
import statistics
from typing import Final, NamedTuple

from benchmarks import native
from benchmarks.report import Row, at_least, at_most, progress, told, us
from benchmarks.stage import Helper, Stage, cpu, stage

FIGURES: Final = (14,)
MOST_LATE_S: Final = 0.1
"""The p99 up to which a worker carries its sessions."""


class Load(NamedTuple):
    """So many sessions, each of which says something so often a second; ``kind``: see native/flood.c."""

    sessions: int
    rate: float
    kind: str = "pace"

    def __str__(self) -> str:
        pieces = " pieces" if self.kind == "stream" else ""
        return f"{self.sessions} sessions × {self.rate:g}{pieces}/s"


class Cost(NamedTuple):
    """CPU seconds a message, and how late messages were, in seconds; ``share``: messages read, of those expected."""

    worker: float
    redis: float
    reader: float
    p50: float
    p99: float
    share: float


async def _measure(on: Stage, worker: Helper, pattern: str, load: Load, seconds: float) -> Cost:
    """Measure a worker whose runners have been prompted."""
    await asyncio.sleep(1 + load.sessions / 300)
    reader = await on.helper("benchmarks.peers.paced_reader", on.url, pattern, str(seconds), ready=True)
    loop = asyncio.get_running_loop()
    began, had = loop.time(), (cpu(worker.system), cpu(on.redis))
    said = await reader.round()
    count = max(said["count"], 1)
    spent = (cpu(worker.system) - had[0]) / count, (cpu(on.redis) - had[1]) / count
    share = count / (load.sessions * load.rate * (loop.time() - began))
    # Of a worker that does nothing more in time no delay can be told.
    p50, p99 = said.get("p50", float("inf")), said.get("p99", float("inf"))
    return Cost(*spent, said["cpu"] / count, p50, p99, share)


async def _plain(load: Load, seconds: float) -> Cost:
    async with stage() as on:
        argv = native.flood(on.corpora["small"])
        worker = await on.helper("benchmarks.peers.plain_worker", "pipeline", on.url, str(load.sessions), *argv)
        await asyncio.sleep(1.5 + load.sessions / 300)
        worker.say(_prompt(load, seconds))
        return await _measure(on, worker, "plain:*:messages", load, seconds)


async def _ours(load: Load, seconds: float) -> Cost:
    async with stage() as on:
        worker = await on.worker("--max-sessions", str(load.sessions))
        sessions = await on.sessions(load.sessions, "small")
        await on.prompt(sessions, _prompt(load, seconds))
        return await _measure(on, worker, "agentrq:*:messages", load, seconds)


def _prompt(load: Load, seconds: float) -> str:
    return f"{load.kind} {load.rate:g} {seconds + 6 + load.sessions / 100:g}"


async def _carried(way: str, steps: tuple[int, ...]) -> int:
    """The largest number of sessions × 10/s that one worker carries."""
    most = 0
    for sessions in steps:
        load = Load(sessions, 10)
        found = await (_plain if way == "plain" else _ours)(load, 4)
        progress(f"{way} {load}: p99 {us(found.p99)}, {found.share:.1%} read")
        if found.p99 > MOST_LATE_S or found.share < 0.95:
            break
        most = sessions
    return most


def _median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


async def _run(quick: bool) -> tuple[list[Row], list[str]]:
    loads = [Load(20, 2), Load(300, 10)]
    if not quick:
        loads = [Load(20, 2), Load(100, 10), Load(300, 10), Load(600, 10), Load(100, 30, "stream")]
    rows: list[Row] = []
    for load in loads:
        plain, ours = [], []
        for _ in range(1 if quick else 3):
            plain.append(await _plain(load, 2 if quick else 5))
            ours.append(await _ours(load, 2 if quick else 5))
        rows += _rows(load, _median(plain), _median(ours))
        read = statistics.median(cost.share for cost in plain), statistics.median(cost.share for cost in ours)
        progress(f"{load}: plain {read[0]:.1%} read, agentrq {read[1]:.1%} read")
    if not quick:
        theirs = await _carried("plain", (200, 400, 600, 800, 1000))
        most = await _carried("agentrq", (1000, 1500, 2000, 2500, 3000))
        rows.append(at_least(14, "sessions × 10/s that one worker carries with a p99 of 100 ms", str(theirs), str(most),
                             most, 2000, ""))  # fmt: skip
    return rows, []


def _rows(load: Load, plain: Cost, ours: Cost) -> list[Row]:
    many = load.kind == "pace" and load.sessions >= 300
    both, theirs = ours.worker + ours.redis, plain.worker + plain.redis
    worker = (14, f"{load}: CPU a message: worker", us(plain.worker), us(ours.worker))
    redis = (14, f"{load}: Redis", us(plain.redis), us(ours.redis))
    together = (14, f"{load}: together", us(theirs), us(both))
    p50 = (14, f"{load}: line to reader, p50", us(plain.p50), us(ours.p50))
    p99 = (14, f"{load}: p99", us(plain.p99), us(ours.p99))
    share = f"{both / theirs:.3g}×"
    return [
        at_most(*worker, ours.worker * 1e6, 30, " us") if many else told(*worker),
        at_most(*redis, ours.redis * 1e6, 18, " us") if many else told(*redis),
        at_most(*together, both / theirs, 1 / 3) if many and load.sessions == 300 else told(*together, share),
        at_most(*p50, ours.p50 * 1e3, 0.5, " ms") if load.sessions == 20 else told(*p50),
        at_most(*p99, ours.p99 * 1e3, 25, " ms") if many else told(*p99),
        told(14, f"{load}: CPU a message: a plain subscriber", us(plain.reader), us(ours.reader)),
    ]


def run(quick: bool, wanted: set[int]) -> tuple[list[Row], list[str]]:
    return asyncio.run(_run(quick))
