"""Seeded runs: sessions that are prompted turn by turn while their workers are killed, frozen, cut off and restarted.

Owns one run and its properties: streams without gap or double, legal statuses, every command with one receipt, every
session ended as asked, no process and no entry of RQ left. Used by the tests, by the long tier and by soak.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import psutil
import redis

from agentrq import AsyncAgentClient, AsyncSession, Event, Message, Receipt, SessionEnded, StatusEvent
from agentrq.wire.ids import Cursor
from agentrq.wire.status import MOVES, Status
from agentrq_worker.process import marks
from tests.faults.proxy import Plan, Proxy
from tests.rq_checks import eventually, stuck
from tests.sessions import contents
from tests.workers import Worker, alive

LIGHT: Final = Path(__file__).parents[1] / "fakes" / "light.sh"
LIGHT_PROVIDER: Final = f'[providers.light]\ncommand = ["sh", "{LIGHT}"]\n'
LEASE_S: Final = 2.0
FAULTS: Final = ("kill", "kill", "freeze", "partition", "drain", "hand over")


def check_stream(events: list[Event]) -> None:
    """Cursors without a hole, epochs that only rise, statuses that may follow each other, an end that is the last."""
    places = [Cursor.parse(event.cursor) for event in events if event.cursor is not None]
    assert places[0] == (0, 1)
    for before, after in itertools.pairwise(places):
        assert after in {(before.epoch, before.seq + 1), (before.epoch + 1, 1)}, (before, after)
    statuses = [Status(event.status) for event in events if isinstance(event, StatusEvent)]
    for one, other in itertools.pairwise(statuses):
        assert other in MOVES[one], (one, other)
    assert isinstance(events[-1], StatusEvent)
    assert Status(events[-1].status).ended
    ids = [event.id for event in events if isinstance(event, Message)]
    assert len(ids) == len(set(ids))
    said = [content.text for content in contents(events, "text")]
    assert len(said) == len(set(said)), "something was said twice"


def leftovers(workers: set[int]) -> list[psutil.Process]:
    """Processes that bear the mark of a worker with one of these pids."""
    found = []
    for process in psutil.process_iter():
        mark = marks.parse_mark(marks.read_mark(process.pid))
        if mark is not None and mark.worker[0] in workers and alive(process):
            found.append(process)
    return found


class Deaths:
    """One run on one empty server. Use as an asynchronous context manager: it leaves no worker behind."""

    def __init__(self, url: str, config: Path, seed: int, workers: int = 3) -> None:
        self.faults: Counter[str] = Counter()
        self.recovered: list[float] = []
        """Seconds from a worker's death until each of its sessions had another owner."""
        self.sessions = 0
        self.begun = 0
        self.turns = 0
        self.cut_turns = 0
        self.events = 0
        self.moved = 0
        """Sessions that had more than one owner."""
        self.cleared: list[float] = []
        """Seconds from a worker's death until no process of its sessions was left."""
        self.drained: list[float] = []
        """Seconds from a worker's SIGTERM until its successor was ready."""
        self._url = url
        self._config = config
        self._chance = random.Random(seed)
        self._count = workers
        self._workers: list[Worker] = []
        self.raw: Any = redis.Redis.from_url(url)
        self._proxies: list[Proxy] = []
        self._pids: set[int] = set()
        self._ends = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Deaths:
        self.client = await self._ends.enter_async_context(AsyncAgentClient.from_url(self._url))
        target = Path(self.raw.connection_pool.connection_kwargs["path"])
        for _ in range(self._count):
            self._proxies.append(await self._ends.enter_async_context(Proxy(target, Plan(0, rate=0.0))))
        self._workers = list(
            await asyncio.gather(*(asyncio.to_thread(self._start, number) for number in range(self._count)))
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for proxy in self._proxies:
            proxy.thaw()
            proxy.up()
        await asyncio.gather(*(asyncio.to_thread(worker.close) for worker in self._workers))
        await self._ends.aclose()
        self.raw.close()

    def _start(self, number: int) -> Worker:
        args = ("--name", f"w{number}", "--lease-s", str(LEASE_S), "--beat-s", "0.4", "--stop-grace-s", "0.3",
                "--log-level", "INFO")  # fmt: skip
        worker = Worker(self._proxies[number].url, self._config, args, os.environ)
        self._pids.add(worker.pid)
        return worker.wait_ready()

    # -- what sessions do

    async def drive(self, turns: int, until: asyncio.Event | None = None) -> None:
        """One session: started, prompted (at least until then), stopped; then everything about it is checked."""
        slow = self._chance.random() < 0.7
        session = await self.client.start("light", "SLOW 0" if slow else "0", max_recoveries=1000)
        self.sessions += 1
        cursor = await self._idle(session, None)
        self.begun += 1
        sent: list[str] = []
        for number in itertools.count(1):
            if number >= turns and (until is None or until.is_set()):
                break
            command_id = f"{session.id}-{number}"
            sent.append(await session.prompt(f"SLOW {number}" if slow else str(number), command_id=command_id))
            cursor = await self._idle(session, cursor, command_id)
            self.turns += 1
        await session.stop()
        state = await session.wait(60)
        assert (state.status, state.reason) == ("done", "stopped"), state
        events = [event async for event in session.events()]
        check_stream(events)
        receipts = [event for event in events if isinstance(event, Receipt) and event.command == "prompt"]
        assert [(receipt.command_id, receipt.outcome) for receipt in receipts] == [(one, "applied") for one in sent]
        prompts = [content.command_id for content in contents(events, "prompt")]
        assert prompts == [session.id, *sent]
        assert state.cursor == events[-1].cursor
        self.events += len(events)
        self.moved += state.epoch > 1
        self.cut_turns += sum(isinstance(event, Message) and event.type == "error" for event in events)

    async def _idle(self, session: AsyncSession, after: str | None, command_id: str | None = None) -> str:
        """Until the session is idle, and has taken a command before."""
        taken = command_id is None
        async with asyncio.timeout(90):
            async for event in session.events(after):
                if isinstance(event, Receipt) and event.command_id == command_id:
                    taken = True
                if taken and isinstance(event, StatusEvent) and event.status == "idle":
                    return event.cursor
        raise SessionEnded(session.id, "ended")

    # -- what happens to workers

    async def torment(self, low: float = 0.4, high: float = 1.6) -> None:
        """One fault after the other, until cancelled; each is over before it is left."""
        while True:
            await asyncio.sleep(self._chance.uniform(low, high))
            fault, number = self._chance.choice(FAULTS), self._chance.randrange(self._count)
            self.faults[fault] += 1
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self._fault(fault, number, self._chance.uniform(0.3, 2.5 * LEASE_S)))
                try:
                    await asyncio.shield(task)
                except asyncio.CancelledError:
                    await task
                    raise

    async def _fault(self, fault: str, number: int, seconds: float) -> None:
        worker, proxy = self._workers[number], self._proxies[number]
        if fault == "kill":
            owned = self._owned(number)
            began = time.monotonic()
            worker.kill()
            async with asyncio.TaskGroup() as group:
                fresh = group.create_task(asyncio.to_thread(self._start, number))
                group.create_task(self._watch_recovery(owned, began))
                group.create_task(self._watch_leftovers({worker.pid}, began))
            worker.close()
            self._workers[number] = fresh.result()
        elif fault == "freeze":
            worker.freeze()
            await asyncio.sleep(seconds)
            worker.thaw()
        elif fault == "partition":
            proxy.freeze() if self._chance.random() < 0.5 else proxy.down()
            await asyncio.sleep(seconds)
            proxy.thaw()
            proxy.up()
        else:
            await self.drain(number, at_once=fault == "hand over")

    async def drain(self, number: int, *, at_once: bool = False) -> None:
        """End a worker well, and start another in its place."""
        worker, began = self._workers[number], time.monotonic()
        worker.process.terminate()
        if at_once:
            await asyncio.to_thread(worker.wait_log, "stopping: ")
            worker.process.terminate()
        assert await asyncio.to_thread(worker.process.wait, 60) == 0, "".join(worker.log)
        worker.close()
        self._workers[number] = await asyncio.to_thread(self._start, number)
        self.drained.append(time.monotonic() - began)

    def _owned(self, number: int) -> dict[str, bytes]:
        """Live sessions of a worker, with the token it owns them by."""
        found = {}
        for raw in self.raw.zrange("agentrq:sessions", 0, -1):
            sid = raw.decode()
            worker, token, status = self.raw.hmget(f"agentrq:{{{sid}}}:state", "worker", "token", "status")
            if worker == f"w{number}".encode() and token and status not in (b"done", b"error"):
                found[sid] = token
        return found

    async def _watch_recovery(self, owned: dict[str, bytes], began: float) -> None:
        async with asyncio.timeout(60):
            while owned:
                for sid, token in list(owned.items()):
                    now, status = self.raw.hmget(f"agentrq:{{{sid}}}:state", "token", "status")
                    if now != token or status in (b"done", b"error"):
                        del owned[sid]
                        self.recovered.append(time.monotonic() - began)
                await asyncio.sleep(0.05)

    async def _watch_leftovers(self, pids: set[int], began: float) -> None:
        await eventually(lambda: not leftovers(pids))
        self.cleared.append(time.monotonic() - began)

    async def finish(self) -> None:
        """All is calm: everything of RQ is at rest, then the workers end well and leave no process."""
        await eventually(lambda: not stuck(self.raw), "RQ at rest")
        statuses = {
            self.raw.hget(key, "status") for key in self.raw.scan_iter("rq:job:*") if self.raw.type(key) == b"hash"
        }
        assert statuses <= {b"finished"}, statuses
        codes = await asyncio.gather(*(asyncio.to_thread(worker.terminate) for worker in self._workers))
        assert codes == [0] * self._count
        await eventually(lambda: not leftovers(self._pids))
        assert not list(self.raw.scan_iter("agentrq:worker:*"))
        assert not self.raw.smembers("rq:workers")
        for worker in self._workers:
            assert not [line for line in worker.log if "Traceback" in line], "".join(worker.log)


