"""Faults of the server itself: killed clients, pauses, a full memory, a read-only spell, a server that stands still.

Owns `storm`, which brings them until it is cancelled and leaves the server as it found it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter

import redis.asyncio

from agentrq.connection import connect_async
from agentrq.embedded.server_process import ServerProcess


class Storm:
    """Call it to begin; `injected` counts over all calls."""

    def __init__(self) -> None:
        self.injected: Counter[str] = Counter()

    async def __call__(self, server: ServerProcess, chance: random.Random) -> None:
        async with connect_async(server.url) as admin:
            while True:
                await asyncio.sleep(chance.uniform(0.1, 0.4))
                fault = chance.choice((kill, kill, pause, full, read_only, stand_still))
                self.injected[fault.__name__] += 1
                await fault(server, admin, chance)


async def kill(_: ServerProcess, admin: redis.asyncio.Redis, chance: random.Random) -> None:
    """CLIENT KILL: every subscriber, or everybody else."""
    await admin.execute_command("CLIENT", "KILL", "TYPE", chance.choice(("normal", "pubsub")), "SKIPME", "yes")


async def pause(_: ServerProcess, admin: redis.asyncio.Redis, chance: random.Random) -> None:
    """CLIENT PAUSE: nobody, or no writer, is served for a while."""
    await admin.execute_command("CLIENT", "PAUSE", chance.randint(10, 80), chance.choice(("ALL", "WRITE")))


async def full(_: ServerProcess, admin: redis.asyncio.Redis, chance: random.Random) -> None:
    """No memory left: writes are refused (OOM)."""
    await _for_a_while(admin, ("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"), chance)


async def read_only(_: ServerProcess, admin: redis.asyncio.Redis, chance: random.Random) -> None:
    """A replica for a while, of a master that is not there: writes are refused (READONLY)."""
    await _for_a_while(admin, ("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), chance)


async def stand_still(server: ServerProcess, _: redis.asyncio.Redis, chance: random.Random) -> None:
    """SIGSTOP, and SIGCONT after a while."""
    try:
        os.kill(server.pid, signal.SIGSTOP)
        await asyncio.sleep(chance.uniform(0.01, 0.1))
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def _for_a_while(
    admin: redis.asyncio.Redis, begin: tuple[str, ...], end: tuple[str, ...], chance: random.Random
) -> None:
    try:
        await admin.execute_command(*begin)
        await asyncio.sleep(chance.uniform(0.01, 0.08))
    finally:
        with contextlib.suppress(redis.ConnectionError):
            await admin.execute_command(*end)


storm = Storm()
