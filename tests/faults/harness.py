"""Seeded runs: a session written by the real publisher, read by many readers, through networks that fail.

Owns one run and its property: every reader's sequence is the written one from where he attached, exactly, however
often he died and came back with the last cursor he saw. ``python -m tests.faults.harness 1000`` runs many.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from unittest import mock

import redis
import redis.asyncio

from agentrq import AgentClient, AsyncAgentClient, SessionExists
from agentrq.client import asyncio_client, sync_client
from agentrq.connection import connect_async
from agentrq.embedded.server_process import ServerProcess
from agentrq.wire.keys import Keys
from agentrq.wire.messages import TextDelta
from agentrq_worker.ownership.ownership import Ownership
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.settings import Settings
from agentrq_worker.stream.publisher import Publisher
from tests.faults.proxy import Plan, Proxy
from tests.faults.restarts import Restartable
from tests.faults.writing import Seen, Writer, claimed, publishing, seen

RUN_S = 110.0
"""The longest a run may take; nearly all take one or two, on a machine that has nothing else to do."""
CHECK_AGAIN_S = 600.0
"""Readers have to hear of everything: their look at the stream after a silence must not save them."""


class Result(NamedTuple):
    """What a run did."""

    faults: Counter[str]
    events: int
    compared: int


class Run:
    """One seed."""

    def __init__(
        self, seed: int, server: ServerProcess | Restartable, threads: ThreadPoolExecutor, spool: Path
    ) -> None:
        self.seed = seed
        self.server = server
        self.compared = 0
        self.threaded: list[AgentClient] = []
        """Clients in threads, which no cancellation reaches: closed by whoever gives the run up."""
        self._chance = random.Random(seed)
        self._threads = threads
        self._plans = [Plan(seed * 10 + part) for part in range(3)]
        self._settings = Settings(
            max_pending=self._chance.choice((20_000, 200_000, 50_000_000)),
            max_spool=self._chance.choice((0, 100_000, 100_000_000)),
            spool_dir=str(spool),
            name=f"w{seed}",
        )

    async def __call__(self) -> Result:
        expected: list[Seen] = []
        self._sid = f"seed-{self.seed}"
        async with asyncio.timeout(RUN_S), AsyncAgentClient.from_url(self.server.url) as direct:
            with contextlib.suppress(SessionExists):  # a try that failed may have begun it
                await _patiently(lambda: direct.start("demo", "hello", self._sid))
        expected.append(("0-1", "status", "queued"))
        async with (
            asyncio.timeout(RUN_S),
            Proxy(self.server.path, self._plans[0]) as first,
            Proxy(self.server.path, self._plans[1]) as second,
            Proxy(self.server.path, self._plans[2]) as network,
            AsyncAgentClient.from_url(network.url) as shared,
            asyncio.TaskGroup() as group,
        ):
            readings = []
            async with publishing(first.url, self._settings) as (publisher, ownership):
                writer = Writer(await claimed(publisher, ownership, self._sid), self._chance)
                expected.append(("1-1", "status", "starting"))
                for number in range(5):
                    reader = self._reader(number, shared, network.url, writer)
                    readings.append(group.create_task(reader, name=f"reader {number}"))
                await writer.talk(self._chance.randint(20, 120))
                if self._chance.random() < 0.3:
                    async with publishing(second.url, self._settings) as (other, new_owner):
                        successor = await self._take_over(first, writer, other, new_owner, expected)
                        await self._finish(successor, expected)
                    assert writer.lane.lost == "fenced", writer.lane.lost
                else:
                    await self._finish(writer, expected)
            for reading in readings:
                await reading
        for reading in readings:
            start, sequence = reading.result()
            at = [cursor for cursor, _, _ in expected].index(start) + 1 if start is not None else 0
            _same(f"a reader from {start}", sequence, expected[at:])
            self.compared += len(sequence)
        await self._check_stream(expected)
        faults = sum((plan.injected for plan in self._plans), Counter())
        return Result(faults, len(expected), self.compared)

    async def _finish(self, writer: Writer, expected: list[Seen]) -> None:
        await writer.talk(self._chance.randint(20, 120))
        writer.end()
        await writer.lane.flush()
        expected += writer.said

    async def _take_over(
        self, network: Proxy, writer: Writer, other: Publisher, new_owner: Ownership, expected: list[Seen]
    ) -> Writer:
        """The owner's network stands still, with words on the way; another claims; then the first one comes back."""
        await writer.talk(5)
        network.freeze()
        for _ in range(20):
            writer.say()
        await asyncio.sleep(self._chance.choice((0.0, 0.05)))
        lane = await claimed(other, new_owner, self._sid)
        async with connect_async(
            self.server.url
        ) as raw:  # redis-py's own may swallow a cancellation, see connection.py
            (place, _), *_ = await _patiently(
                lambda: raw.xrevrange(Keys().events(self._sid), f"({lane.epoch}-0", "-", count=1)
            )
        stands = int(place.split(b"-")[1])
        assert writer.lane.written <= stands
        expected += writer.said[: stands - 1]  # behind the claim's own
        expected += [(f"{lane.epoch}-1", "status", "recovering"), (f"{lane.epoch}-2", "status", "starting")]
        writer.lane.add_messages([DraftMessage("text_delta", TextDelta("too late", "b", 0))])
        writer.say()
        network.thaw()
        lost = asyncio.Event()
        if writer.lane.lost is None:
            writer.lane.on_lost = lambda _: lost.set()
            await lost.wait()
        return Writer(lane, self._chance)

    async def _reader(
        self, number: int, shared: AsyncAgentClient, url: str, writer: Writer
    ) -> tuple[str | None, list[Seen]]:
        """Read to the end, dying and coming back; answers where it began and all it saw."""
        chance = random.Random(f"{self.seed}/{number}")
        await asyncio.sleep(chance.uniform(0.0, 0.2))
        start = chance.choice((None, "0-1", f"1-{chance.randint(1, writer.lane.written)}"))
        after, sequence = start, list[Seen]()
        over = False
        while not over:
            lives = chance.choice((1, 10, 50, 10_000))
            kind = chance.choice(("shared", "shared", "own", "sync"))
            try:
                if kind == "sync":
                    over = await asyncio.get_running_loop().run_in_executor(
                        self._threads, self._read_sync, url, after, lives, sequence
                    )
                elif kind == "own":
                    async with AsyncAgentClient.from_url(url) as client:
                        over = await self._read(client, after, lives, sequence, chance)
                else:
                    over = await self._read(shared, after, lives, sequence, chance)
            except (redis.RedisError, OSError):
                await asyncio.sleep(0.01)  # it could not even begin: as any user, it tries again
            after = sequence[-1][0] if sequence else start
        return start, sequence

    async def _read(
        self, client: AsyncAgentClient, after: str | None, lives: int, sequence: list[Seen], chance: random.Random
    ) -> bool:
        """True when the session's end was reached, False for a death before."""
        async for event in client.session(self._sid).events(after):
            sequence.append(seen(event))
            lives -= 1
            if lives == 0:
                return False
            if chance.random() < 0.02:
                await asyncio.sleep(0.02)  # a slow one
        return True

    def _read_sync(self, url: str, after: str | None, lives: int, sequence: list[Seen]) -> bool:
        with AgentClient.from_url(url) as client:
            self.threaded.append(client)
            for event in client.session(self._sid).events(after):
                sequence.append(seen(event))
                lives -= 1
                if lives == 0:
                    return False
        return True

    async def _check_stream(self, expected: list[Seen]) -> None:
        async with AsyncAgentClient.from_url(self.server.url) as direct:
            session = direct.session(self._sid)
            async with asyncio.timeout(RUN_S):
                state = await _patiently(session.state)
                stream = await _patiently(lambda: _all(session))
        _same("the stream", stream, expected)
        assert (state.status, state.cursor) == ("done", expected[-1][0])


