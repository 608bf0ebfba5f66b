"""``doctor``: looks at what agentrq needs and says what it finds, a line a check. Changes nothing.

Owns which findings are essential (exit 1), which are worth a warning, and their words.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any, Final, NamedTuple

import click
import redis
from rq import Queue

from agentrq.cli.exit_codes import FAILED, OK, UNREACHABLE
from agentrq.cli.output import put, put_json
from agentrq.cli.sanitize import one_line
from agentrq.cli.shared_options import common, redis_trouble, redis_url
from agentrq.connection import BadUrl, connect, masked
from agentrq.embedded.server_process import find_server
from agentrq.errors import EmbeddedServerError
from agentrq.rq_commands import SERIALIZER
from agentrq.wire.keys import Keys, control_queue, queue_name

_OLDEST: Final = (6, 2)
"""The stream ranges that readers use (``XRANGE key (cursor +``) came with Redis 6.2."""
_AGENTS: Final = ("claude", "codex")


class Finding(NamedTuple):
    """One line: ``status`` is ``ok``, ``warn`` (something may be missed) or ``fail`` (something essential is)."""

    check: str
    status: str
    detail: str


class _Unreachable(Exception):
    """Redis does not answer; the text says which."""


@click.command()
@common
def doctor(url: str | None, as_json: bool) -> int:
    """Check what agentrq needs: versions, Redis, workers, agents."""
    code = OK
    for finding in _look(url):
        if as_json:
            put_json(finding._asdict())
        else:
            put(f"{finding.status:<5} {finding.check:<16} {one_line(finding.detail)}\n")
        if finding.status == "fail" and code == OK:
            code = FAILED
        if finding.check == "redis" and finding.status == "fail":
            code = UNREACHABLE
    return code


def _look(url: str | None) -> Iterator[Finding]:
    yield Finding("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")
    yield Finding("agentrq", "ok", metadata.version("agentrq"))
    yield _worker_distribution()
    yield _embedded_binary(needed=url is None)
    yield from _redis(url)
    yield _first_found("javascript", ("deno", "node"), "runners written in JavaScript (<provider>-runner.mjs)")
    for agent in _AGENTS:
        yield _first_found(agent, (agent,), f"provider {agent}")


def _worker_distribution() -> Finding:
    try:
        return Finding("agentrq-worker", "ok", metadata.version("agentrq-worker"))
    except metadata.PackageNotFoundError:
        return Finding("agentrq-worker", "warn", "not installed here; a worker needs it: pip install agentrq-worker")


def _embedded_binary(needed: bool) -> Finding:
    try:
        return Finding("embedded server", "ok", str(find_server()))
    except EmbeddedServerError as error:
        return Finding("embedded server", "fail" if needed else "warn", str(error))


def _first_found(check: str, programs: tuple[str, ...], use: str) -> Finding:
    for program in programs:
        if found := shutil.which(program):
            return Finding(check, "ok", found)
    return Finding(check, "warn", f"no {' or '.join(programs)} on PATH: needed for {use} only")


def _redis(given: str | None) -> Iterator[Finding]:
    try:
        with redis_url(given) as url:
            try:
                with connect(url, retries=0) as client:
                    information: dict[str, Any] = client.info()
                    yield _version(masked(url), information)
                    yield _eviction(information)
                    yield _durability(information)
                    yield from _work(client)
            except BadUrl as error:
                raise click.UsageError(str(error)) from None
            except (redis.RedisError, OSError) as error:
                yield Finding("redis", "fail", redis_trouble(url, error))
    except EmbeddedServerError as error:
        yield Finding("redis", "fail", str(error))


def _version(url: str, information: dict[str, Any]) -> Finding:
    valkey = information.get("valkey_version")
    # A Valkey says the Redis version it is compatible with as well.
    version = str(information.get("redis_version", "0"))
    name = f"Valkey {valkey}" if valkey else f"Redis {version}"
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _OLDEST:
        return Finding("redis version", "fail", f"{name} at {url} is too old: 6.2 or later is needed")
    return Finding("redis", "ok", f"{name} at {url}")


def _eviction(information: dict[str, Any]) -> Finding:
    policy = str(information.get("maxmemory_policy", "unknown"))
    if policy == "noeviction":
        return Finding("eviction", "ok", "maxmemory-policy noeviction")
    if not int(information.get("maxmemory", 0)):
        return Finding("eviction", "warn", f"maxmemory-policy {policy}, harmless only while there is no maxmemory")
    return Finding("eviction", "fail", f"maxmemory-policy {policy} throws sessions away: set it to noeviction")


def _durability(information: dict[str, Any]) -> Finding:
    if information.get("aof_enabled"):
        return Finding("durability", "ok", "appendonly yes")
    return Finding("durability", "warn", "appendonly no: a crash of Redis loses what came since its last snapshot")


def _work(client: redis.Redis) -> Iterator[Finding]:
    keys = Keys.from_environment()
    prefix = keys.worker("")
    names = sorted(key.decode(errors="replace").removeprefix(prefix) for key in _scan(client, prefix))
    if names:
        yield Finding("workers", "ok", f"{len(names)} alive: {', '.join(names)}")
    else:
        yield Finding("workers", "warn", "none alive: sessions stay queued until one is started (agentrq up)")
    for queue in (queue_name(), control_queue(queue_name())):
        yield Finding("queue", "ok", f"{queue}: {_waiting(client, queue)} waiting")


def _scan(client: redis.Redis, prefix: str) -> set[bytes]:
    escaped = "".join(f"\\{character}" if character in "[]*?\\^" else character for character in prefix)
    return set(client.scan_iter(match=f"{escaped}*", count=1000))


def _waiting(client: redis.Redis, queue: str) -> int:
    return int(Queue(queue, connection=client, serializer=SERIALIZER).count)
