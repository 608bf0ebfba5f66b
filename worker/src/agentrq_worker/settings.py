"""Reads the worker's settings: one frozen struct from TOML, ``AGENTRQ_*`` and options, later ones winning.

Owns names, types, defaults and their checks. Knows nothing of what the settings are used for.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import tempfile
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from agentrq.errors import AgentRQError, InvalidOption
from agentrq.wire.approval_policy import InvalidPolicy, Policy, read_policy
from agentrq.wire.commands import Options, make_options
from agentrq.wire.keys import DEFAULT_PREFIX, DEFAULT_QUEUE, Keys
from agentrq.wire.script_calls import DEFAULT_RECOVERY_TIMEOUT_S, DEFAULT_RETENTION_S
from agentrq_worker.sandbox_settings import Sandbox
from agentrq_worker.start_policy import EVERYTHING, StartPolicy
from agentrq_worker.workspace_settings import Workspaces

log = logging.getLogger(__name__)

MIB = 1024 * 1024


class InvalidSetting(AgentRQError, ValueError):
    """A setting is unknown or has the wrong type or range; the message names it and where it came from."""


class Provider(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """``[providers.NAME]``: how one provider's runner is started and understood."""

    protocol: str | None = None
    """The protocol that the worker speaks with the program: `runner` (the runner protocol), `claude` or `jsonrpc`.
    Default: `runner`, or that of the built-in provider. Its former name `dialect` is still accepted.
    """
    parser: str | None = None
    """The format of the events that the program prints. Default: that of the provider of the same name, else `claude`;
    with the protocol `jsonrpc` `codex` for the provider `codex`, else `acp`. Its former name `adapter` is still
    accepted.
    """
    command: list[str] | None = None
    """The program and its arguments. Default: what the search finds."""
    env: dict[str, str] = {}
    """Variables that are set for it. Their values are redacted in what it prints."""
    pass_env: list[str] = []
    """Names of variables that are taken from the worker's own environment. Their values are redacted too."""
    public_env: list[str] = []
    """Names among those of `env` and `pass_env` whose values need not be redacted."""
    options: dict[str, Any] = {}
    """Start options for starts that leave them out."""
    sandbox: Sandbox | None = None
    """Table `[providers.NAME.sandbox]`: what the runner may reach."""

    def defaults(self) -> Options:
        """``options`` as checked options; raises `InvalidOption`."""
        return make_options(self.options)


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """All settings. Sizes are in bytes, times in seconds (float); 0 sessions or bytes are refused."""

    redis_url: str | None = None
    """Redis or Valkey 7 or later: `redis://`, `rediss://`, `unix://`, `sentinel://host:port,host:port/SERVICE`.
    Default: the private Valkey.
    """
    prefix: str = DEFAULT_PREFIX
    """The first part of every key and channel. Clients need the same `AGENTRQ_PREFIX`."""
    queue: str = DEFAULT_QUEUE
    """RQ queue of starts; the other commands use the queue of that name with `-ctl`. Clients need the same
    `AGENTRQ_QUEUE`.
    """
    name: str | None = None
    """The worker's name, unique among live workers. Default: host and process id."""
    max_sessions: int = 100
    """Sessions hosted at once; a full worker takes no start. Each needs at most five open files: the worker raises its
    own soft limit, not the hard one.
    """
    runners_dir: str | None = None
    """Directory of `<provider>-runner.mjs` programs."""
    metrics_port: int | None = None
    """Port that serves Prometheus metrics (`GET /metrics`) and health (`GET /healthz`, `GET /readyz`). Default: nothing
    is served.
    """
    metrics_host: str = "127.0.0.1"
    """Address that serves them; `0.0.0.0` or `::` for all. Whoever reaches it may read them: nobody is asked who they
    are.
    """
    lease_s: float = 10.0
    """A worker that is silent for that long is lost, and its sessions go to others."""
    beat_s: float = 2.5
    """Time between two renewals of the lease; at most half of it."""
    drain_s: float = 600.0
    """Time that turns have to finish when the worker is told to end."""
    stop_grace_s: float = 3.0
    """Time that a runner has to obey a stop, before SIGTERM to its process group."""
    handshake_s: float = 60.0
    """Time that an agent has to be ready for its first prompt, and to end a turn that was interrupted; then the session
    ends in error.
    """
    recovery_timeout_s: float = DEFAULT_RECOVERY_TIMEOUT_S
    """A lost or handed-over session that no worker takes for that long ends in error (`lost`). Clients need the same
    `AGENTRQ_RECOVERY_TIMEOUT_S`.
    """
    retention_s: float = DEFAULT_RETENTION_S
    """An ended session is kept for that long. Clients need the same `AGENTRQ_RETENTION_S`."""
    max_events: int = 100_000
    """Events kept of one session; older ones are trimmed."""
    max_event_bytes: int = 256 * MIB
    """Bytes of events kept of one session; older ones are trimmed."""
    feed_max_entries: int = 100_000
    """Entries kept of the feed; older ones are dropped. All workers need the same."""
    feed_max_age_s: float = 7 * 86_400.0
    """Entries of the feed that are older are dropped. All workers need the same."""
    max_line: int = 10 * MIB
    """A runner's longest line; a longer one becomes an `error` message."""
    max_pending: int = 50 * MIB
    """What waits in memory while Redis is slow or unavailable, of all sessions of the worker."""
    max_spool: int = 2048 * MIB
    """What waits on disk after that; beyond both, runners are not read."""
    spool_dir: str | None = None
    """Directory of the spool, on a disk. Default: the system's temporary directory."""
    approvals: dict[str, Any] | str | None = None
    """The worker's own approval policy, asked before the session's. Beyond `ask`, `allow` and `deny` in TOML only. With
    `deadlineS` a request that nobody answers is decided.
    """
    homes_dir: str | None = None
    """Directory of the sessions' own homes. Default: one of this user's in the temporary directory."""
    workspaces_dir: str | None = None
    """Directory of the workspaces that starts ask for, and of the repositories that they are made from. Every worker
    should have the same, so that a session finds its files by the same path elsewhere. Default: one of this user's in
    the temporary directory.
    """
    workspaces: Workspaces | None = None
    """Table `[workspaces]`: how they are made and kept. TOML only."""
    policy: StartPolicy | None = None
    """Table `[policy]`: what starts may ask for. TOML only."""
    providers: dict[str, Provider] = {}
    """Tables `[providers.NAME]`: how each provider's program is run. TOML only."""

    @property
    def keys(self) -> Keys:
        """The Redis names under this prefix."""
        return Keys(self.prefix)

    @property
    def worker_name(self) -> str:
        """``name``, else host and process: unique among the workers that live."""
        if self.name is not None:
            return self.name
        host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:40] or "host"
        return f"{host}-{os.getpid()}"

    def approval_policy(self) -> Policy:
        """The worker's own policy on what agents may do."""
        return read_policy(self.approvals)

    @property
    def start_policy(self) -> StartPolicy:
        """What starts may ask for."""
        return self.policy or EVERYTHING

    @property
    def homes_path(self) -> Path:
        """Where sessions' own homes are made."""
        return Path(self.homes_dir or os.path.join(tempfile.gettempdir(), f"agentrq-homes-{os.getuid()}"))

    @property
    def workspace_settings(self) -> Workspaces:
        """``[workspaces]``, or its defaults."""
        return self.workspaces or Workspaces()

    @property
    def workspaces_path(self) -> Path:
        """Where workspaces are made."""
        return Path(self.workspaces_dir or os.path.join(tempfile.gettempdir(), f"agentrq-workspaces-{os.getuid()}"))

    @property
    def spool_path(self) -> Path:
        """Where the spool's files are made."""
        return Path(self.spool_dir or tempfile.gettempdir())


