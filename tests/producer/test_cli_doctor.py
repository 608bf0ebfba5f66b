"""``doctor`` on real servers: a line a check, and an exit code that says whether something essential is wrong."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from agentrq.client import AgentClient
from agentrq.embedded.server_process import ServerProcess, find_server
from tests.producer.test_cli_base import run_cli

CHECKS = {
    "python", "agentrq", "agentrq-worker", "embedded server", "redis", "eviction", "durability", "workers", "queue",
    "javascript", "claude", "codex",
}  # fmt: skip


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "server") as server:
        yield server


def examined(url: str, **changes: str | None) -> tuple[int, dict[str, tuple[str, str]]]:
    done = run_cli("doctor", "--json", url=url, **changes)
    assert done.stderr == ""
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, {finding["check"]: (finding["status"], finding["detail"]) for finding in findings}


def test_all_is_well(server: ServerProcess) -> None:
    with AgentClient.from_url(server.url) as client:
        client.start("fake", "Do it")
    with redis.Redis.from_url(server.url) as raw:
        raw.set("agentrq:worker:[odd] one", "token")
    code, found = examined(server.url)
    assert code == 0
    assert found.keys() == CHECKS
    assert found["redis"][1].startswith("Valkey ")
    assert found["embedded server"] == ("ok", str(find_server()))
    assert found["eviction"] == ("ok", "maxmemory-policy noeviction")
    assert found["durability"] == ("ok", "appendonly yes")
    assert found["workers"] == ("ok", "1 alive: [odd] one")
    assert found["queue"] == ("ok", "agentrq-ctl: 0 waiting")
    plain = run_cli("doctor", url=server.url)
    assert plain.returncode == 0
    assert "ok    queue            agentrq: 1 waiting\n" in plain.stdout


def test_the_names_of_the_environment_are_used(server: ServerProcess) -> None:
    with redis.Redis.from_url(server.url) as raw:
        raw.set("of*ours:worker:one", "token")
        raw.set("of-others-ours:worker:two", "token")
        raw.rpush("rq:queue:mine-ctl", "job")
    _, found = examined(server.url, AGENTRQ_PREFIX="of*ours", AGENTRQ_QUEUE="mine")
    assert found["workers"] == ("ok", "1 alive: one")
    assert found["queue"] == ("ok", "mine-ctl: 1 waiting")


def test_what_is_missing_but_not_essential_is_a_warning(server: ServerProcess, tmp_path: Path) -> None:
    with redis.Redis.from_url(server.url) as raw:
        raw.config_set("appendonly", "no")
        raw.config_set("maxmemory-policy", "allkeys-lru")
    code, found = examined(server.url, PATH=str(tmp_path))
    assert code == 0
    assert {check for check, (status, _) in found.items() if status == "warn"} == {
        "durability", "eviction", "workers", "javascript", "claude", "codex"
    }  # fmt: skip


def test_a_redis_that_evicts_is_1(server: ServerProcess) -> None:
    with redis.Redis.from_url(server.url) as raw:
        raw.config_set("maxmemory-policy", "allkeys-lru")
        raw.config_set("maxmemory", "100mb")
    code, found = examined(server.url)
    assert code == 1
    assert found["eviction"][0] == "fail"


def test_a_redis_that_does_not_answer_is_4_and_the_rest_is_said_still() -> None:
    code, found = examined("redis://:se%20cret@127.0.0.1:1/0")
    assert code == 4
    assert found.keys() == CHECKS - {"eviction", "durability", "workers", "queue"}
    status, detail = found["redis"]
    assert status == "fail"
    assert "redis://:***@127.0.0.1:1/0 is not reachable" in detail
    assert "cret" not in detail
