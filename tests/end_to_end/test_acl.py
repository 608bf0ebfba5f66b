"""Whole sessions under the ACL profiles, on a server whose default user is off; and what each profile keeps out."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from agentrq import AgentClient, AsyncAgentClient, RawEvent, SessionDelivered
from agentrq.acl import ROLES, profile
from agentrq.client import asyncio_client, sync_client
from agentrq.embedded.server_process import ServerProcess
from tests.attacks import attack
from tests.rq_checks import eventually
from tests.sessions import contents, until
from tests.workers import Worker

PASSWORD = "s3cret-of-"


class Guarded:
    """A server with ACL on, its default user off."""

    def __init__(self, server: ServerProcess) -> None:
        self._path = server.path
        with redis.Redis.from_url(server.url) as admin:
            for role in ROLES:
                words = shlex.split(profile(role).removeprefix("ACL "))
                admin.execute_command("ACL", *words)
                admin.execute_command("ACL", "SETUSER", f"agentrq-{role}", f">{PASSWORD}{role}")
            admin.execute_command("ACL", "SETUSER", "admin", "on", ">admin-password", "~*", "&*", "+@all")
            admin.execute_command("ACL", "SETUSER", "default", "off")

    def url(self, role: str) -> str:
        user, password = ("admin", "admin-password") if role == "admin" else (f"agentrq-{role}", PASSWORD + role)
        return f"unix://{user}:{password}@{self._path}"

    def denied(self) -> list[tuple[str, str]]:
        """What was refused so far: user, object."""
        with redis.Redis.from_url(self.url("admin")) as admin:
            entries: Any = admin.acl_log()
            admin.execute_command("ACL", "LOG", "RESET")
        return [(str(entry["username"]), str(entry["object"])) for entry in entries]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with ServerProcess(tmp_path_factory.mktemp("acl")) as server:
        yield Guarded(server)


@pytest.fixture
def worker(guarded: Guarded, config: Path) -> Iterator[Worker]:
    # The way a password gets to a worker: by the environment, never as an argument.
    environment = os.environ | {"AGENTRQ_REDIS_URL": guarded.url("worker")}
    worker = Worker(None, config, ("--lease-s", "2", "--beat-s", "0.5", "--name", "w"), environment)
    yield worker.wait_ready()
    worker.close()


async def test_a_session_runs_whole_under_the_acl_profiles(guarded: Guarded, worker: Worker) -> None:
    async with (
        AsyncAgentClient.from_url(guarded.url("gateway")) as gateway,
        AsyncAgentClient.from_url(guarded.url("producer")) as producer,
        AsyncAgentClient.from_url(guarded.url("reader")) as reader,
    ):
        started = await producer.start("demo", "/echo one")
        session = reader.session(started.id)
        idle = await until(session, "idle")
        await started.prompt("/echo two")
        await until(session, "idle", idle)
        await started.stop()
        assert (await session.wait(20)).reason == "stopped"
        texts = [content.text for content in contents([event async for event in session.events()], "text")]
        assert texts == ["one", "two"]
        with redis.Redis.from_url(guarded.url("admin")) as admin:
            admin.zadd("agentrq:sessions", {"expired": 1})  # which a reader cannot take out
        assert [known.id for known in await reader.sessions()] == [started.id]
        await started.remove()
        live = await producer.start("demo", "/sleep 60")
        await until(reader.session(live.id), "running")
        await live.remove()
        both = await gateway.start("demo", "/crash 3")
        assert (await both.wait(20)).error == "Exit code: 3"
        waiting = await gateway.start("demo", "/sleep 60")
        await until(waiting, "running")
        await waiting.interrupt()
        await waiting.stop()
        await waiting.wait(20)
        await waiting.remove()
    # RQ's own view, as the worker's user; and RQ's way of starting and commanding, as the gateway's.
    info = subprocess.run(
        [sys.executable, "-m", "rq.cli", "info", "--url", guarded.url("worker"), "-S", "json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert info.returncode == 0, info.stdout + info.stderr
    assert "1 workers" in info.stdout
    assert worker.terminate() == 0
    assert guarded.denied() == [("agentrq-reader", "eval")]
    assert PASSWORD not in "".join(worker.log)


async def test_followers_under_the_acl_profiles(guarded: Guarded, worker: Worker) -> None:
    guarded.denied()
    heard: dict[str, list[Any]] = {}
    async with AsyncAgentClient.from_url(guarded.url("gateway")) as client:
        sessions = [await client.start("demo", f"/echo {number}") for number in range(3)]
        for role in ("gateway", "reader"):
            async with AsyncAgentClient.from_url(guarded.url(role)) as other:
                follower = other.follow({session.id: None for session in sessions}, deltas=True, raw=True)
                async with asyncio.timeout(60), follower:
                    async for session_id, item in follower:
                        heard.setdefault(f"{role} {session_id}", []).append(item)
                        if isinstance(item, RawEvent) and b'"idle"' in item.json:
                            await client.session(session_id).stop()
    for session in sessions:
        assert heard[f"gateway {session.id}"][-1] == heard[f"reader {session.id}"][-1] == SessionDelivered()
    assert {user for user, _ in guarded.denied()} <= {"agentrq-reader"}


@pytest.mark.slow
async def test_a_lost_worker_is_recovered_under_the_profiles(guarded: Guarded, worker: Worker, config: Path) -> None:
    async with AsyncAgentClient.from_url(guarded.url("gateway")) as gateway:
        session = await gateway.start("demo", "/sleep 60")
        await until(session, "running")
        worker.kill()
        environment = os.environ | {"AGENTRQ_REDIS_URL": guarded.url("worker")}
        second = Worker(None, config, ("--lease-s", "2", "--beat-s", "0.5", "--name", "v"), environment)
        try:
            await until(session, "recovering")
            await session.stop()
            assert (await session.wait(30)).reason == "stopped"
        finally:
            second.close()
    assert guarded.denied() == []


@pytest.mark.parametrize("how", ["async", "sync"])
async def test_a_reader_keeps_following_with_read_rights_only(
    guarded: Guarded, worker: Worker, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A reader that finds a session lost may not write its end: it waits for who may."""
    monkeypatch.setenv("AGENTRQ_RECOVERY_TIMEOUT_S", "0.1")
    for client in (asyncio_client, sync_client):
        monkeypatch.setattr(client, "CHECK_AGAIN_S", 0.2)
    async with (
        AsyncAgentClient.from_url(guarded.url("reader")) as reader,
        AsyncAgentClient.from_url(guarded.url("producer")) as producer,
        asyncio.TaskGroup() as group,
    ):
        started = await producer.start("demo", "/sleep 60")
        await until(reader.session(started.id), "running")
        with AgentClient.from_url(guarded.url("reader")) as other:
            if how == "async":
                waiting = group.create_task(reader.session(started.id).wait(60))
            else:
                waiting = group.create_task(asyncio.to_thread(other.session(started.id).wait, 60))
            worker.kill()
            await eventually(lambda: ("agentrq-reader", "evalsha") in guarded.denied())
            await started.stop()
            assert (await waiting).reason == "stopped"
    guarded.denied()


