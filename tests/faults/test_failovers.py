"""Sentinel promotes a replica that is behind: what was lost is given back or told, and no session is stuck."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from agentrq import AsyncAgentClient, AsyncSession, Message, SessionEnded, SessionNotFound
from agentrq.embedded.server_process import ServerProcess, find_server
from agentrq.wire.keys import Keys
from tests.faults import waiting
from tests.faults.retries import patiently
from tests.sessions import until
from tests.workers import Worker, free_port

FAST = ("--lease-s", "4", "--beat-s", "1", "--stop-grace-s", "1")
SENTINELS = 3


class Group:
    """One master, one replica and three sentinels."""

    def __init__(self, directory: Path, master: ServerProcess, replica: ServerProcess, sentinels: list[int]) -> None:
        self.directory = directory
        self.master = master
        self.replica = replica
        self.url = "sentinel://" + ",".join(f"127.0.0.1:{port}" for port in sentinels) + "/main"
        self._sentinels = sentinels

    async def wait_until_complete(self) -> None:
        """Until every sentinel knows the replica and the other sentinels, and the replica follows."""
        async with contextlib.AsyncExitStack() as stack:
            replica = await stack.enter_async_context(redis.asyncio.Redis.from_url(self.replica.url))
            watchers = [await stack.enter_async_context(redis.asyncio.Redis(port=port)) for port in self._sentinels]

            async def complete() -> bool:
                for watcher in watchers:
                    replicas = await watcher.execute_command("SENTINEL", "REPLICAS", "main")
                    others = await watcher.execute_command("SENTINEL", "SENTINELS", "main")
                    if len(replicas) != 1 or len(others) != SENTINELS - 1:
                        return False
                return bool((await replica.info("replication"))["master_link_status"] == "up")

            await waiting.true(complete)

    async def cut_replication(self) -> None:
        """The replica gets nothing more from here on."""
        async with redis.asyncio.Redis.from_url(self.replica.url) as replica:
            await replica.execute_command("REPLICAOF", "127.0.0.1", free_port())

    async def fail_over(self) -> None:
        """The master dies; wait until the replica is the master."""
        self.master.kill()
        async with redis.asyncio.Redis.from_url(self.replica.url) as replica:

            async def promoted() -> bool:
                return bool((await replica.info("replication"))["role"] == "master")

            await waiting.true(promoted)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    ports = [free_port() for _ in range(2 + SENTINELS)]
    program = tmp_path / "valkey-sentinel"
    shutil.copy(find_server(), program)
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(ServerProcess(tmp_path / "a", port=ports[0]))
        replica = stack.enter_context(
            ServerProcess(tmp_path / "b", port=ports[1], args=("--replicaof", "127.0.0.1", str(ports[0])))
        )
        for port in ports[2:]:
            directory = tmp_path / f"sentinel-{port}"
            directory.mkdir()
            conf = directory / "sentinel.conf"
            conf.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {directory}\nsentinel monitor main 127.0.0.1 {ports[0]} 2\n"
                "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n"
            )
            sentinel = stack.enter_context(subprocess.Popen([program, conf, "--sentinel"], stdout=subprocess.DEVNULL))
            stack.callback(sentinel.terminate)
        yield Group(tmp_path, master, replica, ports[2:])


async def works(session: AsyncSession) -> bool:
    """Whether the session takes a prompt and answers it, or has ended; False where it is not known any more."""
    try:
        state = await patiently(session.state)
        if state.status.ended:
            return True
        receipt = await patiently(lambda: session.prompt("/echo after", wait=True, timeout=20))
        assert receipt is not None
        assert receipt.outcome == "applied", receipt
        await until(session, "idle", receipt.cursor)
    except SessionNotFound:
        return False
    except SessionEnded:  # its end was lost for a moment, and repeated
        return True
    return True


async def texts(session: AsyncSession) -> list[str]:
    """What was prompted, as its events tell."""
    found = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2):
            async for event in session.events():
                if isinstance(event, Message) and event.type == "prompt":
                    found.append(event.content.text)
    return found


@pytest.mark.long
@pytest.mark.parametrize("killed", [False, True], ids=["workers live", "a worker dies with the master"])
async def test_no_session_is_stuck_whatever_a_failover_lost(group: Group, config: Path, killed: bool) -> None:
    await group.wait_until_complete()
    workers = [Worker(group.url, config, (*FAST, "--name", f"w{number}"), os.environ) for number in range(2)]
    try:
        for worker in workers:
            worker.wait_ready()
        async with asyncio.timeout(240), AsyncAgentClient.from_url(group.url) as client:
            names = ("quiet", "prompted", "ended", "removed", "again")
            sessions = {name: await client.start("demo", "/echo hello", name) for name in names}
            for session in sessions.values():
                await until(session, "idle")
            await group.cut_replication()
            receipt = await sessions["prompted"].prompt("/echo once", command_id="once", wait=True)
            assert receipt is not None
            await until(sessions["prompted"], "idle", receipt.cursor)
            await sessions["ended"].stop()
            await sessions["ended"].wait(20)
            for name in ("removed", "again"):
                await sessions[name].remove()
            again = await client.start("demo", "/echo a later life", "again")
            await until(again, "idle")
            short = await client.start("demo", "/echo short", "short")
            await until(short, "idle")
            await short.stop()
            await short.wait(20)
            new = await client.start("demo", "/echo new", "new")
            await until(new, "idle")
            if killed:
                workers[0].kill()
            await group.fail_over()

            known = {name: await works(session) for name, session in {**sessions, "short": short, "new": new}.items()}
            owners_live = not killed
            assert known["quiet"]
            assert known["prompted"]
            assert known["ended"]
            assert known["again"]
            if owners_live:
                assert known["new"]
                assert known["short"]
                assert (await patiently(short.state)).status == "done"
                assert (await patiently(sessions["ended"].state)).status == "done"
                assert (await texts(sessions["prompted"])).count("/echo once") == 1
                assert "/echo a later life" in await texts(again)

            # Nothing stays open: every session is served or over, and RQ knows it.
            async with redis.asyncio.Redis.from_url(group.replica.url) as raw:

                async def settled() -> bool:
                    names: Any = await raw.zrange(Keys().sessions, 0, -1)
                    for sid in [name.decode() for name in names]:
                        fields: Any = await raw.hmget(Keys().state(sid), "status", "worker")
                        status, worker = fields
                        job: Any = await raw.hget(f"rq:job:{sid}", "status")
                        if status in (b"done", b"error"):
                            if job in (b"started", b"queued"):
                                return False
                        elif status != b"idle" or not await raw.exists(Keys().worker(worker.decode())):
                            return False
                    return True

                await waiting.true(settled, 60)
    finally:
        for worker in workers:
            worker.close()