async def _all(session: Any) -> list[Seen]:
    return [seen(event) async for event in session.events()]


async def _patiently(call: Callable[[], Any]) -> Any:
    """What the harness itself asks has to get through the server's faults as well."""
    while True:
        try:
            return await call()
        except (redis.RedisError, OSError):
            await asyncio.sleep(0.05)


def _same(who: str, got: list[Seen], expected: list[Seen]) -> None:
    if got == expected:
        return
    at = next((i for i, pair in enumerate(zip(got, expected, strict=False)) if pair[0] != pair[1]), None)
    at = min(len(got), len(expected)) if at is None else at
    raise AssertionError(f"{who}: {len(got)} events for {len(expected)}, they part at {at}: "
                         f"{str(got[at : at + 3])[:500]} for {str(expected[at : at + 3])[:500]}")  # fmt: skip


Server: TypeAlias = ServerProcess | Restartable
Chaos: TypeAlias = Callable[[Any, random.Random], Any]


async def run_seeds(
    seeds: Iterable[int], server: Server, chaos: Chaos | None = None, together: int = 8
) -> list[Result]:
    """Run seeds side by side on one server; raises an AssertionError that names the first that fails."""
    gate, results, threads = asyncio.Semaphore(together), list[Result](), ThreadPoolExecutor(2 * together)
    seeds = list(seeds)

    async def one(seed: int, spool: Path) -> None:
        async with gate:
            run = Run(seed, server, threads, spool)
            try:
                results.append(await run())
            except (Exception, BaseExceptionGroup) as error:
                again = f"AGENTRQ_FAULT_SEED={seed} pytest tests/faults/test_seeds.py"
                raise AssertionError(f"seed {seed} fails; replay: {again}: {error!r}") from error
            finally:
                for client in run.threaded:
                    client.close()

    with (
        tempfile.TemporaryDirectory() as spool,
        mock.patch.object(asyncio_client, "CHECK_AGAIN_S", CHECK_AGAIN_S),
        mock.patch.object(sync_client, "CHECK_AGAIN_S", CHECK_AGAIN_S),
    ):
        try:
            async with asyncio.TaskGroup() as group:
                storm = group.create_task(chaos(server, random.Random(seeds[0]))) if chaos else None
                async with asyncio.TaskGroup() as runs:
                    for seed in seeds:
                        runs.create_task(one(seed, Path(spool)), name=f"seed {seed}")
                if storm:
                    storm.cancel()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
        assert not list(Path(spool).iterdir()), "spool files were left behind"
    return results


def main(count: int) -> None:
    """Run ``count`` seeds and print what they did."""
    from tests.faults.chaos import storm

    logging.disable(logging.WARNING)
    began, faults, events, compared = time.monotonic(), Counter[str](), 0, 0
    with tempfile.TemporaryDirectory() as directory, ServerProcess(Path(directory)) as server:
        for first in range(0, count, 50):
            for result in asyncio.run(run_seeds(range(first, min(first + 50, count)), server, storm)):
                faults += result.faults
                events += result.events
                compared += result.compared
            print(f"{first + 50} seeds, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{count} seeds: {events} events written, {compared} compared, faults of the network {dict(faults)}, "
          f"of the server {dict(storm.injected)}, {time.monotonic() - began:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
