"""What ``doctor`` checks in Redis: version, settings, memory, a write, RQ's suspension, workers and queues.

Owns which findings are essential and their words. Changes nothing but one key, which it deletes at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any, Final, NamedTuple

import redis
from redis.exceptions import NoPermissionError
from rq import Queue

from agentrq.rq_commands import CLOCK_AHEAD_MS, SERIALIZER, SUSPENDED, WORKER_PREFIX, WORKER_VERSION, workers_key
from agentrq.wire.keys import Keys, control_queue, queue_name

_OLDEST: Final = (7, 0)
"""Redis 7.0, or a Valkey that is compatible with it: the oldest version that the tests run on."""
_NEARLY_FULL: Final = 0.9
_PUBSUB_BYTES: Final = 8 << 20
"""Redis's default soft limit: less cuts off readers of one long line."""
_CLOCK_SKEW_MS: Final = 2000


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
        ("pubsub buffer", lambda: _check_pubsub_buffer(client)),
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
    failed = [name for name in ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status")
              if information.get(name, "ok") != "ok"]  # fmt: skip
    if failed:
        return Finding("durability", "fail", f"Redis cannot save to disk: {', '.join(failed)}: see its log")
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
        yield from _check_machines(client, serving)
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


def _check_pubsub_buffer(client: redis.Redis) -> Iterator[Finding]:
    """A reader that is slower than its session is cut off there, and reads on from the stream."""
    try:
        limits = str(client.config_get("client-output-buffer-limit").get("client-output-buffer-limit", "")).split()
    except NoPermissionError:
        raise
    except redis.ResponseError as error:
        yield Finding("pubsub buffer", "warn", f"Redis does not tell: {error}")
        return
    if "pubsub" not in limits:
        yield Finding("pubsub buffer", "warn", "Redis does not tell client-output-buffer-limit pubsub")
        return
    hard, soft = (int(value) for value in limits[limits.index("pubsub") + 1 :][:2])
    detail = f"client-output-buffer-limit pubsub {hard >> 20}mb {soft >> 20}mb"
    low = [limit for limit in (hard, soft) if 0 < limit < _PUBSUB_BYTES]
    if low:
        yield Finding("pubsub buffer", "warn", f"{detail}: below 8mb, slow readers are cut off often")
    else:
        yield Finding("pubsub buffer", "ok", detail)


def _check_machines(client: redis.Redis, names: list[str]) -> Iterator[Finding]:
    """What the workers tell of their versions and clocks."""
    versions: dict[str, list[str]] = {}
    clocks: list[tuple[int, str]] = []
    for name in names:
        version, ahead = _texts(client.hmget(WORKER_PREFIX + name, WORKER_VERSION, CLOCK_AHEAD_MS))
        if version is not None:
            versions.setdefault(version, []).append(name)
        with contextlib.suppress(TypeError, ValueError):  # it tells nothing, or not what we know
            clocks.append((int(ahead or ""), name))
    ours = metadata.version("agentrq")
    if versions:
        said = "; ".join(f"{version}: {', '.join(found)}" for version, found in sorted(versions.items()))
        yield Finding("worker versions", "ok" if list(versions) == [ours] else "warn", f"{said} (agentrq here: {ours})")
    if clocks:
        skew, worst = max((abs(ahead), name) for ahead, name in clocks)
        spread = max(clocks)[0] - min(clocks)[0]
        detail = f"at most {skew / 1000:.3g} s from Redis's ({worst}), {spread / 1000:.3g} s from one another"
        high = max(skew, spread) > _CLOCK_SKEW_MS
        late = ": times in logs and in RQ's records mislead; run NTP" if high else ""
        yield Finding("worker clocks", "warn" if high else "ok", detail + late)


def _texts(values: Any) -> list[str | None]:
    return [None if value is None else value.decode(errors="replace") for value in values]


def _scan(client: redis.Redis, prefix: str) -> set[bytes]:
    escaped = "".join(f"\\{character}" if character in "[]*?\\^" else character for character in prefix)
    return set(client.scan_iter(match=f"{escaped}*", count=1000))
