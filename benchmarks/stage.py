"""What a figure runs on: a private server, a real worker, processes that read or stand in for the worker.

Owns starting, talking to and ending them, and what the system says of them. Measures nothing itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final, Self

import psutil

from agentrq import AsyncAgentClient, AsyncSession, StatusEvent
from agentrq.embedded.server_process import ServerProcess
from benchmarks import corpus, native

ROOT: Final = Path(__file__).parent.parent
WAIT_S: Final = 120.0
_LIMIT: Final = 1 << 20


class Helper:
    """A process that is spoken with by lines: a reader, a peer."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.system = psutil.Process(process.pid)

    @classmethod
    async def start(cls, *argv: str, env: dict[str, str] | None = None) -> Self:
        """Start it; its stderr is ours."""
        pipes = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=pipes, stdout=pipes, limit=_LIMIT, cwd=ROOT, env=os.environ | (env or {})
        )
        return cls(process)

    @classmethod
    async def module(cls, name: str, *arguments: str) -> Self:
        """Start a Python module."""
        return await cls.start(sys.executable, "-m", name, *arguments)

    def say(self, line: str) -> None:
        """One line to it."""
        assert self.process.stdin
        self.process.stdin.write(line.encode() + b"\n")

    async def hear(self) -> str:
        """Its next line. Raises EOFError when it has ended."""
        assert self.process.stdout
        async with asyncio.timeout(WAIT_S):
            line = await self.process.stdout.readline()
        if not line:
            raise EOFError(f"a helper ended: {self.process}")
        return line.decode().strip()

    async def round(self) -> dict[str, float]:
        """A reader's account of the round."""
        found: dict[str, float] = json.loads(await self.hear())
        return found

    async def close(self) -> None:
        """End it without ado: what it had started ends with its pipes."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


def cpu(process: psutil.Process) -> float:
    """CPU seconds of a process so far, its children not counted."""
    times = process.cpu_times()
    return float(times.user + times.system)


def pss(process: psutil.Process) -> float:
    """Bytes of memory of a process, its share of what it has in common with others (RSS where there is no PSS)."""
    try:
        return float(process.memory_full_info().pss)
    except (AttributeError, psutil.AccessDenied):
        return float(process.memory_info().rss)


class Stage:
    """A server and a worker for one figure, and a client."""

    def __init__(self, directory: Path, server: ServerProcess, client: AsyncAgentClient) -> None:
        self.directory = directory
        self.server = server
        self.url = server.url
        self.client = client
        self.redis = psutil.Process(server.pid)
        self.corpora = corpus.write(directory)
        self.helpers: list[Helper] = []

    async def worker(self, *options: str, name: str = "bench") -> Helper:
        """A real worker that is ready; its providers are the corpora."""
        config = self.directory / "agentrq.toml"
        config.write_text("".join(
            f"[providers.{provider}]\nparser = \"claude\"\ncommand = {json.dumps(native.flood(path))}\n"
            for provider, path in self.corpora.items()
        ))  # fmt: skip
        arguments = ("--redis", self.url, "--config", str(config), "--name", name, "--log-level", "ERROR", *options)
        worker = await Helper.module("agentrq_worker", *arguments)
        self.helpers.append(worker)
        key = self.client.context.keys.worker(name)
        async with asyncio.timeout(WAIT_S), self.client_redis() as raw:
            while not await raw.exists(key):
                if worker.process.returncode is not None:
                    raise EOFError("the worker ended")
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.3)  # the lease comes shortly before the queues are read
        return worker

    async def helper(self, name: str, *arguments: str, ready: bool = False) -> Helper:
        """A Python module of the benchmarks as a process; ``ready``: it says so first."""
        helper = await Helper.module(name, *arguments)
        self.helpers.append(helper)
        if ready:
            await helper.hear()
        return helper

    async def reader(self, sessions: Iterable[AsyncSession], *, timed: bool = False) -> Helper:
        """The product's reader, following sessions from where they stand."""
        places = [f"{session.id}={(await session.state()).cursor}" for session in sessions]
        return await self.helper("benchmarks.reader", self.url, "timed" if timed else "untimed", *places, ready=True)

    @contextlib.asynccontextmanager
    async def client_redis(self) -> AsyncIterator[Any]:
        """A plain redis-py client."""
        import redis.asyncio  # noqa: PLC0415

        async with redis.asyncio.Redis.from_url(self.url) as client:
            yield client

    async def sessions(self, count: int, provider: str) -> list[AsyncSession]:
        """Idle sessions of a flooding provider."""
        gate = asyncio.Semaphore(50)

        async def start() -> AsyncSession:
            async with gate:
                return await self.client.start(provider, "flood 0")

        sessions = await asyncio.gather(*(start() for _ in range(count)))
        await self.idle(sessions, ["0-1"] * count)
        return sessions

    async def idle(self, sessions: list[AsyncSession], after: list[str]) -> None:
        """Wait until each session is idle (again), as told after a cursor."""

        async def one(session: AsyncSession, cursor: str) -> None:
            async for event in session.events(cursor):
                if isinstance(event, StatusEvent) and event.status == "idle":
                    return
                if isinstance(event, StatusEvent) and event.status in ("done", "error"):
                    raise RuntimeError(f"session {session.id} ended: {event}")

        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*(one(session, cursor) for session, cursor in zip(sessions, after, strict=True)))

    async def prompt(self, sessions: list[AsyncSession], text: str) -> None:
        """The same prompt to all."""
        await asyncio.gather(*(session.prompt(text) for session in sessions))

    async def turns(self, sessions: list[AsyncSession], text: str) -> None:
        """The same prompt to all, and wait for the ends of their turns: by the status channel, so at no cost."""
        async with self.client_redis() as raw, raw.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(*(self.client.context.keys.status_channel(session.id) for session in sessions))
            await self.prompt(sessions, text)
            left = len(sessions)
            async with asyncio.timeout(WAIT_S):
                while left:
                    hint = await pubsub.get_message(timeout=1)
                    left -= hint is not None and b'"status":"idle"' in hint["data"]

    async def close(self, *helpers: Helper) -> None:
        """End helpers, the newest first."""
        for helper in helpers:
            self.helpers.remove(helper)
            await helper.close()


def _adopt() -> None:
    """Become the parent of runners whose worker is gone, so that they can be waited for (prctl(2), Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1)


def _bury() -> None:
    """Wait for what is left, and end what does not end with its pipes."""
    deadline = time.monotonic() + 5
    while (left := psutil.Process().children()) and time.monotonic() < deadline:
        _, alive = psutil.wait_procs(left, timeout=1)
        for process in alive:
            process.kill()


@contextlib.asynccontextmanager
async def stage(*server_options: str) -> AsyncIterator[Stage]:
    """A server of its own and all that is started on it; nothing is left behind."""
    _adopt()
    with tempfile.TemporaryDirectory(prefix="agentrq-bench-") as name, contextlib.ExitStack() as at_last:
        at_last.callback(_bury)
        directory = Path(name)
        with ServerProcess(directory / "data", args=server_options) as server:
            async with AsyncAgentClient.from_url(server.url) as client:
                built = Stage(directory, server, client)
                try:
                    yield built
                finally:
                    for helper in reversed(built.helpers):
                        await helper.close()
