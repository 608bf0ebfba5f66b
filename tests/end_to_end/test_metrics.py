"""The metrics endpoint of a real worker."""

from __future__ import annotations

from collections.abc import Callable
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from agentrq import AsyncAgentClient
from tests.end_to_end.test_examples import free_port
from tests.rq_checks import eventually
from tests.sessions import until
from tests.workers import Worker


async def test_metrics(client: AsyncAgentClient, start_worker: Callable[..., Worker]) -> None:
    port = free_port()
    start_worker("--metrics-port", str(port))
    ended, idle = await client.start("demo", "/crash 1"), await client.start("demo", "/echo hi")
    await until(ended, "error")
    await until(idle, "idle")
    counted = 'agentrq_sessions_ended_total{reason="failed",status="error"}'

    def figures_with_the_end() -> dict[str, str]:  # counted once all of the session is cleaned up, after it is told
        with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
        figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return figures if counted in figures else {}

    figures = await eventually(figures_with_the_end, "the end in the metrics")
    assert figures['agentrq_sessions{status="idle"}'] == "1.0"
    assert figures[counted] == "1.0"
    assert float(figures["agentrq_events_written_total"]) >= 8
    assert figures["agentrq_redis_away_seconds"] == "0.0"
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"http://127.0.0.1:{port}/elsewhere")
