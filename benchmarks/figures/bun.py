"""Figure 6: the flood of figure 3 against a worker on Bun, for three corpora, and both workers' memory.

Each side has its own reader: agentrq's client; redis-py with json for Bun. Bun runs in both of its modes ("free" and
"bounded", see the program) and the faster one counts, with its own memory. Told beside it, what any worker on RQ begins
with: a Python that has imported asyncio, redis-py and RQ, and does nothing.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import sys
from collections import defaultdict
from typing import Final

from benchmarks import native
from benchmarks.peers import bun
from benchmarks.report import Row, at_least, at_most, progress, rate, told
from benchmarks.stage import Helper, Stage, cpu, stage

FIGURES: Final = (6,)
RUNNERS: Final = 4
_GOALS: Final = {"deltas": 1.1, "texts": 1.2, "mixed": 1.3}
_BARE: Final = "import asyncio, redis.asyncio, rq.worker; print('ready', flush=True); input()"
_COUNTS: Final = {"deltas": 120_000, "texts": 60_000, "mixed": 24_000, "small": 120_000}


def peak(helper: Helper) -> float:
    """The most memory a process ever had, in bytes."""
    with open(f"/proc/{helper.process.pid}/status", encoding="utf-8") as status:
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read())
    return int(found[1]) * 1024 if found else 0.0


async def _corpus(kind: str, program: str, quick: bool) -> tuple[list[Row], list[str]]:
    count = _COUNTS[kind] // (8 if quick else 1)
    rates: dict[str, list[float]] = defaultdict(list)
    costs: dict[str, list[float]] = defaultdict(list)
    memory: dict[str, float] = {}
    missed = 0.0
    # A subscriber that lags is not cut off, so that neither side's live-only messages are lost that way.
    async with stage("--client-output-buffer-limit", "pubsub 0 0 0") as on:
        worker = await on.worker()
        sessions = await on.sessions(RUNNERS, kind)
        reader = await on.reader(sessions)
        argv = native.flood(on.corpora[kind])
        for _ in range(1 if quick else 3):
            had = cpu(worker.system)
            await on.prompt(sessions, f"flood {count // RUNNERS}")
            said = await reader.round()
            assert said["count"] == count or kind in ("deltas", "mixed"), said
            missed = max(missed, 1 - said["count"] / count)
            rates["agentrq"].append(said["count"] / said["seconds"])
            costs["agentrq"].append((cpu(worker.system) - had) / count)
            for mode in ("free", "bounded"):
                peer = await _bun(on, program, mode, argv)
                peers_reader = await on.helper(
                    "benchmarks.peers.plain_reader", on.url, "untimed", str(RUNNERS), ready=True
                )
                had = cpu(peer.system)
                peer.say(f"flood {count // RUNNERS}")
                said = await peers_reader.round()
                assert said["count"] == count, said
                rates[mode].append(count / said["seconds"])
                costs[mode].append((cpu(peer.system) - had) / count)
                memory[mode] = max(memory.get(mode, 0), peak(peer))
                await on.close(peers_reader, peer)
        memory["agentrq"] = peak(worker)
        if kind == "texts":
            memory["bare"] = await _bare_memory(on)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    spent = {name: statistics.median(found) * 1e6 for name, found in costs.items()}
    progress(f"{kind}: {medians} {spent} {memory}")
    fast = max(("free", "bounded"), key=lambda mode: medians[mode])
    peer_rate, ours = medians[fast], medians["agentrq"]
    measure = f"{kind}: flood to a reader, Bun ({fast})"
    rows = [
        at_least(6, measure, rate(peer_rate), rate(ours), ours / peer_rate, _GOALS[kind])
        if kind in _GOALS
        else told(6, measure, rate(peer_rate), rate(ours), f"{ours / peer_rate:.3g}×"),
        told(6, f"{kind}: CPU a message: worker", f"{spent[fast]:.3g} us", f"{spent['agentrq']:.3g} us"),
    ]  # fmt: skip
    peak_memory = f"{kind}: worker's peak memory", _mib(memory[fast]), _mib(memory["agentrq"])
    share = memory["agentrq"] / memory[fast]
    if "bare" in memory:  # Bun needs least here: hardly more than four of a Python that has imported what RQ needs
        limit = f"(limit {memory['bare'] / memory[fast]:.3g}×: {_mib(memory['bare'])})"
        rows.append(told(6, *peak_memory, f"{share:.3g}× {limit}"))
    else:
        rows.append(at_most(6, *peak_memory, share, 0.25))
    return rows, [f"6, {kind}: {missed:.1%} of the live-only deltas did not reach our reader"] if missed else []


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"


async def _bare_memory(on: Stage) -> float:
    helper = await Helper.start(sys.executable, "-c", _BARE)
    on.helpers.append(helper)
    await helper.hear()
    return peak(helper)


async def _bun(on: Stage, program: str, mode: str, argv: list[str]) -> Helper:
    url = f"redis+unix://{on.server.path}"
    helper = await Helper.start(program, str(bun.WORKER), mode, url, str(RUNNERS), *argv)
    on.helpers.append(helper)
    await asyncio.sleep(0.3)
    return helper


def run(quick: bool, wanted: set[int]) -> tuple[list[Row], list[str]]:
    try:
        program = bun.program()
    except RuntimeError as error:
        return [told(6, "skipped", "", "", "")], [f"6: skipped: {error}"]
    rows: list[Row] = []
    notes: list[str] = []
    for kind in ("texts",) if quick else ("deltas", "texts", "mixed", "small"):
        found, said = asyncio.run(_corpus(kind, program, quick))
        rows += found
        notes += said
    return rows, notes
