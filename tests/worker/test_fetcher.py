"""How a worker stops to take jobs, whatever it is waiting for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from agentrq_worker.rq import fetcher
from agentrq_worker.rq.fetcher import JobFetcher
from agentrq_worker.rq.queue_reader import DequeuedJob


class Reader:
    """A queue that has so many jobs, then none."""

    def __init__(self, jobs: int) -> None:
        self.queue: Any = SimpleNamespace(name="queue")
        self.ended = asyncio.Event()
        self.closed = False
        self._jobs = jobs

    async def read_starts(self, most: int, *, wait: bool) -> Any:
        return await self.read_one()

    async def read_one(self) -> Any:
        if self._jobs:
            self._jobs -= 1
            job: Any = SimpleNamespace(id=f"job-{self._jobs}")
            return [DequeuedJob(job, self.queue)], None
        await self.ended.wait()
        return [], None

    async def end_wait(self) -> None:
        self.ended.set()

    def close(self) -> None:
        self.closed = True


class Jobs:
    """Handles a job until it is told to end; notes which were cut."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cut: list[str] = []

    async def handle(self, job: Any, queue: Any, seen: Any) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cut.append(job.id)
            raise


def make_fetcher(starts: Reader, commands: Reader, jobs: Jobs) -> JobFetcher:
    parts: Any = (starts, commands, None, jobs, SimpleNamespace(most_free=0), SimpleNamespace(in_hand=set()), None, 1)
    return JobFetcher(*parts)


async def test_a_worker_stops_though_a_command_waits_for_redis_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "STOP_S", 0.01)
    starts, commands, jobs = Reader(0), Reader(1), Jobs()
    fetching = make_fetcher(starts, commands, jobs)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        fetching.begin(group)
        await jobs.begun.wait()
        fetching.stop()
        await fetching.stopped()
    assert jobs.cut == ["job-0"]
    assert (starts.closed, commands.closed) == (True, True)


async def test_a_full_worker_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for room, not for a job; its sessions are not its fetcher's to end."""
    monkeypatch.setattr(fetcher, "DEQUEUE_S", 1000)
    monkeypatch.setattr(fetcher, "STOP_S", 1000)
    starts, commands, jobs = Reader(2), Reader(0), Jobs()
    fetching = make_fetcher(starts, commands, jobs)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        fetching.begin(group)
        await jobs.begun.wait()
        fetching.stop()
        await fetching.stopped()
        assert not jobs.cut
        (running,) = fetching.running
        running.cancel()


async def test_a_worker_that_never_began_stops() -> None:
    fetching = make_fetcher(Reader(0), Reader(0), Jobs())
    fetching.stop()
    await fetching.stopped()
