"""The commands ``agentrq worker`` and ``agentrq up``: settings from the command line, logging, exit codes.

`agentrq.cli` finds them by the entry-point group ``agentrq.commands``. Owns nothing that runs (worker.py).
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from importlib.util import find_spec
from typing import Any, NoReturn

import click
import redis

from agentrq.connection import BadUrl, connect, hide_arguments, masked
from agentrq.embedded.attach import attach
from agentrq.errors import EmbeddedServerError
from agentrq_worker import logs
from agentrq_worker.ownership.lease import NameTaken
from agentrq_worker.process import open_files
from agentrq_worker.session.program_lookup import check_settings
from agentrq_worker.settings import InvalidSetting, Settings, kind_of, load
from agentrq_worker.settings_checks import check_directories, unknown_variables
from agentrq_worker.worker import Worker

log = logging.getLogger(__name__)

_HELP = {
    "prefix": "Prefix of all keys and channels.",
    "queue": "RQ queue of starts; the other commands use QUEUE-ctl.",
    "name": "This worker's name, unique among live workers.",
    "max_sessions": "Sessions hosted at once.",
    "runners_dir": "Directory of <provider>-runner.mjs programs.",
    "metrics_port": "Serve Prometheus metrics and health on this port.",
    "metrics_host": "Address that serves them; default 127.0.0.1.",
    "lease_s": "Seconds after which a silent worker is lost.",
    "beat_s": "Seconds between heartbeats.",
    "drain_s": "Seconds that turns have to finish when the worker is stopped.",
    "stop_grace_s": "Seconds a runner has to obey a stop, before SIGTERM.",
    "handshake_s": "Seconds an agent has to be ready, and to end an interrupted turn.",
    "recovery_timeout_s": "Seconds after which a lost session ends if no worker takes it over.",
    "retention_s": "Seconds an ended session is kept.",
    "max_events": "Events kept of one session.",
    "max_event_bytes": "Bytes of events kept of one session.",
    "feed_max_entries": "Entries kept of the feed.",
    "feed_max_age_s": "Seconds an entry of the feed is kept.",
    "max_line": "Bytes of the longest line that a runner may print.",
    "max_pending": "Bytes of events kept in memory while Redis is unavailable.",
    "max_spool": "Bytes of events kept on disk once that memory is full.",
    "spool_dir": "Directory of the events kept on disk.",
}
SWITCH_S = 0.0005
"""How long RQ's thread may hold the interpreter while the loop waits; Python's default of 5 ms shows in latencies."""
LOG_FORMATS = ("text", "json")
GATEWAY_END_S = 15.0
"""How long the gateway of `agentrq up` has to end, in seconds."""
EXIT_USAGE, EXIT_UNREACHABLE, EXIT_REFUSED = 2, 4, 5


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, text in reversed(_HELP.items()):
        option = "--" + name.replace("_", "-")
        command = click.option(option, name, type=kind_of(name), metavar=name.rpartition("_")[2].upper(), help=text)(
            command
        )
    command = click.option("--redis", "redis_url", metavar="URL", help="Redis; default AGENTRQ_REDIS_URL.")(command)
    command = click.option("--config", metavar="FILE", help="Settings as TOML (agentrq.toml).")(command)
    command = click.option(
        "--log-format", default="text", show_default=True, metavar="FORMAT", envvar="AGENTRQ_LOG_FORMAT",
        help="text, or json: one object a line. Or by AGENTRQ_LOG_FORMAT.",
    )(command)  # fmt: skip
    return click.option(
        "--log-level", default="INFO", show_default=True, metavar="LEVEL", envvar="AGENTRQ_LOG_LEVEL",
        help="DEBUG, INFO, WARNING or ERROR. Or by AGENTRQ_LOG_LEVEL.",
    )(command)  # fmt: skip


def _fail(code: int, message: str) -> NoReturn:
    click.echo(f"agentrq: {message}", err=True)
    sys.exit(code)


def configure_logging(level: str, log_format: str) -> None:
    """Send log lines to stderr. Exits if the level or the format is unknown."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        _fail(EXIT_USAGE, f"--log-level: {level!r} is not one of DEBUG, INFO, WARNING, ERROR")
    if log_format not in LOG_FORMATS:
        _fail(EXIT_USAGE, f"--log-format: {log_format!r} is not one of {', '.join(LOG_FORMATS)}")
    logs.configure(number, as_json=log_format == "json")


