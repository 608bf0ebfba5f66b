"""Any tests under the ACL profiles: ``pytest -p tests.acl_plugin tests/end_to_end``, as `make test-acl` does.

Each test server has its default user off and the users of `agentrq.acl`: workers log in as ``agentrq-worker``, clients
as ``agentrq-gateway``, or, with ``AGENTRQ_TEST_ACL=split``, send as ``agentrq-producer`` and follow as
``agentrq-reader``. A test's own raw clients are an administrator, RQ's own command line is the worker's user, as is a
worker that is started by hand. Whatever the server refused during a test fails it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from agentrq import AgentClient, AsyncAgentClient
from agentrq.acl import ROLES, profile
from agentrq.connection import connect, connect_async
from agentrq.embedded.server_process import ServerProcess
from tests.workers import Worker

GATEWAY = "agentrq-gateway:pw@"
_servers: list[str] = []


def _as(user: str, text: Any) -> Any:
    return text.replace(GATEWAY, f"{user}:pw@") if isinstance(text, str) else text


def pytest_configure() -> None:
    begin, spawn, start = ServerProcess.__init__, Worker.__init__, subprocess.Popen.__init__
    plain: Any = redis.Redis.from_url

    def begin_with_users(self: ServerProcess, *args: Any, **given: Any) -> None:
        begin(self, *args, **given)
        with plain(self.url) as client:
            for role in ROLES:
                client.execute_command("ACL", *shlex.split(profile(role).removeprefix("ACL ")))
                client.execute_command("ACL", "SETUSER", f"agentrq-{role}", ">pw")
            client.execute_command("ACL", "SETUSER", "admin", "on", ">pw", "~*", "&*", "+@all")
            client.execute_command("ACL", "SETUSER", "default", "off")
        self.url = self.url.replace("unix://", f"unix://{GATEWAY}")
        _servers.append(_as("admin", self.url))

    def spawn_as_worker(self: Worker, url: str | None, *args: Any, **given: Any) -> None:
        spawn(self, _as("agentrq-worker", url), *args, **given)

    def rq_as_worker(self: Any, args: Any, *more: Any, **given: Any) -> None:
        if isinstance(args, list) and (os.path.basename(args[0]) == "rq" or "agentrq_worker" in args):
            args = [_as("agentrq-worker", word) for word in args]
        start(self, args, *more, **given)

    ServerProcess.__init__ = begin_with_users  # type: ignore[method-assign]
    Worker.__init__ = spawn_as_worker  # type: ignore[method-assign]
    subprocess.Popen.__init__ = rq_as_worker  # type: ignore[method-assign]
    redis.Redis.from_url = lambda url, **given: plain(_as("admin", url), **given)  # type: ignore[method-assign]
    if os.environ.get("AGENTRQ_TEST_ACL") == "split":
        for kind, make in ((AgentClient, connect), (AsyncAgentClient, connect_async)):

            def from_url(url: str, *, _kind: Any = kind, _make: Any = make) -> Any:
                return _kind(_make(_as("agentrq-producer", url)), _make(_as("agentrq-reader", url), blocking=True))

            kind.from_url = from_url  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def _nothing_is_refused(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    # The first two are refused on purpose; why and fleet do without what they may not read (INFO).
    on_purpose = any(name in request.node.nodeid for name in ("test_acl", "test_urls", "test_why", "test_fleet"))
    refused: list[Any] = []
    for url in list(_servers):
        try:
            with redis.Redis.from_url(url) as client:
                refused += [(entry["username"], entry["context"], entry["object"]) for entry in client.acl_log()]
                client.execute_command("ACL", "LOG", "RESET")
        except redis.RedisError:
            _servers.remove(url)
    assert refused == [] or on_purpose
