"""Metrics and health checks of real workers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
from docs.reference_tables import metrics_table

from agentrq import AsyncAgentClient
from tests.faults.proxy import Proxy
from tests.rq_checks import eventually
from tests.sessions import asked, until
from tests.workers import Worker, free_port, metrics_of

Start = Callable[..., Worker]


def ask(port: int, path: str, method: str = "GET", host: str = "127.0.0.1") -> tuple[int, str]:
    """Status and body of one request."""
    with contextlib.closing(HTTPConnection(host, port, timeout=20)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


async def having(port: int, *names: str) -> dict[str, float]:
    """The figures once all of these are above 0: the end is counted after it is told."""

    def found() -> dict[str, float]:
        figures = metrics_of(port)
        return figures if all(figures.get(name) for name in names) else {}

    figures: dict[str, float] = await eventually(found, f"{names} in the metrics")
    return figures


async def test_the_endpoint_serves_the_workers_figures(client: AsyncAgentClient, start_worker: Start) -> None:
    port = free_port()
    start_worker("--metrics-port", str(port), "--max-sessions", "7")
    ended, idle = await client.start("demo", "/crash 1"), await client.start("demo", "/echo hi")
    await until(ended, "error")
    await until(idle, "idle")
    counted = 'agentrq_sessions_ended_total{provider="demo",reason="failed",status="error"}'
    figures = await having(port, counted)
    assert figures['agentrq_sessions{provider="demo",status="idle"}'] == 1
    assert figures[counted] == 1
    assert figures['agentrq_sessions_started_total{provider="demo"}'] == 2
    assert figures["agentrq_events_written_total"] >= 8
    assert figures["agentrq_event_bytes_written_total"] > 100 * 8
    assert figures["agentrq_redis_away_seconds"] == 0
    assert figures["agentrq_runners_memory_bytes"] > 1 << 20
    assert figures["agentrq_runner_processes"] == 1
    assert [figures[f'agentrq_slots{{state="{state}"}}'] for state in ("used", "free", "closed")] == [1, 6, 0]
    assert ask(port, "/elsewhere")[0] == 404
    assert ask(port, "/metrics", "POST")[0] == 405
    assert ask(port, "/metrics", "HEAD") == (200, "")


async def test_turns_tools_requests_and_commands_are_timed(client: AsyncAgentClient, start_worker: Start) -> None:
    port = free_port()
    start_worker("--metrics-port", str(port))
    session = await client.start("demo", "What is here?", cwd="/tmp", approvals="ask")
    request = await asked(session)
    assert request.type == "approval_request"
    await session.answer(request.content.request_id, "allow", wait=True)
    idle = await until(session, "idle")
    await session.prompt("/crash 3", wait=True)
    await until(session, "error", idle)
    figures = await having(
        port,
        'agentrq_turns_total{outcome="whole",provider="demo"}',
        'agentrq_turns_total{outcome="cut",provider="demo"}',
        'agentrq_turn_seconds_count{outcome="whole",provider="demo"}',
        'agentrq_turn_seconds_count{outcome="cut",provider="demo"}',
        'agentrq_tool_seconds_count{provider="demo"}',
        'agentrq_approval_wait_seconds_count{decision="allow",provider="demo"}',
        'agentrq_command_receipt_seconds_count{command="answer"}',
        'agentrq_commands_total{command="prompt",outcome="applied"}',
        'agentrq_start_to_claim_seconds_count{provider="demo"}',
        'agentrq_claim_to_first_output_seconds_count{provider="demo"}',
        "agentrq_publish_seconds_count",
    )
    buckets = [value for name, value in figures.items() if name.startswith("agentrq_turn_seconds_bucket{le=")]
    assert buckets
    total = figures['agentrq_turn_seconds_bucket{le="+Inf",outcome="whole",provider="demo"}']
    assert total == figures['agentrq_turn_seconds_count{outcome="whole",provider="demo"}'] == 1


async def test_a_recovered_session_is_counted_with_the_time_that_it_took(
    client: AsyncAgentClient, start_worker: Start
) -> None:
    port = free_port()
    lost = start_worker()
    session = await client.start("demo", "/sleep 60")
    await until(session, "running")
    start_worker("--metrics-port", str(port))
    lost.kill()
    await until(session, "idle")
    figures = await having(port, 'agentrq_sessions_recovered_total{cause="lost",provider="demo"}')
    assert figures['agentrq_takeover_seconds_count{cause="lost"}'] == 1
    assert 0 <= figures['agentrq_takeover_seconds_sum{cause="lost"}'] < 60
    assert 'agentrq_sessions_started_total{provider="demo"}' not in figures
    assert figures['agentrq_turns_total{outcome="cut",provider="demo"}'] == 1


async def test_every_metric_of_a_worker_is_in_the_reference(client: AsyncAgentClient, start_worker: Start) -> None:
    port = free_port()
    start_worker("--metrics-port", str(port))
    described = {line.split("`")[1] for line in metrics_table().splitlines()[2:]}
    _, text = ask(port, "/metrics")
    served = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE agentrq_")}
    assert served == described


def test_a_worker_tells_whether_it_is_ready(redis_url: str, start_worker: Start) -> None:
    port = free_port()
    worker = start_worker("--metrics-port", str(port), "--metrics-host", "0.0.0.0")
    assert ask(port, "/healthz") == (200, "ok\n")
    assert ask(port, "/readyz") == (200, "ok\n")
    worker.freeze()
    with socket.create_connection(("127.0.0.1", port)) as unanswered:
        unanswered.settimeout(0.2)
        unanswered.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        with pytest.raises(TimeoutError):
            unanswered.recv(1)
        worker.thaw()
        unanswered.settimeout(20)
        assert unanswered.recv(12) == b"HTTP/1.1 200"


async def test_an_idle_worker_tells_that_redis_is_away(redis_url: str, start_worker: Start) -> None:
    port = free_port()
    async with Proxy.to(redis_url) as network:
        words = ("--metrics-port", str(port), "--lease-s", "1", "--beat-s", "0.2")
        user = urlsplit(redis_url).netloc  # that of the socket's URL, under ACLs
        url = network.url.replace("redis://", f"redis://{user}")
        await asyncio.to_thread(start_worker, *words, url=url)
        network.down()
        await eventually(lambda: ask(port, "/readyz")[0] == 503, "not ready")
        assert "Redis takes nothing since" in ask(port, "/readyz")[1]
        assert ask(port, "/healthz")[0] == 200
        assert metrics_of(port)["agentrq_redis_away_seconds"] > 0
        network.up()
        await eventually(lambda: ask(port, "/readyz")[0] == 200, "ready again")


async def test_a_draining_worker_is_not_ready(client: AsyncAgentClient, start_worker: Start) -> None:
    port = free_port()
    worker = start_worker("--metrics-port", str(port))
    session = await client.start("demo", "/sleep 60")
    await until(session, "running")
    worker.process.terminate()
    await eventually(lambda: ask(port, "/readyz") == (503, "the worker is ending\n"), "not ready")
    assert metrics_of(port)['agentrq_slots{state="closed"}'] == 99
    await session.stop()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "Address already in use"),
        ({"--metrics-port": "70000"}, "70000 is not a port"),
        ({"--metrics-host": "203.0.113.1"}, "metrics_host 203.0.113.1, metrics_port"),
        ({"--metrics-host": "no such host"}, "metrics_host no such host, metrics_port"),
    ],
)
def test_an_address_that_cannot_be_had_is_one_line_and_exit_2(redis_url: str, given: dict[str, Any], says: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = {"--redis": redis_url, "--metrics-port": str(taken.getsockname()[1])} | given
        done = subprocess.run(
            [sys.executable, "-m", "agentrq_worker", *(word for pair in words.items() for word in pair)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
