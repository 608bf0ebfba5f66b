"""Fixtures of all tests: a real server for each test process, and real workers that end with their test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import uvloop
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from agentrq import AsyncAgentClient
from agentrq.embedded.server_process import ServerProcess
from tests.workers import Worker, free_port

pytest_plugins = ["agentrq.testing.plugin"]

# How long an example takes says how busy the machine is, and nothing of what is tested.
hypothesis_settings.register_profile("agentrq", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("agentrq")

# Ignored where the suite runs in the background of a script, and by all that it starts then: nobody would see Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """In which event loops a test runs."""
    return LOOPS if item.get_closest_marker("both_loops") else {"asyncio": LOOPS["asyncio"]}


PROVIDERS = """
[providers.demo]
env = { AGENTRQ_DEMO_PACE = "0" }
[providers.fake]
command = ["%(python)s", "-m", "agentrq_worker.builtin_runners.demo"]
env = { AGENTRQ_DEMO_PACE = "0" }
[providers.slow]
command = ["%(python)s", "-m", "agentrq_worker.builtin_runners.demo"]
env = { AGENTRQ_DEMO_PACE = "4" }
"""


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def redis_url(_server: ServerProcess) -> str:
    """The URL of an empty server that this test has for itself."""
    with redis.Redis.from_url(_server.url) as client:
        client.flushall()
    return _server.url


@pytest.fixture
def raw(redis_url: str) -> Iterator[Any]:
    """A plain redis-py client: what the outside sees."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[AsyncAgentClient]:
    async with AsyncAgentClient.from_url(redis_url) as client:
        yield client


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A worker's TOML with the demo at full speed, also under the name ``fake``, and slow as ``slow``."""
    path = tmp_path / "agentrq.toml"
    path.write_text(PROVIDERS % {"python": sys.executable})
    return path


@pytest.fixture
def unused_tcp_port() -> int:
    """In the place of pytest-asyncio's, whose ports the system may give away again."""
    return free_port()


@pytest.fixture
def start_worker(redis_url: str, config: Path) -> Iterator[Callable[..., Worker]]:
    """``start_worker(*args, url=…, **env)``: a real worker process that is ready; ended after the test."""
    workers: list[Worker] = []

    def start(*args: str, url: str = redis_url, **env: str) -> Worker:
        worker = Worker(url, config, args, os.environ | env)
        workers.append(worker)
        return worker.wait_ready()

    yield start
    with contextlib.ExitStack() as stack:
        for worker in workers:
            stack.callback(worker.close)
