"""``doctor`` on real servers: a line a check, and an exit code that says whether something essential is wrong."""

import json
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
import redis

from agentrq.acl import profile
from agentrq.cli import redis_checks
from agentrq.client import AgentClient
from agentrq.embedded.server_process import ServerProcess, find_server
from tests.producer.command_line import run_cli
from tests.rq_checks import eventually
from tests.workers import Worker

CHECKS = {
    "python", "agentrq", "agentrq-worker", "embedded server", "redis", "eviction", "durability", "memory", "write",
    "suspension", "workers", "queue", "pubsub buffer", "javascript", "claude", "codex", "settings", "open files",
    "/proc", "landlock", "homes", "spool",
}  # fmt: skip


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "server") as server:
        yield server


def register(raw: redis.Redis, name: str, queue: str, prefix: str = "agentrq") -> None:
    """Leave what a worker that serves a queue leaves in Redis: its lease and its place in RQ's registry."""
    raw.set(f"{prefix}:worker:{name}", "token")
    raw.sadd(f"rq:workers:{queue}", f"rq:worker:{name}")


def examined(url: str, **changes: str | None) -> tuple[int, dict[str, tuple[str, str]]]:
    done = run_cli("doctor", "--json", url=url, **changes)
    assert done.stderr == ""
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, {finding["check"]: (finding["status"], finding["detail"]) for finding in findings}


def test_a_healthy_redis_passes_every_check(server: ServerProcess) -> None:
    with AgentClient.from_url(server.url) as client:
        client.start("fake", "Do it")
    with redis.Redis.from_url(server.url) as raw:
        register(raw, "[odd] one", "agentrq")
    code, found = examined(server.url)
    assert code == 0
    assert found.keys() == CHECKS
    assert found["redis"][1].startswith("Valkey ")
    assert found["embedded server"] == ("ok", str(find_server()))
    assert found["eviction"] == ("ok", "maxmemory-policy noeviction")
    assert found["durability"] == ("ok", "appendonly yes")
    assert found["workers"] == ("ok", "1 of queue agentrq: [odd] one")
    assert found["queue"] == ("ok", "agentrq-ctl: 0 waiting")
    plain = run_cli("doctor", url=server.url)
    assert plain.returncode == 0
    assert "ok    queue            agentrq: 1 waiting\n" in plain.stdout


def test_the_names_of_the_environment_are_used(server: ServerProcess) -> None:
    with redis.Redis.from_url(server.url) as raw:
        register(raw, "one", "mine", prefix="of*ours")
        raw.set("of-others-ours:worker:two", "token")
        raw.rpush("rq:queue:mine-ctl", "job")
    _, found = examined(server.url, AGENTRQ_PREFIX="of*ours", AGENTRQ_QUEUE="mine")
    assert found["workers"] == ("ok", "1 of queue mine: one")
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
    assert found.keys() == CHECKS - {
        "eviction", "durability", "memory", "write", "suspension", "workers", "pubsub buffer", "queue"
    }  # fmt: skip
    status, detail = found["redis"]
    assert status == "fail"
    assert "redis://:***@127.0.0.1:1/0 is not reachable" in detail
    assert "cret" not in detail


def test_a_queue_that_no_worker_serves_is_a_warning_that_names_it(server: ServerProcess) -> None:
    with redis.Redis.from_url(server.url) as raw:
        register(raw, "elsewhere", "agents")
    code, found = examined(server.url)
    assert code == 0
    assert found["workers"][0] == "warn"
    assert "no live worker serves queue agentrq" in found["workers"][1]
    assert found["workers"][1].endswith("workers of other queues: elsewhere")
    assert examined(server.url, AGENTRQ_QUEUE="agents")[1]["workers"] == ("ok", "1 of queue agents: elsewhere")


def test_a_worker_without_a_lease_counts_as_none(server: ServerProcess) -> None:
    with redis.Redis.from_url(server.url) as raw:
        register(raw, "killed", "agentrq")
        raw.delete("agentrq:worker:killed")
    assert examined(server.url)[1]["workers"][0] == "warn"


def test_a_plain_rq_worker_on_the_queue_is_named(server: ServerProcess) -> None:
    with redis.Redis.from_url(server.url) as raw:
        raw.sadd("rq:workers:agentrq", "rq:worker:plain")
        raw.hset("rq:worker:plain", "queues", "agentrq")
    assert examined(server.url)[1]["workers"] == (
        "warn", "RQ workers that are not agentrq's take from queue agentrq and fail its jobs: plain"
    )  # fmt: skip


