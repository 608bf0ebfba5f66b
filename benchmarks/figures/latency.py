"""Figure 7: from the runner's write of a line to the reader's ``async for``, at 10 and 50 messages a second a session.

The runner puts the time into the line, the reader compares; both see the same monotonic clock. The peer is a worker
that awaits one pipeline of XADD and PUBLISH a message, with a redis-py reader that blocks; told beside it, the same
worker with its writes in a script that asks whose the session is (what the promise costs that a replaced worker writes
nothing), and redis-py's asyncio reader: the least that any worker takes which does what this one has to.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import defaultdict
from typing import Final

from benchmarks import native
from benchmarks.report import Row, at_most, progress, told, us
from benchmarks.stage import cpu, stage

FIGURES: Final = (7,)
MANY: Final = 100


async def _measure(quick: bool) -> tuple[list[Row], list[str]]:
    many = 40 if quick else MANY
    # Messages a second, seconds, and whether the round counts: the first warms up. What others do on the machine comes
    # and goes in seconds: many short rounds, but for who falls behind.
    plan = [(10, 1, False), *5 * [(10, 2, True)], (50, 1, False), *3 * [(50, 5, True)]]
    if quick:
        plan = [(10, 1, True), (50, 1, True)]
    found: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    async with stage() as on:
        worker = await on.worker("--max-sessions", str(many))
        sessions = await on.sessions(many, "small")
        reader = await on.reader(sessions, timed=True)
        argv = native.flood(on.corpora["small"])
        plain_worker = await on.helper("benchmarks.peers.plain_worker", "pipeline", on.url, str(many), *argv)
        fenced_worker = await on.helper("benchmarks.peers.plain_worker", "fenced", on.url, str(many), *argv)
        reading = ("benchmarks.peers.plain_reader", on.url, "timed", str(many))
        plain_reader = await on.helper(*reading, ready=True)
        fenced_reader = await on.helper(*reading, "fenced", ready=True)
        pairs = {
            "ours": (worker, reader), "peer": (plain_worker, plain_reader), "fenced": (fenced_worker, fenced_reader),
        }  # fmt: skip
        for per_second, seconds, counts in plan:
            prompt, wanted = f"pace {per_second} {seconds}", many * per_second * seconds
            for who, (process, at_end) in pairs.items():
                had = cpu(process.system)
                if who == "ours":
                    await on.prompt(sessions, prompt)
                else:
                    process.say(prompt)
                said = await at_end.round()
                assert said["count"] == wanted, said
                if counts:
                    found[who, per_second, "p50"].append(said["p50"])
                    found[who, per_second, "p99"].append(said["p99"])
                    found[who, per_second, "cpu"].append((cpu(process.system) - had) / wanted)
    median = {key: statistics.median(values) for key, values in found.items()}
    progress(", ".join(f"{who} ×{rate} {what} {us(value)}" for (who, rate, what), value in median.items()))
    rows: list[Row] = []
    for rate in (10, 50):
        for what, goal in (("p50", 1.0), ("p99", 0.25)):
            ours, peer = median["ours", rate, what], median["peer", rate, what]
            measure = f"{many} sessions × {rate}/s, line to reader, {what}"
            if what == "p99" and rate == 10:
                rows.append(told(7, measure, us(peer), us(ours), f"{ours / peer:.3g}×"))
            else:
                rows.append(at_most(7, measure, us(peer), us(ours), ours / peer, goal))
        ours, fenced = median["ours", rate, "p50"], median["fenced", rate, "p50"]
        measure = f"× {rate}: p50 against a fenced peer, read by asyncio"
        rows.append(told(7, measure, us(fenced), us(ours), f"{ours / fenced:.3g}×"))
        ours, peer = median["ours", rate, "cpu"], median["peer", rate, "cpu"]
        rows.append(told(7, f"× {rate}: CPU a message: worker", us(peer), us(ours), f"{ours / peer:.3g}×"))
    return rows, []


def run(quick: bool, wanted: set[int]) -> tuple[list[Row], list[str]]:
    return asyncio.run(_measure(quick))
