"""Figures 3, 4 and 5: how many messages a second one worker brings from flooding runners to Redis and to a reader."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Final

from benchmarks import native
from benchmarks.corpus import CORPORA
from benchmarks.peers.dict_code import Normaliser
from benchmarks.report import Row, at_least, progress, rate, told
from benchmarks.stage import Stage, cpu, stage

FIGURES: Final = (3, 4, 5)
RUNNERS: Final = 4
MANY: Final = 200


async def redis_benchmark(on: Stage, count: int) -> tuple[float, str]:
    """XADD, then PUBLISH of the same payload, -P 100 -c 1: messages a second as if one after the other."""
    _, payload = Normaliser("01993b1e-7c1f-7000-8000-0123456789ab", json.loads, _dumps).line(CORPORA["small"][0])[0]
    shown = payload.decode()
    commands = (["XADD", "bench", "MAXLEN", "~", "100000", "*", "message", shown], ["PUBLISH", "bench", shown])
    program = shutil.which("valkey-benchmark") or shutil.which("redis-benchmark")
    socket = str(on.server.path)
    times = 0.0
    for command in commands:
        if program is not None:
            argv = [program, "-s", socket, "-n", str(count), "-P", "100", "-c", "1", "-q", *command]
        else:
            own = native.compiled("pipeline")
            if own is None:
                raise RuntimeError("neither redis-benchmark nor a C compiler")
            argv = [own, socket, str(count), *command]
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        said = (await process.communicate())[0].decode()
        if program is not None:
            said = re.findall(r"([\d.]+) requests per second", said)[-1]
        times += 1 / float(said)
    return 1 / times, Path(program).name if program else "native/pipeline.c"


def _dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


async def _measure(quick: bool, wanted: set[int]) -> tuple[list[Row], list[str]]:
    rounds, ours, plain, many_sessions = (1, 20_000, 2_000, 60) if quick else (4, 80_000, 12_000, MANY)
    rates: dict[str, list[float]] = defaultdict(list)
    costs: dict[str, list[float]] = defaultdict(list)
    tool = ""
    async with stage() as on:
        worker = await on.worker("--max-sessions", str(many_sessions + 3 * RUNNERS))
        followed = await on.sessions(RUNNERS, "small")
        reader = await on.reader(followed)
        if 3 in wanted:
            argv = native.flood(on.corpora["small"])
            plain_worker = await on.helper("benchmarks.peers.plain_worker", "await", on.url, str(RUNNERS), *argv)
            plain_reader = await on.helper("benchmarks.peers.plain_reader", on.url, "untimed", str(RUNNERS), ready=True)
        if 4 in wanted:
            unread = await on.sessions(RUNNERS, "small")
            floor = await on.helper("benchmarks.peers.floor", on.url, str(RUNNERS), ready=True)
        if 5 in wanted:
            many = await on.sessions(many_sessions, "small")
            reader_of_many = await on.reader(many)
        loop = asyncio.get_running_loop()
        for number in range(rounds + 1):
            before = cpu(worker.system), cpu(on.redis), cpu(reader.system)
            await on.prompt(followed, f"flood {ours // RUNNERS}")
            said = await reader.round()
            assert said["count"] == ours, said
            rates["ours"].append(ours / said["seconds"])
            after = cpu(worker.system), cpu(on.redis), cpu(reader.system)
            for who, spent, had in zip(("worker", "redis", "reader"), after, before, strict=True):
                costs[who].append((spent - had) / ours)
            if 3 in wanted:
                had = cpu(plain_worker.system)
                plain_worker.say(f"flood {plain // RUNNERS}")
                said = await plain_reader.round()
                assert said["count"] == plain, said
                rates["plain"].append(plain / said["seconds"])
                costs["plain"].append((cpu(plain_worker.system) - had) / plain)
            if 4 in wanted:
                had, began = cpu(worker.system), loop.time()
                await on.turns(unread, f"flood {ours // RUNNERS}")
                rates["unread"].append(ours / (loop.time() - began))
                costs["unread"].append((cpu(worker.system) - had) / ours)
                floor.say(str(ours))
                said = json.loads(await floor.hear())
                rates["floor"].append(ours / said["seconds"])
                costs["floor"].append(said["cpu"] / ours)
                found, tool = await redis_benchmark(on, ours)
                rates["benchmark"].append(found)
            if 5 in wanted:
                had = cpu(worker.system)
                await on.prompt(many, f"flood {ours // many_sessions}")
                said = await reader_of_many.round()
                assert said["count"] == ours // many_sessions * many_sessions, said
                rates["many"].append(said["count"] / said["seconds"])
                costs["many"].append((cpu(worker.system) - had) / ours)
            if number == 0:  # the first round warms everything up
                rates.clear()
                costs.clear()
    progress("; ".join(f"{name} {rate(statistics.median(found))} ({rate(min(found))} to {rate(max(found))})"
                       for name, found in rates.items()))  # fmt: skip
    medians = {name: statistics.median(found) for name, found in rates.items()}
    cpu_us = {name: statistics.median(found) * 1e6 for name, found in costs.items()}
    return _rows(medians, cpu_us, tool, many_sessions, wanted)


def _rows(
    rates: dict[str, float], costs: dict[str, float], tool: str, sessions: int, wanted: set[int]
) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    ours = rates["ours"]
    if 3 in wanted:
        plain = rates["plain"]
        rows.append(at_least(3, "flood to one reader, the plain way", rate(plain), rate(ours), ours / plain, 12))
        rows.append(told(3, "CPU a message: worker", f"{costs['plain']:.3g} us", f"{costs['worker']:.3g} us",
                         f"1/{costs['plain'] / costs['worker']:.0f}"))  # fmt: skip
        rows.append(told(3, "CPU a message: Redis; reader", "", f"{costs['redis']:.3g} us; {costs['reader']:.3g} us"))
    if 4 in wanted:
        unread, floor, bench = rates["unread"], rates["floor"], rates["benchmark"]
        rows.append(at_least(4, "flood, no reader, against publishing alone", rate(floor), rate(unread),
                             unread / floor, 0.65, "%"))  # fmt: skip
        rows.append(at_least(4, f"the same against {tool}", rate(bench), rate(unread), unread / bench, 0.4, "%"))
        rows.append(told(4, "CPU a message: worker", f"{costs['floor']:.3g} us", f"{costs['unread']:.3g} us"))
    if 5 in wanted:
        many = rates["many"]
        rows.append(at_least(5, f"flood of {sessions} sessions, against {RUNNERS}", rate(ours), rate(many),
                             many / ours, 0.6, "%"))  # fmt: skip
        rows.append(told(5, "CPU a message: worker", f"{costs['worker']:.3g} us", f"{costs['many']:.3g} us"))
    return rows, []


def run(quick: bool, wanted: set[int]) -> tuple[list[Row], list[str]]:
    return asyncio.run(_measure(quick, wanted))