_ANNOTATIONS = typing.get_type_hints(Settings)
_TOML_ONLY = ("policy", "providers", "workspaces")
VARIABLES = {f"AGENTRQ_{name.upper()}": name for name in Settings.__struct_fields__ if name not in _TOML_ONLY}
"""The settings by the environment variable that gives each."""
_FORMER_NAMES = {"dialect": "protocol", "adapter": "parser"}
"""Keys of ``[providers.NAME]`` that are still accepted, and what they are called now."""
_MAY_BE_ZERO = frozenset({"drain_s", "stop_grace_s", "max_spool", "recovery_timeout_s"})


def load(
    config: str | None = None, environment: Mapping[str, str] = os.environ, options: Mapping[str, Any] | None = None
) -> Settings:
    """Read the TOML file ``config`` (optional), then ``AGENTRQ_*``, then options (None counts as not given).

    Raises `InvalidSetting`: one line that names the setting and its source.
    """
    values: dict[str, Any] = {}
    if config is not None:
        for name, value in _read_toml(config).items():
            values[name] = _checked(name, value, f"{config}: {name}", strict=True)
    for variable, name in VARIABLES.items():
        if environment.get(variable):
            values[name] = _checked(name, environment[variable], variable, strict=False)
    for name, value in (options or {}).items():
        if value is not None:
            values[name] = _checked(name, value, "--" + name.replace("_", "-"), strict=False)
    settings = Settings(**values)
    if settings.beat_s * 2 > settings.lease_s:
        raise InvalidSetting(f"beat_s ({settings.beat_s:g}) must be at most half of lease_s ({settings.lease_s:g})")
    return settings