def test_a_suspended_rq_is_a_warning(server: ServerProcess) -> None:
    with redis.Redis.from_url(server.url) as raw:
        raw.set("rq:suspended", 1)
    code, found = examined(server.url)
    assert (code, found["suspension"][0]) == (0, "warn")


def test_a_full_redis_fails_the_write_and_is_called_full(server: ServerProcess) -> None:
    with redis.Redis.from_url(server.url) as raw:
        raw.set("ballast", "x" * 20_000_000)
        raw.config_set("maxmemory", 10_000_000)
    code, found = examined(server.url)
    assert code == 1
    assert found["memory"][0] == "warn"
    assert "full: only stop and remove still work" in found["memory"][1]
    assert found["write"][0] == "fail"
    assert "maxmemory" in found["write"][1]


def test_a_replica_that_takes_no_writes_fails_the_write(server: ServerProcess) -> None:
    with redis.Redis.from_url(server.url) as raw:
        raw.config_set("min-replicas-to-write", 1)
    code, found = examined(server.url)
    assert (code, found["write"][0]) == (1, "fail")
    assert "replica" in found["write"][1].lower()


def test_the_write_check_leaves_no_key(server: ServerProcess) -> None:
    assert examined(server.url)[1]["write"] == ("ok", "Redis takes writes")
    with redis.Redis.from_url(server.url) as raw:
        assert raw.keys() == []


def test_a_user_that_may_only_read_is_told_which_checks_it_cannot_make(server: ServerProcess) -> None:
    with redis.Redis.from_url(server.url) as raw:
        raw.execute_command(
            "ACL", "SETUSER", "looker", "on", ">pw", "~*", "+@read", "+info", "+ping", "+client", "+hello"
        )
    code, found = examined(server.url.replace("unix://", "unix://looker:pw@"))
    assert code == 0
    assert found["write"][0] == "warn"
    assert "may not check it" in found["write"][1]


def test_a_producer_under_its_acl_profile_is_told_what_it_cannot_check(server: ServerProcess) -> None:
    with redis.Redis.from_url(server.url) as raw:
        raw.execute_command(*profile("producer", user="backend").split())
        raw.execute_command("ACL", "SETUSER", "backend", ">pw")
    code, found = examined(server.url.replace("unix://", "unix://backend:pw@"))
    assert code == 0
    assert found["redis"][0] == "warn"
    assert found["write"] == ("ok", "Redis takes writes")


def test_a_redis_before_version_7_is_a_failure() -> None:
    assert redis_checks._check_version("redis://x", {"redis_version": "6.2.14"}).status == "fail"
    assert redis_checks._check_version("redis://x", {"redis_version": "7.0.0"}).status == "ok"


def test_workers_whose_clocks_or_versions_differ_are_told(server: ServerProcess) -> None:
    with redis.Redis.from_url(server.url) as raw:
        for name, version, ahead in (("one", "0.0.9", 0), ("two", metadata.version("agentrq"), -3000)):
            register(raw, name, "agentrq")
            raw.hset(f"rq:worker:{name}", mapping={"agentrq_version": version, "agentrq_clock_ahead_ms": ahead})
        register(raw, "older", "agentrq")
        raw.hset("rq:worker:older", "agentrq_clock_ahead_ms", "soon")
    _, found = examined(server.url)
    assert found["worker versions"][0] == "warn"
    assert "0.0.9: one" in found["worker versions"][1]
    assert found["worker clocks"] == (
        "warn", "at most 3 s from Redis's (two), 3 s from one another: "
        "times in logs and in RQ's records mislead; run NTP",
    )  # fmt: skip


def test_small_pubsub_buffers_are_told(server: ServerProcess) -> None:
    with redis.Redis.from_url(server.url) as raw:
        raw.config_set("client-output-buffer-limit", "pubsub 33554432 1048576 60")
    _, found = examined(server.url)
    assert found["pubsub buffer"][0] == "warn"
    assert "pubsub 32mb 1mb" in found["pubsub buffer"][1]


async def test_a_real_worker_tells_its_version_and_clock(redis_url: str, start_worker: Callable[..., Worker]) -> None:
    start_worker()

    def told() -> dict[str, tuple[str, str]]:
        found = examined(redis_url)[1]
        return found if "worker clocks" in found else {}

    found = await eventually(told, "the worker's clock")
    assert found["worker versions"][0] == found["worker clocks"][0] == "ok"
