"""Redis is away: runners go on being read, into memory, then onto the disk, then not; all of it arrives, in order."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrq import AsyncAgentClient
from agentrq_worker.builtin_runners.demo.prompt_commands import line_text
from agentrq_worker.stream.buffer import EventBuffer
from agentrq_worker.stream.buffer_budget import BufferBudget
from agentrq_worker.stream.entry import ENTRY_BYTES, Entry
from tests.faults import waiting
from tests.faults.proxy import Proxy
from tests.sessions import contents, until
from tests.workers import Worker, free_port, metrics_of

Start = Callable[..., Worker]


def entry(seq: int, size: int) -> Entry:
    return Entry("m", seq, [b"x" * size], size=size, fields={"status": "idle"} if seq % 5 == 0 else None)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    memory=st.integers(1, 20_000),
    disk=st.integers(0, 20_000),
    moves=st.lists(st.one_of(st.integers(0, 3000), st.tuples(st.integers(1, 40), st.integers(1, 5000))), max_size=120),
)
def test_entries_come_out_of_the_buffer_as_they_went_in(
    tmp_path: Path, memory: int, disk: int, moves: list[int | tuple[int, int]]
) -> None:
    """Adding and taking in any order: nothing lost or reordered, shares exact, and whoever paused is told to go on."""
    shares, told = BufferBudget(memory, disk, tmp_path), list[bool]()
    queue = EventBuffer(shares)
    queue.on_full = told.append
    added: list[Entry] = []
    taken: list[Entry] = []
    for move in moves:
        if isinstance(move, int):
            added.append(entry(len(added) + 1, move))
            queue.add(added[-1])
            # Past both shares only while whoever brings more has been told to stop.
            assert (shares.memory < memory + ENTRY_BYTES + 3000 and shares.disk <= disk) or told[-1]
        else:
            front = queue.peek(*move)
            assert bool(front) == bool(queue)
            taken += front
            queue.drop(len(front))
    while front := queue.peek(64, 10_000):
        taken += front
        queue.drop(len(front))
    assert taken == added
    assert (shares.memory, shares.disk, bool(queue)) == (0, 0, False)
    assert told[-1:] in ([], [False])
    assert all(before is not after for before, after in itertools.pairwise(told))


def test_a_full_disk_pauses_the_runners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> int:
        raise OSError(28, "No space left on device")

    shares = BufferBudget(1000, 1_000_000, tmp_path)
    queue = EventBuffer(shares)
    for seq in range(1, 20):
        if seq == 10:
            monkeypatch.setattr(os, "pwrite", no_space)
        queue.add(entry(seq, 500))
    assert [item.seq for item in iter(lambda: pop(queue), None)] == list(range(1, 20))


def pop(queue: EventBuffer) -> Entry | None:
    front = queue.peek(1, 1)
    queue.drop(len(front))
    return front[0] if front else None


def test_who_paused_goes_on_when_the_session_is_given_up(tmp_path: Path) -> None:
    """Else its output, which is thrown away from then on, is waited for without end."""
    queue, told = EventBuffer(BufferBudget(1000, 0, tmp_path)), list[bool]()
    queue.on_full = told.append
    for seq in range(1, 5):
        queue.add(entry(seq, 500))
    assert told == [True]
    queue.clear()
    assert told == [True, False]


def test_the_first_place_is_known_though_all_is_on_disk(tmp_path: Path) -> None:
    shares = BufferBudget(1000, 1_000_000, tmp_path)
    EventBuffer(shares).add(entry(1, 2000))  # another session's, which takes the memory
    queue = EventBuffer(shares)
    for seq in range(5, 9):
        queue.add(entry(seq, 500))
    assert (shares.disk > 0, queue.first_seq()) == (True, 5)
    assert [item.seq for item in iter(lambda: pop(queue), None)] == [5, 6, 7, 8]


def test_a_missing_spool_directory_is_told(tmp_path: Path) -> None:
    queue = EventBuffer(BufferBudget(1000, 1_000_000, tmp_path / "nowhere"))
    for seq in range(1, 20):
        queue.add(entry(seq, 500))
    assert [item.seq for item in iter(lambda: pop(queue), None)] == list(range(1, 20))


@pytest.mark.slow
async def test_memory_then_disk_then_the_runner_waits(
    redis_url: str, raw: redis.Redis, start_worker: Start, tmp_path: Path
) -> None:
    """A real worker and runner, Redis out of reach behind a proxy: 6 MB into shares of 200 kB and 1 MB."""
    count, size, port = 3000, 2000, free_port()
    directory = tmp_path / "spool"
    directory.mkdir()
    async with Proxy.to(redis_url) as network:
        worker = await asyncio.to_thread(
            lambda: start_worker("--lease-s", "60", "--metrics-port", str(port), url=network.url,
                                 AGENTRQ_MAX_PENDING="200000", AGENTRQ_MAX_SPOOL="1000000",
                                 AGENTRQ_SPOOL_DIR=str(directory))
        )  # fmt: skip
        async with AsyncAgentClient.from_url(redis_url) as client:
            session = await client.start("demo", f"/sleep 4\n/lines {count} {size}")
            running = await until(session, "running")
            network.down()
            runner = psutil.Process(int(raw.hget(f"agentrq:{{{session.id}}}:state", "pid") or 0))

            def spooled() -> float:
                return metrics_of(port)["agentrq_spooled_bytes"]

            await waiting.true(lambda: spooled() > 900_000)
            written = list[int]()

            def stalled() -> bool:
                written.append(runner.io_counters().write_chars)
                return len(written) > 20 and written[-20] == written[-1]

            await waiting.true(stalled)
            assert written[-1] < count * size // 2  # it is stuck in a write: nobody reads it any more
            assert spooled() <= 1_000_000
            assert list(directory.iterdir()) == []  # its files have no name
            network.up()
            await until(session, "idle", running)
            await waiting.true(lambda: spooled() == 0)
            await session.stop()
            state = await session.wait(30)
            assert state.status == "done"
            events = [event async for event in session.events()]
        assert await asyncio.to_thread(worker.terminate) == 0
    texts = [content.text for content in contents(events, "text")]
    assert texts[-count:] == [line_text(at, count, size) for at in range(1, count + 1)]
