"""What is to be spawned for a claimed session: program, environment, dialect. Spawns nothing, decides no status."""

from __future__ import annotations

import logging
import os
from typing import Final, NamedTuple

import msgspec

from agentrq.wire.commands import Options
from agentrq.wire.messages import SessionTotal
from agentrq_worker.providers import UnknownAdapter
from agentrq_worker.providers.dialect import Dialect
from agentrq_worker.providers.dialects import make_dialect
from agentrq_worker.resolution import RunnerNotFound, resolve
from agentrq_worker.runner.environment import build_environment
from agentrq_worker.settings import Settings

log = logging.getLogger(__name__)

_CONFIG_DIRS: Final = ("claude", "codex")


class CannotLaunch(Exception):
    """A session's runner cannot be started; the text is the session's error."""


class Launch(NamedTuple):
    """A program ready to be spawned, and how to speak with it."""

    argv: list[str]
    environment: dict[str, str]
    cwd: str | None
    dialect: Dialect


def with_defaults(provider: str, options: Options, settings: Settings) -> Options:
    """A start's options, those it left out taken from the provider's settings."""
    configured = settings.providers.get(provider)
    if configured is None or not configured.options:
        return options
    given = {name: value for name, value in msgspec.structs.asdict(options).items() if value is not None}
    return msgspec.structs.replace(configured.defaults(), **given)


def prepare(
    session_id: str, provider: str, options: Options, total: SessionTotal, epoch: int, settings: Settings
) -> Launch:
    """Everything a spawn needs. Raises `CannotLaunch`."""
    try:
        program = resolve(provider, settings)
        if program.dialect == "jsonrpc":  # these agents are told their directory in full
            options = msgspec.structs.replace(options, cwd=os.path.abspath(options.cwd or "."))
        dialect = make_dialect(program.dialect, session_id, options, program.adapter, total, epoch)
    except (RunnerNotFound, UnknownAdapter) as error:
        raise CannotLaunch(str(error)) from None
    environment = build_environment(
        os.environ,
        provider=provider if provider in _CONFIG_DIRS else program.adapter,
        config_dir=options.config_dir,
        extra_env=options.extra_env or {},
        pass_env=program.settings.pass_env,
        settings_env=program.settings.env,
    )
    if environment.refused:
        log.warning("session %s: extra_env refused: %s", session_id, ", ".join(environment.refused))
    return Launch(dialect.command(program.argv, options), environment.variables, options.cwd, dialect)


def why_not_spawned(launch: Launch, error: Exception) -> str:
    """What a failed spawn means to a user."""
    if launch.cwd is not None and not os.path.isdir(launch.cwd):
        return f"Working directory not found: {launch.cwd}"
    if isinstance(error, FileNotFoundError):
        return f"Runner not found: {launch.argv[0]}"
    return f"Runner could not be started: {launch.argv[0]}: {error}"
