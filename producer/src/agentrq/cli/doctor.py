"""The command ``doctor``: checks what agentrq needs and prints one finding a line.

Owns the checks of this machine, the exit code and how findings are printed. What is checked in Redis is redis_checks's.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Final

import click
import redis

from agentrq.cli.exit_codes import FAILED, OK, UNREACHABLE
from agentrq.cli.output import put, put_json
from agentrq.cli.redis_checks import Finding, check_redis
from agentrq.cli.sanitize import one_line
from agentrq.cli.shared_options import redis_url, shared_options
from agentrq.connection import BadUrl, connect, masked
from agentrq.embedded.server_process import find_server
from agentrq.errors import EmbeddedServerError
from agentrq.redis_errors import from_redis

GROUP: Final = "agentrq.doctor"
"""Entry point group of what other distributions check of this machine."""


@click.command()
@shared_options
def doctor(url: str | None, as_json: bool) -> int:
    """Check what agentrq needs: versions, Redis, workers, agents."""
    code = OK
    for finding in _check_all(url):
        if as_json:
            put_json(finding._asdict())
        else:
            put(f"{finding.status:<5} {finding.check:<16} {one_line(finding.detail)}\n")
        if finding.status == "fail" and code == OK:
            code = FAILED
        if finding.check == "redis" and finding.status == "fail":
            code = UNREACHABLE
    return code


def _check_all(url: str | None) -> Iterator[Finding]:
    yield Finding("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")
    yield Finding("agentrq", "ok", metadata.version("agentrq"))
    yield _worker_distribution()
    yield _embedded_binary(needed=url is None)
    yield from _check_server(url)
    yield _first_found("javascript", ("deno", "node"), "runners written in JavaScript (<provider>-runner.mjs)")
    for found in metadata.entry_points(group=GROUP):
        try:
            checks = found.load()
        except ImportError as error:
            yield Finding(found.name, "fail", f"its checks cannot be loaded from {found.value}: {error}")
        else:
            yield from (Finding(*finding) for finding in checks())


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


def _check_server(given: str | None) -> Iterator[Finding]:
    try:
        with redis_url(given) as url:
            try:
                with connect(url, retries=0) as client:
                    yield from check_redis(client, masked(url))
            except BadUrl as error:
                raise click.UsageError(str(error)) from None
            except (redis.RedisError, OSError) as error:
                yield Finding("redis", "fail", str(from_redis(error, url)))
    except EmbeddedServerError as error:
        yield Finding("redis", "fail", str(error))