async def run(url: str, config: Path, seed: int, sessions: int, turns: int) -> Deaths:
    """One whole run; raises what does not hold."""
    async with Deaths(url, config, seed) as deaths:
        async with asyncio.TaskGroup() as group:
            torment = group.create_task(deaths.torment())
            await asyncio.gather(*(deaths.drive(turns) for _ in range(sessions)))
            torment.cancel()
        await deaths.finish()
    return deaths


async def roll(url: str, config: Path, seed: int, sessions: int, turns: int) -> Deaths:
    """A rolling restart of all workers while sessions run turns; raises what does not hold."""
    async with Deaths(url, config, seed) as deaths:
        restarted = asyncio.Event()

        async def restart() -> None:
            await eventually(lambda: deaths.begun == sessions)
            for number in range(3):
                await deaths.drain(number)
            restarted.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(restart())
            for _ in range(sessions):
                group.create_task(deaths.drive(turns, restarted))
        await deaths.finish()
    return deaths


def spread(values: Any) -> str:
    """Figures on one line: how many, least, median, 90 %, most."""
    ordered = sorted(values)
    if not ordered:
        return "none"
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0, 0.5, 0.9, 1)]
    return f"n={len(ordered)} min={at[0]:.2f} median={at[1]:.2f} p90={at[2]:.2f} max={at[3]:.2f}"
