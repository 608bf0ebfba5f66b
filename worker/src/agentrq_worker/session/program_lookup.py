"""Which program a provider's name stands for: settings, then ``runners_dir``, then the table of providers.

Owns the order of the search, the check of settings against the table, and the error where nothing is found. Starts
nothing.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from agentrq_worker.providers import registry
from agentrq_worker.providers.registry import RUNNER, ProviderSpec
from agentrq_worker.settings import InvalidSetting, Provider, Settings

log = logging.getLogger(__name__)

_NO_SETTINGS = Provider()


class RunnerNotFound(Exception):
    """A provider has no program; the text begins ``Runner not found: `` and names the places that were searched.

    For an agent that only has to be installed the text says so instead.
    """


class Program(NamedTuple):
    """What to run and how to speak with it."""

    argv: list[str]
    protocol: str
    parser: str
    settings: Provider
    spec: ProviderSpec | None = None
    """What is known of this program; None for one that only settings or ``runners_dir`` name."""

    @property
    def config_dir_variable(self) -> str:
        """The environment variable that the option ``config_dir`` becomes; empty where there is none."""
        known = self.spec or registry.providers().specs.get(self.parser)
        return known.config_dir_variable if known is not None else ""


def check_settings(settings: Settings) -> None:
    """Check what settings say of providers against the table; raises `InvalidSetting`.

    A registration of another package that failed is only logged: it costs no other provider.
    """
    for name, reason in registry.providers().failed.items():
        log.warning("provider %s is not available: %s", name, reason)
    for name, table in settings.providers.items():
        where = f"providers.{name}"
        if table.protocol is not None and table.protocol not in registry.protocol_names():
            raise InvalidSetting(
                f"{where}.protocol: unknown protocol {table.protocol!r}; use one of "
                f"{', '.join(registry.protocol_names())}"
            )
        if table.parser is not None and table.parser not in registry.parser_names():
            raise InvalidSetting(
                f"{where}.parser: unknown parser {table.parser!r}; use one of {', '.join(registry.parser_names())}"
            )


def resolve(provider: str, settings: Settings) -> Program:
    """The program of a provider. Raises `RunnerNotFound`."""
    configured = settings.providers.get(provider, _NO_SETTINGS)
    parser = configured.parser or registry.default_parser(provider, configured.protocol)
    searched = [f"settings [providers.{provider}]"]
    known = registry.providers()
    if configured.command:
        return Program(list(configured.command), configured.protocol or RUNNER, parser, configured)
    if not provider.replace("-", "").replace("_", "").isalnum() or not provider.isascii():
        raise RunnerNotFound(f"Runner not found: {provider[:64]!r} is not a valid provider name")
    if settings.runners_dir is not None:
        script = Path(settings.runners_dir) / f"{provider}-runner.mjs"
        if script.is_file():
            return Program(_javascript(script), RUNNER, parser, configured)
        searched.append(str(script))
    spec = known.specs.get(provider)
    if spec is None and configured.protocol not in (None, RUNNER):
        spec = known.specs.get(parser)  # another name for an agent of the table
    if spec is not None and (argv := _argv(spec)):
        return Program(argv, spec.protocol, configured.parser or _parser_of(spec), configured, spec)
    if provider in known.failed:
        raise RunnerNotFound(f"Runner not found: {provider}: {known.failed[provider]}")
    searched.append(f"the installed providers ({', '.join(builtin())})")
    raise RunnerNotFound(f"Runner not found: {provider}; searched {', '.join(searched)}")


def builtin() -> list[str]:
    """The names of the providers that need no settings: built in, or registered by an installed package."""
    return [spec.name for spec in registry.providers().specs.values() if spec.program or spec.module]


def _parser_of(spec: ProviderSpec) -> str:
    return spec.name if spec.parser is not None else registry.DEFAULT_PARSER


def _argv(spec: ProviderSpec) -> list[str]:
    if spec.module:
        return [sys.executable, "-m", spec.module]
    if not spec.program:
        return []
    return [_installed(spec), *spec.program[1:]]


def _installed(spec: ProviderSpec) -> str:
    for place in spec.places:
        path = os.path.expanduser(place)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    found = shutil.which(spec.program[0])
    if found is None:
        raise RunnerNotFound(spec.missing or f"Runner not found: {spec.name} needs {spec.program[0]} on PATH")
    return found


def _javascript(script: Path) -> list[str]:
    deno = shutil.which("deno")
    if deno:
        return [deno, "run", "--allow-all", "--no-prompt", str(script)]
    node = shutil.which("node")
    if node:
        return [node, str(script)]
    raise RunnerNotFound(f"Runner not found: {script} needs deno or node on PATH")
