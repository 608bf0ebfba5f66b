"""Any tests under the ACL profiles: ``pytest -p tests.acl_plugin tests/end_to_end tests/faults``.

Each test server gets the users of `agentrq.acl`; workers log in as ``agentrq-worker``, clients as ``agentrq-gateway``.
Whatever the server refused during a test fails it. (A test's own raw clients stay the default user.)
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from agentrq import AgentClient, AsyncAgentClient
from agentrq.acl import ROLES, profile
from agentrq.server_process import ServerProcess
from tests.workers import Worker

_servers: list[str] = []


def _as(role: str, url: str | None) -> str | None:
    return url.replace("unix://", f"unix://agentrq-{role}:pw@") if url and url.startswith("unix:///") else url


def pytest_configure() -> None:
    begin, spawn = ServerProcess.__init__, Worker.__init__

    def begin_with_users(self: ServerProcess, *args: Any, **given: Any) -> None:
        begin(self, *args, **given)
        with redis.Redis.from_url(self.url) as client:
            for role in ROLES:
                client.execute_command("ACL", *shlex.split(profile(role).removeprefix("ACL ")))
                client.execute_command("ACL", "SETUSER", f"agentrq-{role}", ">pw")
        _servers.append(self.url)

    def spawn_as_worker(self: Worker, url: str | None, *args: Any, **given: Any) -> None:
        spawn(self, _as("worker", url), *args, **given)

    ServerProcess.__init__ = begin_with_users  # type: ignore[method-assign]
    Worker.__init__ = spawn_as_worker  # type: ignore[method-assign]
    for kind in (AgentClient, AsyncAgentClient):
        original: Any = kind.from_url

        def from_url(url: str, *args: Any, _original: Any = original, **given: Any) -> Any:
            return _original(_as("gateway", url), *args, **given)

        kind.from_url = from_url  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def _nothing_is_refused(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "test_acl" in request.node.nodeid:
        return
    refused: list[Any] = []
    for url in list(_servers):
        try:
            with redis.Redis.from_url(url) as client:
                refused += [(entry["username"], entry["context"], entry["object"]) for entry in client.acl_log()]
                client.execute_command("ACL", "LOG", "RESET")
        except redis.RedisError:
            _servers.remove(url)
    assert refused == []