def _read_toml(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise InvalidSetting(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"{path}: {error}") from None


def _checked(name: str, value: Any, source: str, *, strict: bool) -> Any:
    if name not in _ANNOTATIONS:
        raise InvalidSetting(f"{source}: unknown setting; settings are {', '.join(Settings.__struct_fields__)}")
    try:
        if name == "providers":
            return _providers(value, source)
        value = msgspec.convert(value, _ANNOTATIONS[name], strict=strict)
    except msgspec.ValidationError as error:
        wanted = {int: "a whole number", float: "a number"}.get(kind_of(name))
        if wanted and isinstance(value, str):
            raise InvalidSetting(f"{source}: {value[:80]!r} is not {wanted}") from None
        raise InvalidSetting(f"{source}: {error}") from None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and not (0 if name in _MAY_BE_ZERO else 1e-3) <= value < 2**53:
        least = "of at least 0" if name in _MAY_BE_ZERO else "above 0"
        raise InvalidSetting(f"{source}: {value} is out of range, use a number {least}")
    if name == "metrics_port" and value > 65535:
        raise InvalidSetting(f"{source}: {value} is not a port, use 1 to 65535")
    if name == "approvals":
        try:
            read_policy(value)
        except InvalidPolicy as error:
            raise InvalidSetting(f"{source}: {error}") from None
    if name in ("prefix", "queue") and not value:
        raise InvalidSetting(f"{source}: is empty")
    if name == "name" and not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", value):
        raise InvalidSetting(f"{source}: use 1 to 100 of A-Z a-z 0-9 _ . -")
    return value


def _providers(value: Any, source: str) -> dict[str, Provider]:
    if not isinstance(value, dict):
        raise InvalidSetting(f"{source}: expected tables [providers.NAME]")
    found = {}
    for name, given in value.items():
        table = _with_new_names(given, f"{source}.{name}")
        try:
            found[name] = msgspec.convert(table, Provider)
        except msgspec.ValidationError as error:
            raise InvalidSetting(f"{source}.{name}: {error}") from None
        try:
            found[name].defaults()
        except InvalidOption as error:
            raise InvalidSetting(f"{source}.{name}.options: {error}") from None
        if found[name].command == []:
            raise InvalidSetting(f"{source}.{name}.command: is empty")
    return found


def _with_new_names(table: Any, source: str) -> Any:
    """A provider's table with the names that settings had before replaced by today's."""
    old = [name for name in _FORMER_NAMES if isinstance(table, dict) and name in table]
    if not old:
        return table
    renamed = {_FORMER_NAMES.get(name, name): value for name, value in table.items()}
    if len(renamed) < len(table):
        raise InvalidSetting(f"{source}: give {_FORMER_NAMES[old[0]]}, not {old[0]}, which is its old name")
    log.warning("%s: %s", source, "; ".join(f"{name} is now called {_FORMER_NAMES[name]}" for name in old))
    return renamed


def kind_of(name: str) -> type:
    """The plain type of a setting, for command-line options: str, int or float."""
    kinds = [kind for kind in typing.get_args(_ANNOTATIONS[name]) if kind is not types.NoneType]
    kind: type = kinds[0] if kinds else _ANNOTATIONS[name]
    return kind
