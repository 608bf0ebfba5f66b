"""A TCP proxy between a client and the server that injects faults by a seeded plan.

Owns the faults of the network: cuts (also in the middle of a reply), delays, lost replies, half-closed connections,
and on demand a network that is down or still. The faults of the server itself are chaos.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from pathlib import Path
from typing import Final, Self
from urllib.parse import unquote, urlsplit

CHUNK: Final = 16 * 1024


class Plan:
    """Which fault comes when: the same seed gives every connection the same draws, in the order they are made."""

    FAULTS: Final = ("delay", "delay", "cut", "drop_reply", "half_close")

    def __init__(self, seed: int, rate: float = 0.05) -> None:
        """``rate``: the share of chunks that meet a fault."""
        self._seed = seed
        self._rate = rate
        self._connections = 0
        self.injected: Counter[str] = Counter()

    def connection(self) -> random.Random:
        self._connections += 1
        return random.Random(f"{self._seed}:{self._connections}")

    def draw(self, chance: random.Random, upward: bool) -> str | None:
        if chance.random() >= self._rate:
            return None
        fault = chance.choice(self.FAULTS)
        if fault == "drop_reply" and not upward:
            fault = "cut"
        self.injected[fault] += 1
        return fault

    def begin(self, rate: float) -> None:
        """Faults from now on, at this rate."""
        self._rate = rate

    def calm(self) -> None:
        """No more faults."""
        self._rate = 0.0


class Proxy:
    """Listens on loopback while its context lasts; `url` leads through it to the server at ``target``."""

    def __init__(self, target: Path | int, plan: Plan) -> None:
        """``target``: a unix socket, or a port of 127.0.0.1."""
        self.plan = plan
        self.connections = 0
        """How many were made so far."""
        self._target = target
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._down = False

    @classmethod
    def to(cls, url: str, plan: Plan | None = None) -> Self:
        """To the server that listens at a ``unix://`` URL; without a plan its only faults are those on demand."""
        return cls(Path(unquote(urlsplit(url).path)), plan or Plan(0, 0.0))

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.thaw()
        while self._tasks:  # each ends with its connection; one may be about to connect
            self.down()
            await asyncio.wait(self._tasks, timeout=0.1)

    # -- on demand

    def cut(self) -> None:
        """Cut every connection."""
        for writer in self._open:
            writer.transport.abort()

    def down(self) -> None:
        """Cut every connection and refuse new ones, until `up`."""
        self._down = True
        self.cut()

    def up(self) -> None:
        self._down = False

    def freeze(self) -> None:
        """Hold back all that is sent, until `thaw`."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    # -- a connection

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        ends = [writer]
        self._open.add(writer)
        try:
            if self._down:
                return
            connect = (
                asyncio.open_unix_connection(self._target)
                if isinstance(self._target, Path)
                else asyncio.open_connection("127.0.0.1", self._target)
            )
            server_reader, server_writer = await connect
            ends.append(server_writer)
            self._open.add(server_writer)
            chance, doomed = self.plan.connection(), asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, server_writer, chance, doomed, ends, upward=True))
                group.create_task(self._pump(server_reader, writer, chance, doomed, ends, upward=False))
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            for end in ends:
                self._open.discard(end)
                end.transport.abort()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        chance: random.Random,
        doomed: asyncio.Event,
        ends: list[asyncio.StreamWriter],
        *,
        upward: bool,
    ) -> None:
        while chunk := await source.read(CHUNK):
            await self._flowing.wait()
            if doomed.is_set() and not upward:
                fault: str | None = "lose"
            else:
                fault = self.plan.draw(chance, upward)
            if fault == "delay":
                await asyncio.sleep(chance.uniform(0.0, 0.03))
            elif fault in ("cut", "lose"):
                if fault == "cut":  # anywhere in it
                    sink.write(chunk[: chance.randrange(len(chunk) + 1)])
                    with contextlib.suppress(OSError):
                        await sink.drain()
                for end in ends:
                    end.transport.abort()
                return
            elif fault == "drop_reply":
                doomed.set()
            sink.write(chunk)
            await sink.drain()
            if fault == "half_close":
                break
        if not sink.is_closing():
            sink.write_eof()
