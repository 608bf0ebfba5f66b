"""Each way a server can refuse or vanish: the writer waits, readers wait, then all is there, once and in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis
import redis.asyncio

from agentrq import AsyncAgentClient
from agentrq.embedded.server_process import ServerProcess, find_server
from agentrq.wire.ids import Cursor
from agentrq.wire.keys import Keys
from agentrq.wire.messages import Text
from agentrq.wire.status import Reason, Status
from agentrq_worker.settings import Settings
from tests.faults import waiting
from tests.faults.proxy import Plan, Proxy
from tests.faults.restarts import Restartable
from tests.faults.waiting import SETTINGS, a_lane
from tests.faults.writing import Seen, claimed, publishing, seen
from tests.sessions import until
from tests.workers import Worker, free_port

Admin = redis.asyncio.Redis


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, args=("--appendonly", "no")) as server:
        yield server


@contextlib.asynccontextmanager
async def configured(admin: Admin, *pairs: tuple[str, str, str]) -> AsyncIterator[None]:
    """Settings of the server for a while: name, value, value afterwards."""
    for name, value, _ in pairs:
        await admin.config_set(name, value)
    yield
    for name, _, value in pairs:
        await admin.config_set(name, value)


@contextlib.asynccontextmanager
async def replica(admin: Admin, stale: str) -> AsyncIterator[None]:
    async with configured(admin, ("replica-serve-stale-data", stale, "yes")):
        await admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        yield
        await admin.execute_command("REPLICAOF", "NO", "ONE")


@contextlib.asynccontextmanager
async def busy(admin: Admin) -> AsyncIterator[None]:
    """A script that does not end: everybody else is answered BUSY."""
    async with configured(admin, ("busy-reply-threshold", "1", "5000")), asyncio.TaskGroup() as group:

        async def for_ever() -> None:
            kind, settings = admin.connection_pool.connection_class, admin.connection_pool.connection_kwargs
            async with Admin.from_pool(redis.asyncio.ConnectionPool(kind, **settings)) as other:
                with contextlib.suppress(redis.ResponseError):
                    await other.eval("while true do end", 0)

        group.create_task(for_ever())

        async def is_busy() -> bool:
            with contextlib.suppress(redis.ResponseError):
                await admin.ping()
                return False
            return True

        await waiting.true(is_busy)
        yield
        await admin.script_kill()


@contextlib.asynccontextmanager
async def locked(admin: Admin) -> AsyncIterator[None]:
    """A password that nobody was told, and everybody disconnected."""
    async with configured(admin, ("requirepass", "secret", "")):
        for kind in ("normal", "pubsub"):
            await admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        yield


REFUSALS: dict[str, Callable[[Admin], contextlib.AbstractAsyncContextManager[None]]] = {
    "OOM": lambda admin: configured(admin, ("maxmemory", "1", "0")),
    "NOREPLICAS": lambda admin: configured(admin, ("min-replicas-to-write", "1", "0")),
    "READONLY": lambda admin: replica(admin, "yes"),
    "MASTERDOWN": lambda admin: replica(admin, "no"),
    "BUSY": busy,
    "NOAUTH": locked,
}


@contextlib.asynccontextmanager
async def followed(url: str) -> AsyncIterator[list[Seen]]:
    """What a reader sees from the beginning; leaving waits for the end."""
    sequence: list[Seen] = []

    async def follow() -> None:
        async with AsyncAgentClient.from_url(url) as client:
            async for event in client.session("s").events():
                sequence.append(seen(event))

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(follow())
        yield sequence


def whole(sequence: list[Seen], events: int) -> None:
    """From the start, without hole or double."""
    assert [cursor for cursor, _, _ in sequence] == ["0-1", *(f"1-{seq}" for seq in range(1, events + 1))]


@pytest.mark.parametrize("how", REFUSALS)
async def test_refused_writes_are_made_later(server: ServerProcess, how: str) -> None:
    async with a_lane(server.url) as (lane, publisher), followed(server.url) as sequence:
        lane.add_message("text", Text("before"))
        await waiting.true(lambda: len(sequence) == 3)
        async with Admin.from_url(server.url, single_connection_client=True) as admin, REFUSALS[how](admin):
            for number in range(600):
                lane.add_message("text", Text(str(number)))
            await waiting.true(lambda: publisher.away_since is not None)
            assert lane.written == 2
        lane.add_end(Status.DONE, Reason.COMPLETED, None)
        await lane.flush()
        assert lane.lost is None
    whole(sequence, 603)


async def test_flushed_scripts_are_loaded_again(server: ServerProcess) -> None:
    async with a_lane(server.url) as (lane, _), followed(server.url) as sequence:
        async with Admin.from_url(server.url) as admin:
            for number in range(20):
                lane.add_message("text", Text(str(number)))
                await admin.script_flush()
                await lane.flush()
        lane.add_end(Status.DONE, Reason.COMPLETED, None)
    whole(sequence, 22)


async def test_a_refusal_of_one_session_costs_the_others_nothing(server: ServerProcess) -> None:
    async with a_lane(server.url) as (lane, publisher), followed(server.url) as sequence:
        other = publisher.open_log("other", Cursor(lane.epoch, lane.written), {"claim": "another"})
        async with Admin.from_url(server.url) as admin:
            await admin.set(other.target.keys[0], "no hash at all")
            for number in range(50):
                lane.add_message("text", Text(str(number)))
                other.add_message("text", Text(str(number)))
            await lane.flush()
            await other.flush()
        assert other.lost == "refused"
        lane.add_end(Status.DONE, Reason.COMPLETED, None)
    whole(sequence, 52)


async def test_a_cut_network_loses_nothing(server: ServerProcess) -> None:
    async with (
        Proxy(server.path, Plan(0, 0.0)) as network,
        a_lane(network.url) as (lane, publisher),
        followed(network.url) as sequence,
    ):
        await waiting.true(lambda: len(sequence) == 2)
        network.down()
        for number in range(1000):
            lane.add_message("text", Text(str(number)))
        await waiting.true(lambda: publisher.away_since is not None)
        network.up()
        lane.add_end(Status.DONE, Reason.COMPLETED, None)
        await lane.flush()
    whole(sequence, 1002)


async def test_a_backlog_does_not_starve_a_live_session(server: ServerProcess) -> None:
    async with Proxy(server.path, Plan(0, 0.0)) as network, a_lane(network.url) as (lane, publisher):
        async with (
            AsyncAgentClient.from_url(server.url) as client,
            publishing(server.url, Settings(name="x")) as (_, o),
        ):
            await client.start("demo", "hello", "live")
            other = await claimed(publisher, o, "live")
        network.down()
        for number in range(20_000):
            lane.add_message("text", Text(f"{number} " + "x" * 200))
        await waiting.true(lambda: publisher.away_since is not None)
        network.up()
        other.add_message("text", Text("I have one thing to say"))
        await other.flush()
        assert lane.written < 10_000
        await lane.flush()
        assert lane.written == 20_001


@pytest.mark.slow
async def test_an_outage_longer_than_the_lease_takes_nobody_over(tmp_path: Path, config: Path) -> None:
    """Every lease has run out when Redis is back: owners renew theirs before anybody looks for lost sessions."""
    with Restartable(tmp_path / "valkey") as server:
        arguments = ("--lease-s", "2", "--beat-s", "0.5")
        workers = [Worker(server.url, config, (*arguments, "--name", f"w{n}"), os.environ) for n in range(2)]
        try:
            for worker in workers:
                worker.wait_ready()
            async with AsyncAgentClient.from_url(server.url) as client, asyncio.timeout(60):
                sessions = [await client.start("demo", "/sleep 300") for _ in range(6)]
                for session in sessions:
                    await until(session, "running")
                async with redis.asyncio.Redis.from_url(server.url) as raw:
                    for _ in range(3):
                        server.kill()
                        for worker in workers:
                            while worker.log:
                                worker.log.pop()
                        await server.stay_down(2.5)  # longer than the lease
                        server.start()
                        for worker in workers:
                            await asyncio.to_thread(worker.wait_log, "stalled for")

                        async def renewed() -> bool:
                            return all([await raw.get(Keys().worker(f"w{n}")) for n in range(2)])

                        await waiting.true(renewed)
                for session in sessions:
                    assert (await session.state()).epoch == 1
                    await session.stop()
        finally:
            for worker in workers:
                worker.close()


@pytest.mark.slow
async def test_a_sentinel_fails_over(tmp_path: Path) -> None:
    """The master is killed; its replica is promoted; writer and readers find it by their sentinel:// URL."""
    ports = [free_port() for _ in range(3)]
    program = tmp_path / "valkey-sentinel"
    shutil.copy(find_server(), program)
    conf = tmp_path / "sentinel.conf"
    conf.write_text(f"port {ports[2]}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor main 127.0.0.1 {ports[0]} 1\n"
                    "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n")  # fmt: skip
    url = f"sentinel://127.0.0.1:{ports[2]}/main"
    with (
        ServerProcess(tmp_path / "a", port=ports[0]) as master,
        ServerProcess(tmp_path / "b", port=ports[1], args=("--replicaof", "127.0.0.1", str(ports[0]))) as second,
        subprocess.Popen([program, conf, "--sentinel"], stdout=subprocess.DEVNULL) as sentinel,
    ):
        try:
            async with redis.asyncio.Redis.from_url(second.url) as replica, Admin(port=ports[2]) as watcher:

                async def follows() -> bool:
                    known = await watcher.execute_command("SENTINEL", "REPLICAS", "main")
                    return bool(known) and (await replica.info("replication"))["master_link_status"] == "up"

                await waiting.true(follows)
                async with a_lane(url, settings=SETTINGS) as (lane, _), followed(url) as sequence:
                    for number in range(100):
                        lane.add_message("text", Text(str(number)))
                    await waiting.true(lambda: len(sequence) == 102)
                    master.kill()
                    for number in range(100):
                        lane.add_message("text", Text(str(number)))
                    lane.add_end(Status.DONE, Reason.COMPLETED, None)
                    await lane.flush()
                assert (await replica.info("replication"))["role"] == "master"
        finally:
            sentinel.terminate()
    whole(sequence, 202)


