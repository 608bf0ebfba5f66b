"""The gateway mounted in the apps of three frameworks: the examples, run as they are by uvicorn."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from agentrq import AgentClient
from tests.polling import wait_until
from tests.workers import Worker, free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


@contextmanager
def serving(example: str, redis_url: str) -> Iterator[str]:
    """An example served by uvicorn; its address."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), f"{example}:app", "--port", str(port)],
        env=os.environ | {"AGENTRQ_REDIS_URL": redis_url}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(process, address))
        yield address
    finally:
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert "Traceback" not in said


def answers(process: subprocess.Popen[str], address: str) -> bool:
    assert process.poll() is None, process.stderr.read() if process.stderr else ""
    try:
        return bool(httpx.get(address + "/").json() == {"agents": "/agents"})
    except httpx.TransportError:
        return False


def log_in(example: str, address: str, user: str) -> httpx.Client:
    """A client that its app knows."""
    if example != "gateway_django":
        return httpx.Client(base_url=address, headers={"X-API-Key": f"key-of-{user}"}, timeout=60)
    known = httpx.get(f"{address}/log-in/{user}").cookies
    return httpx.Client(base_url=address, headers=SAME_ORIGIN, cookies=known, timeout=60)


@pytest.mark.parametrize("example", ["gateway_fastapi", "gateway_starlette", "gateway_django"])
def test_a_mounted_gateway_serves_its_app_s_users_apart(
    example: str, redis_url: str, start_worker: Callable[..., Worker]
) -> None:
    start_worker()
    with serving(example, redis_url) as address:
        acme, globex = log_in(example, address, "acme"), log_in(example, address, "globex")
        with acme, globex:
            made = acme.post("/agents/sessions", json={"provider": "demo", "prompt": "/echo hello"})
            assert made.status_code == 201, made.text
            place = made.headers["location"]
            assert place.startswith("/agents/sessions/")
            with acme.stream("GET", place + "/stream") as stream:
                assert any('"text":"hello"' in line for line in stream.iter_lines())
            assert globex.get(place).status_code == 404
            assert globex.get("/agents/sessions").json()["sessions"] == []
            assert [each["sessionId"] for each in acme.get("/agents/sessions").json()["sessions"]] == [
                made.json()["sessionId"]
            ]
            assert httpx.get(address + place).status_code == 401
            assert acme.post(place + "/stop", json={}).status_code == 202
    with AgentClient.from_url(redis_url) as client:
        assert client.session(made.json()["sessionId"]).wait(timeout=30).status == "done"