def allow_files(sessions: int) -> None:
    """Raise this process's soft limit of open files to what so many sessions need: three pipes and a pidfd each."""
    needed = 256 + 5 * sessions
    limit = open_files.raise_limit(needed)
    if limit < needed:
        log.warning("max_sessions %d needs some %d open files; the limit is %d (ulimit -n)", sessions, needed, limit)


def bind_metrics(settings: Settings) -> socket.socket | None:
    """The socket that metrics are served on; None: none are. Exits where the address cannot be had."""
    if settings.metrics_port is None:
        return None
    try:
        family = socket.AF_INET6 if ":" in settings.metrics_host else socket.AF_INET
        return socket.create_server((settings.metrics_host, settings.metrics_port), family=family)
    except OSError as error:
        where = f"metrics_host {settings.metrics_host}, metrics_port {settings.metrics_port}"
        _fail(EXIT_USAGE, f"{where}: {error.strerror}")


def serve(settings: Settings, url: str) -> None:
    """Run a worker; exit with the documented code if Redis, the name or the port is not available."""
    bound = bind_metrics(settings)
    try:
        with connect(url, retries=0) as probe:
            probe.ping()
        process = Worker(settings, url, bound)
    except BadUrl as error:
        _fail(EXIT_USAGE, str(error))
    except (redis.RedisError, OSError) as error:
        _fail(EXIT_UNREACHABLE, f"Redis at {masked(url)} is not reachable: {error}")
    faulthandler.enable()  # a watchdog ends a worker that stands still by SIGABRT: its log then says where
    allow_files(settings.max_sessions)
    if advice := settings.approval_policy().advice:
        log.warning("approvals: %s", advice)
    sys.setswitchinterval(SWITCH_S)
    try:
        process.run()
    except NameTaken as error:
        _fail(EXIT_REFUSED, str(error))


def _run(config: str | None, log_level: str, log_format: str, given: dict[str, Any], *, announce: bool) -> None:
    configure_logging(log_level, log_format)
    hide_arguments(given["redis_url"] or "")
    try:
        settings = load(config, options=given)
        check_settings(settings)
        check_directories(settings)
    except InvalidSetting as error:
        _fail(EXIT_USAGE, str(error))
    logs.name_worker(settings.worker_name)
    if told := unknown_variables(settings, os.environ):
        log.warning("environment: %s", told)
    with contextlib.ExitStack() as stack:
        url = settings.redis_url
        if url is None:
            try:
                url = stack.enter_context(attach()).url
            except EmbeddedServerError as error:
                _fail(EXIT_UNREACHABLE, str(error))
        if announce:
            click.echo(f"Redis:  {masked(url)}")
            click.echo(f"Worker: {settings.worker_name}, up to {settings.max_sessions} sessions")
            click.echo('Try:    agentrq run demo "Look around"      Ctrl-C ends it.')
            stack.enter_context(gateway_beside(url))
        serve(settings, url)


@contextlib.contextmanager
def gateway_beside(url: str) -> Iterator[None]:
    """The gateway as a process of its own, for the block, where agentrq-gateway is installed with its server.

    It says itself where it listens; if it cannot, the worker goes on without it.
    """
    installed = metadata.entry_points(group="agentrq.commands", name="gateway")
    if not installed or find_spec("uvicorn") is None:
        yield
        return
    command = [sys.executable, "-m", "agentrq", "gateway", "--ticket", "--parent", str(os.getpid())]
    process = subprocess.Popen(command, env=os.environ | {"AGENTRQ_REDIS_URL": url}, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(GATEWAY_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@click.command()
@_options
def worker(config: str | None, log_level: str, log_format: str, **given: Any) -> None:
    """Host sessions until stopped: SIGTERM lets turns finish, a second one hands all sessions over at once."""
    _run(config, log_level, log_format, given, announce=False)


@click.command()
@_options
def up(config: str | None, log_level: str, log_format: str, **given: Any) -> None:
    """Run all that one machine needs: the private Valkey (unless you name a Redis) and a worker.

    Where agentrq-gateway is installed, it serves sessions over HTTP as well, on loopback, and prints an address that
    lets one browser in.
    """
    _run(config, log_level, log_format, given, announce=True)