async def test_a_session_ends_and_a_lease_is_renewed_though_redis_has_no_memory_left(server: ServerProcess) -> None:
    async with a_lane(server.url) as (lane, publisher), redis.asyncio.Redis.from_url(server.url) as raw:
        async with AsyncAgentClient.from_url(server.url) as client:
            await client.start("demo", "hello", "other")
        async with publishing(server.url, SETTINGS) as (_, ownership):
            await ownership.take_lease()
            other = await claimed(publisher, ownership, "other")
            await raw.set("ballast", b"x" * 5_000_000)
            await raw.config_set("maxmemory", 1_000_000)
            for number in range(20):
                lane.add_message("text", Text(str(number)))
            await waiting.true(lambda: publisher.away_since is not None)
            other.add_message("text", Text("the last words"))
            other.add_end(Status.DONE, Reason.STOPPED, None)
            await other.flush()
            assert await raw.hget(Keys().state("other"), "status") == b"done"
            await raw.pexpire(Keys().worker("w"), 100)
            await ownership.lease.renew()
            assert await raw.pttl(Keys().worker("w")) > 1000
            assert lane.written == 1
            await raw.delete("ballast")
            await raw.config_set("maxmemory", 0)
            await lane.flush()
            assert (lane.written, publisher.away_since) == (21, None)
