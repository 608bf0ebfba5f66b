"""What ``doctor`` checks in Redis: version, settings, memory, a write, RQ's suspension, workers and queues.

Owns which findings are essential and their words. Changes nothing but one key, which it deletes at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import redis
from redis.exceptions import NoPermissionError
from rq import Queue

from agentrq.rq_commands import SERIALIZER, SUSPENDED, WORKER_PREFIX, workers_key
from agentrq.wire.keys import Keys, control_queue, queue_name

_OLDEST: Final = (7, 0)
"""Redis 7.0, or a Valkey that is compatible with it: the oldest version that the tests run on."""
_NEARLY_FULL: Final = 0.9


class Finding(NamedTuple):
    """One line: ``status`` is ``ok``, ``warn`` (something may be missed) or ``fail`` (something essential is)."""

    check: str
    status: str
    detail: str


def check_redis(client: redis.Redis, url: str) -> Iterator[Finding]:
    """All findings about the server at ``url``; a check that this Redis user may not make is a warning.

    Raises `redis.RedisError` and OSError if the server does not answer.
    """
    keys = Keys.from_environment()
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("redis", lambda: _check_server(client, url)),
        ("write", lambda: _check_write(client, keys)),
        ("suspension", lambda: _check_suspension(client)),
        ("workers", lambda: _check_workers(client, keys, queue_name())),
        ("queue", lambda: _check_queues(client)),
    ]
    for name, check in checks:
        try:
            yield from check()
        except NoPermissionError as error:
            yield Finding(name, "warn", f"this Redis user may not check it: {error}")


def _check_server(client: redis.Redis, url: str) -> Iterator[Finding]:
    information: dict[str, Any] = client.info()
    yield _check_version(url, information)
    yield _check_eviction(information)
    yield _check_durability(information)
    yield _check_memory(information)


def _check_version(url: str, information: dict[str, Any]) -> Finding:
    valkey = information.get("valkey_version")
    # A Valkey also reports the Redis version that it is compatible with.
    version = str(information.get("redis_version", "0"))
    name = f"Valkey {valkey}" if valkey else f"Redis {version}"
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _OLDEST:
        return Finding("redis version", "fail", f"{name} at {url} is too old: Redis 7.0 or later, or Valkey, is needed")
    return Finding("redis", "ok", f"{name} at {url}")


def _check_eviction(information: dict[str, Any]) -> Finding:
    policy = str(information.get("maxmemory_policy", "unknown"))
    if policy == "noeviction":
        return Finding("eviction", "ok", "maxmemory-policy noeviction")
    if not int(information.get("maxmemory", 0)):
        return Finding("eviction", "warn", f"maxmemory-policy {policy}, harmless only while there is no maxmemory")
    return Finding("eviction", "fail", f"maxmemory-policy {policy} throws sessions away: set it to noeviction")


def _check_durability(information: dict[str, Any]) -> Finding:
    if information.get("aof_enabled"):
        return Finding("durability", "ok", "appendonly yes")
    return Finding("durability", "warn", "appendonly no: a crash of Redis loses what came since its last snapshot")


def _check_memory(information: dict[str, Any]) -> Finding:
    used, limit = int(information.get("used_memory", 0)), int(information.get("maxmemory", 0))
    if not limit:
        return Finding("memory", "ok", f"{used >> 20} MiB used, no maxmemory")
    detail = f"{used >> 20} MiB of maxmemory {limit >> 20} MiB used"
    if used < _NEARLY_FULL * limit:
        return Finding("memory", "ok", detail)
    full = "full: only stop and remove still work" if used >= limit else "nearly full"
    return Finding("memory", "warn", f"{detail}: {full}; raise maxmemory or remove ended sessions")


def _check_write(client: redis.Redis, keys: Keys) -> Iterator[Finding]:
    """Write a key as a producer may, and delete it."""
    probe = f"{keys.prefix}:{{doctor}}:probe"
    try:
        with client.pipeline(transaction=True) as pipeline:
            pipeline.hset(probe, "written", 1)
            pipeline.delete(probe)
            pipeline.execute()
    except NoPermissionError:
        raise
    except redis.ResponseError as error:
        yield Finding("write", "fail", f"Redis refuses to write: {error}")
    else:
        yield Finding("write", "ok", "Redis takes writes")


def _check_suspension(client: redis.Redis) -> Iterator[Finding]:
    if client.exists(SUSPENDED):
        yield Finding("suspension", "warn", "RQ is suspended: no worker takes a job until `rq resume`")
    else:
        yield Finding("suspension", "ok", "RQ is not suspended")


def _check_workers(client: redis.Redis, keys: Keys, queue: str) -> Iterator[Finding]:
    """Which live workers serve the queue of starts: those that hold a lease and that RQ lists for that queue."""
    leases = keys.worker("")
    alive = {key.decode(errors="replace").removeprefix(leases) for key in _scan(client, leases)}
    members: Any = client.smembers(workers_key(queue))
    listed = {member.decode(errors="replace").removeprefix(WORKER_PREFIX) for member in members}
    serving, others = sorted(alive & listed), sorted(alive - listed)
    elsewhere = f"; workers of other queues: {', '.join(others)}" if others else ""
    if serving:
        yield Finding("workers", "ok", f"{len(serving)} of queue {queue}: {', '.join(serving)}{elsewhere}")
    else:
        remedy = f"start one (agentrq up, or agentrq worker with AGENTRQ_QUEUE={queue})"
        yield Finding("workers", "warn", f"no live worker serves queue {queue}: {remedy}{elsewhere}")
    foreign = [name for name in sorted(listed - alive) if client.exists(WORKER_PREFIX + name)]
    if foreign:
        detail = f"RQ workers that are not agentrq's take from queue {queue} and fail its jobs: {', '.join(foreign)}"
        yield Finding("workers", "warn", detail)


def _check_queues(client: redis.Redis) -> Iterator[Finding]:
    for queue in (queue_name(), control_queue(queue_name())):
        waiting = int(Queue(queue, connection=client, serializer=SERIALIZER).count)
        yield Finding("queue", "ok", f"{queue}: {waiting} waiting")


def _scan(client: redis.Redis, prefix: str) -> set[bytes]:
    escaped = "".join(f"\\{character}" if character in "[]*?\\^" else character for character in prefix)
    return set(client.scan_iter(match=f"{escaped}*", count=1000))
