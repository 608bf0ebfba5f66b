"""The metrics endpoint of a real worker."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from agentrq import AsyncAgentClient
from tests.rq_checks import eventually
from tests.sessions import until
from tests.workers import Worker, free_port, metrics_of


async def test_the_endpoint_serves_the_workers_figures(
    client: AsyncAgentClient, start_worker: Callable[..., Worker]
) -> None:
    port = free_port()
    start_worker("--metrics-port", str(port))
    ended, idle = await client.start("demo", "/crash 1"), await client.start("demo", "/echo hi")
    await until(ended, "error")
    await until(idle, "idle")
    counted = 'agentrq_sessions_ended_total{reason="failed",status="error"}'

    def figures_with_the_end() -> dict[str, float]:  # counted once all of the session is cleaned up, after it is told
        figures = metrics_of(port)
        return figures if counted in figures else {}

    figures = await eventually(figures_with_the_end, "the end in the metrics")
    assert figures['agentrq_sessions{status="idle"}'] == 1
    assert figures[counted] == 1
    assert figures["agentrq_events_written_total"] >= 8
    assert figures["agentrq_redis_away_seconds"] == 0
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"http://127.0.0.1:{port}/elsewhere")


@pytest.mark.parametrize(
    ("port", "code", "says"), [(None, 5, "Address already in use"), (70000, 2, "70000 is not a port")]
)
def test_a_metrics_port_in_use_is_one_line_and_refused(redis_url: str, port: int | None, code: int, says: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ["--redis", redis_url, "--metrics-port", str(port or taken.getsockname()[1])]
        done = subprocess.run(
            [sys.executable, "-m", "agentrq_worker", *words], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == code
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
