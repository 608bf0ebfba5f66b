"""Figure 8: from the client's ``start`` to the runner's first line published; RQ's forking worker from enqueue to job.

The runner's own start-up (spawned bare, to its first byte) is taken off one start. The burst is 100 starts at once, to
the last one's first line, runners included; RQ's are enqueued in one pipeline and have none. (Until 2026-11-28 each of
the runners read its file as it started, some 1.5 ms of 5: figures before are not comparable.)
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import time
from typing import Any, Final

import redis
from rq import Queue
from rq.executions import Execution

from agentrq.wire.ids import new_id
from benchmarks import native
from benchmarks.peers import rq_jobs
from benchmarks.report import Row, at_least, at_most, progress, rate, told, us
from benchmarks.stage import Stage, stage

FIGURES: Final = (8,)
BURST: Final = 100


def _bare(argv: list[str]) -> float:
    """Spawn to first byte."""
    began = time.perf_counter()
    with _spawned(argv) as process:
        assert process.stdout
        process.stdout.read(1)
        took = time.perf_counter() - began
        process.communicate()
    return took


def _spawned(argv: list[str]) -> subprocess.Popen[bytes]:
    """A runner that has been given its query."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    assert process.stdin
    process.stdin.write(b'{"type":"query","prompt":"flood 0"}\n')
    process.stdin.flush()
    return process


def _least(queue: Queue, argv: list[str], count: int) -> float:
    """The floor of a burst: RQ's own records of so many starts, a runner for each, and no session."""
    queue.enqueue_many([Queue.prepare_data(rq_jobs.started) for _ in range(count)])
    began, runners = time.perf_counter(), list[subprocess.Popen[bytes]]()
    for _ in range(count):
        job, _ = Queue.dequeue_any([queue], None, queue.connection)  # type: ignore[misc]
        with queue.connection.pipeline() as pipeline:
            Execution.create(job, 90, pipeline, worker_name="floor")
            job.prepare_for_execution("floor", pipeline)
            pipeline.lrem(queue.intermediate_queue_key, 1, job.id)
            pipeline.execute()
        runners.append(_spawned(argv))
    for runner in runners:
        assert runner.stdout
        runner.stdout.read(1)
    took = time.perf_counter() - began
    for runner in runners:
        runner.communicate()
    return took


async def _ours(on: Stage, pubsub: Any, count: int) -> float:
    """Seconds until the first lines of so many starts are published."""
    ids = [new_id() for _ in range(count)]
    channels = {on.client.context.keys.messages_channel(sid).encode() for sid in ids}
    await pubsub.subscribe(*channels)
    for _ in channels:
        await pubsub.get_message(timeout=5)
    left = set(channels)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for sid in ids:
            group.create_task(on.client.start("small", "flood 0", sid))
        async with asyncio.timeout(60):
            while left:
                hint = await pubsub.get_message(timeout=5)
                if hint is not None and hint["type"] == "message" and b'"type":"init"' in hint["data"]:
                    left.discard(hint["channel"])
    took = time.perf_counter() - began
    await pubsub.unsubscribe(*channels)
    for _ in channels:
        await pubsub.get_message(timeout=5)
    sessions = [on.client.session(sid) for sid in ids]
    await asyncio.gather(*(session.stop() for session in sessions))
    await asyncio.gather(*(session.wait(60) for session in sessions))
    return took


def _rq(queue: Queue, count: int) -> float:
    began = time.monotonic_ns()
    if count == 1:
        jobs = [queue.enqueue(rq_jobs.started)]
    else:
        jobs = queue.enqueue_many([Queue.prepare_data(rq_jobs.started) for _ in range(count)])
    deadline = time.monotonic() + 60
    for job in jobs:
        while (result := job.latest_result()) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert result is not None
    return max(int(job.return_value() or 0) - began for job in jobs) / 1e9


async def _measure(quick: bool) -> tuple[list[Row], list[str]]:
    rounds, bursts = (5, 1) if quick else (40, 5)
    ours: list[float] = []
    theirs: list[float] = []
    bare: list[float] = []
    burst: list[float] = []
    rq_burst: list[float] = []
    floor: list[float] = []
    async with stage() as on, on.client_redis() as raw, raw.pubsub() as pubsub:
        await on.worker("--max-sessions", str(3 * BURST))
        await on.helper("benchmarks.peers.rq_worker", on.url, "stock", ready=True)
        with redis.Redis.from_url(on.url) as connection:
            queue = Queue("stock", connection=connection)
            argv = native.flood(on.corpora["small"])
            for number in range(rounds + 2):
                times = await _ours(on, pubsub, 1), await asyncio.to_thread(_rq, queue, 1), _bare(argv)
                if number >= 2:
                    for taken, found in zip((ours, theirs, bare), times, strict=True):
                        taken.append(found)
            for number in range(bursts + 1):
                both = await _ours(on, pubsub, BURST), await asyncio.to_thread(_rq, queue, BURST)
                if number:
                    burst.append(both[0])
                    rq_burst.append(both[1])
                    floor.append(await asyncio.to_thread(_least, Queue("floor", connection=connection), argv, BURST))
    start, own, peer = statistics.median(ours), statistics.median(bare), statistics.median(theirs)
    progress(json.dumps({"start": start, "runner": own, "rq": peer, "burst": burst, "rq burst": rq_burst,
                         "floor": floor}))  # fmt: skip
    fast, slow, most = (BURST / statistics.median(each) for each in (burst, rq_burst, floor))
    shown = f"{us(start - own)} (of {us(start)})"
    return [
        at_most(8, "start → first line published, against RQ", us(peer), shown, (start - own) / peer, 0.5),
        at_least(8, f"burst of {BURST} starts, against RQ", rate(slow), rate(fast), fast / slow, 5),
        told(8, "RQ's records of as many, and bare runners", rate(most), rate(fast),
             f"{fast / most:.2f}× (RQ {most / slow:.3g}×)"),
    ], []  # fmt: skip


def run(quick: bool, wanted: set[int]) -> tuple[list[Row], list[str]]:
    return asyncio.run(_measure(quick))