@attack("commands, keys and channels outside a profile", "refused by Redis (`make test-acl`: everything inside works)")
@pytest.mark.parametrize(
    ("role", "command"),
    [
        ("reader", "HSET agentrq:{s}:state status done"),
        ("reader", "XADD agentrq:{s}:events * message {}"),
        ("reader", "XADD agentrq:{s}:inbox * command {}"),
        ("reader", "PUBLISH agentrq:{s}:status {}"),
        ("reader", "RPUSH rq:queue:agentrq s"),
        ("reader", "HGETALL rq:job:s"),
        ("reader", "GET other:key"),
        ("reader", "EVAL return(1) 0"),
        ("producer", "SET agentrq:worker:w stolen"),
        ("producer", "SUBSCRIBE agentrq:{s}:messages"),
        ("producer", "XREAD STREAMS agentrq:{s}:events 0"),
        ("producer", "PUBLISH agentrq:{s}:messages []"),
        ("producer", "SADD rq:workers fake"),
        ("producer", "PUBLISH rq:pubsub:w {}"),
        ("producer", "RPUSH rq:queue:default job"),
        ("producer", "KEYS *"),
        ("gateway", "SET agentrq:worker:w stolen"),
        ("gateway", "DEL agentrq:maintenance"),
        ("gateway", "PSUBSCRIBE *"),
        ("gateway", "FLUSHALL"),
        ("worker", "SET other:key 1"),
        ("worker", "GET session:of:another:program"),
        ("worker", "KEYS *"),
        ("worker", "FLUSHALL"),
        ("worker", "CONFIG GET *"),
        ("worker", "ACL LIST"),
        ("worker", "SCRIPT FLUSH"),
        ("worker", "SUBSCRIBE other:channel"),
        ("worker", "SHUTDOWN NOSAVE"),
        ("worker", "CLIENT KILL TYPE normal"),
    ],
)
def test_redis_refuses_what_is_outside_a_profile(guarded: Guarded, role: str, command: str) -> None:
    with redis.Redis.from_url(guarded.url(role)) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*shlex.split(command))
    assert guarded.denied()


@attack("logging in as a user that `agentrq acl` made, before it has a password", "refused")
def test_a_profile_without_a_password_lets_nobody_log_in(guarded: Guarded) -> None:
    for role in ROLES:
        line = profile(role, user="nobody-yet")
        assert ">" not in line
        assert "nopass" not in line
    with redis.Redis.from_url(guarded.url("admin")) as admin:
        admin.execute_command("ACL", *shlex.split(line.removeprefix("ACL ")))
    url = guarded.url("admin").replace("admin:admin-password", "nobody-yet:")
    for wrong in (url, url.replace("nobody-yet:", "nobody-yet:x")):
        with redis.Redis.from_url(wrong) as nobody, pytest.raises(redis.AuthenticationError):
            nobody.ping()


def test_the_acl_command_prints_the_profiles() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "agentrq", "acl", "--prefix", "p", "--queue", "q", "worker", "reader"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert run.stdout.splitlines() == [profile(role, prefix="p", queue="q") for role in ("worker", "reader")]
    bad = subprocess.run(
        [sys.executable, "-m", "agentrq", "acl", "--prefix", "p* ~*"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (bad.returncode, bad.stdout) == (2, "")
