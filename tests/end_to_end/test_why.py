"""``agentrq why`` on real sessions: each injected fault has its own finding, and the command that helps."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from agentrq import AsyncAgentClient
from tests.producer.command_line import run_cli
from tests.rq_checks import eventually, fetch
from tests.sessions import until
from tests.workers import Worker

Start = Callable[..., Worker]


async def why(url: str, *words: str, code: int = 0) -> list[dict[str, Any]]:
    """What the command prints as JSON, one object a session."""
    done = await asyncio.to_thread(run_cli, "why", *words, "--json", url=url)
    assert (done.returncode, done.stderr) == (code, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


async def cause(url: str, sid: str) -> tuple[str, bool]:
    (shown,) = await why(url, sid)
    return shown["findings"][0]["cause"], shown["stuck"]


async def test_a_queued_session_is_told_what_keeps_it(
    client: AsyncAgentClient, redis_url: str, raw: redis.Redis
) -> None:
    session = await client.start("demo", "/echo hi")
    assert await cause(redis_url, session.id) == ("no_worker", True)
    raw.set("rq:suspended", 1)
    assert await cause(redis_url, session.id) == ("rq_suspended", True)
    raw.delete("rq:suspended")
    await asyncio.to_thread(fetch(raw, session.id).cancel)
    assert await cause(redis_url, session.id) == ("job_canceled", True)
    await asyncio.to_thread(fetch(raw, session.id).delete)
    assert await cause(redis_url, session.id) == ("job_missing", True)
    (stuck,) = await why(redis_url, "--all", code=1)
    assert stuck["sessionId"] == session.id
    await session.stop()
    assert await why(redis_url, "--all") == []


async def test_a_live_session_is_told_from_one_whose_worker_was_killed(
    client: AsyncAgentClient, redis_url: str, start_worker: Start, raw: redis.Redis
) -> None:
    worker = start_worker("--lease-s", "2", "--beat-s", "0.5", "--max-sessions", "1")
    session = await client.start("demo", "/sleep 60")
    queued = await client.start("demo", "/echo later")
    await until(session, "running")
    assert await cause(redis_url, session.id) == ("running", False)
    await eventually(lambda: raw.hget(f"rq:worker:{worker.name}", "agentrq_free") == b"0")
    assert await cause(redis_url, queued.id) == ("workers_full", False)
    worker.process.send_signal(signal.SIGKILL)
    await eventually(lambda: not raw.exists(f"agentrq:worker:{worker.name}"))
    assert await cause(redis_url, session.id) == ("worker_lost", True)
    plain = await asyncio.to_thread(run_cli, "why", "--all", url=redis_url)
    assert plain.returncode == 1
    assert f"{session.id}  STUCK worker_lost: Its worker {worker.name} is lost" in plain.stdout
    assert "    $ AGENTRQ_QUEUE=agentrq agentrq worker\n" in plain.stdout


async def test_an_idle_and_an_ended_session_are_told_as_that(
    client: AsyncAgentClient, redis_url: str, start_worker: Start, config: Path
) -> None:
    start_worker()
    session = await client.start("demo", "/echo hi")
    await until(session, "idle")
    assert await cause(redis_url, session.id) == ("idle", False)
    await session.stop()
    await session.wait(30)
    assert await cause(redis_url, session.id) == ("ended", False)
    failed = await client.start("demo", "/crash 7")
    await failed.wait(30)
    (shown,) = await why(redis_url, failed.id)
    assert "Exit code: 7" in shown["findings"][0]["says"]


async def test_why_of_no_session_is_exit_3_and_without_an_id_a_usage_error(redis_url: str) -> None:
    missing = await asyncio.to_thread(run_cli, "why", "nobody", url=redis_url)
    assert (missing.returncode, missing.stdout) == (3, "")
    usage = await asyncio.to_thread(run_cli, "why", url=redis_url)
    assert usage.returncode == 2
    assert "Give a session id, or --all" in usage.stderr
