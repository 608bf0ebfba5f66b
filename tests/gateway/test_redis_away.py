"""Redis is away: commands are answered with 503 at once, streams stay and go on."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from agentrq import AsyncAgentClient
from agentrq_gateway import Gateway, Settings
from agentrq_gateway.routes.streams import PATIENCE_S
from tests.faults.restarts import Restartable
from tests.gateway.answers import error_of
from tests.gateway.conftest import connect
from tests.gateway.listening import Listener
from tests.producer.session_writer import Writer

COMMANDS = (
    ("GET", "/sessions", None),
    ("GET", "/sessions/s", None),
    ("GET", "/sessions/s/events", None),
    ("GET", "/sessions/s/stream", None),
    ("GET", "/approvals", None),
    ("GET", "/workers", None),
    ("GET", "/readyz", None),
    ("POST", "/sessions", {"provider": "demo", "prompt": "x"}),
    ("POST", "/sessions/s/prompts", {"text": "x"}),
    ("POST", "/sessions/s/prompts?wait=20", {"text": "x"}),
    ("POST", "/sessions/s/answers/r", "allow"),
    ("POST", "/sessions/s/stop", None),
    ("DELETE", "/sessions/s", None),
)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_commands_are_refused_at_once_and_streams_go_on(tmp_path: Path, how: str) -> None:
    with Restartable(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        writer = Writer.start(server.url, "s")
        writer.message("text", {"text": "before"})
        async with AsyncAgentClient.from_url(server.url) as client:
            gateway = Gateway(client, settings=Settings(redis_timeout_s=0.5))
            async with connect(gateway) as http, Listener(gateway, "/sessions/s/stream") as stream:
                await stream.until("message", type="text")
                if how == "killed":
                    server.kill()
                else:
                    os.kill(server.pid, signal.SIGSTOP)
                for method, path, body in COMMANDS:
                    async with asyncio.timeout(PATIENCE_S + 10):  # opening a stream waits that much longer
                        answer = await http.request(method, path, json=body)
                    assert error_of(answer)[:2] == (503, "redis_unavailable"), (method, path)
                    assert answer.headers["retry-after"] == "1"
                    assert server.url not in answer.text
                assert (await http.get("/healthz")).status_code == 200
                if how == "killed":
                    server.start()
                else:
                    os.kill(server.pid, signal.SIGCONT)
                writer.message("text", {"text": "after"})
                frames = await stream.until("message", type="text")
                assert frames[-1].data["content"]["text"] == "after"
                assert (await http.get("/sessions/s")).status_code == 200
            await gateway.aclose()
