"""Which program a provider's name stands for: settings, then ``runners_dir``, then the built-in runners.

Owns the order of the search and what is said when nothing is found. Starts nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from agentrq_worker.settings import Provider, Settings

ADAPTER_OF: Final = {name: name for name in ("aider", "claude", "codex", "gemini", "ollama", "opencode")}
"""Providers whose own name chooses their adapter."""
DEFAULT_ADAPTER: Final = "claude"
"""What a runner speaks whose name and settings say nothing: the protocol grew up around Claude's events."""
CLAUDE_PLACES: Final = ("~/.local/bin/claude", "~/.claude/local/claude", "/usr/local/bin/claude", "/usr/bin/claude")
"""Where Claude Code's installers put it, in this order; PATH is looked at last."""
CLAUDE_MISSING: Final = "Claude CLI not found. Install Claude Code first."
CODEX_MISSING: Final = "Codex CLI not found. Install it first: npm install -g @openai/codex"

_NO_SETTINGS: Final = Provider()


class RunnerNotFound(Exception):
    """No program for a provider; the text begins ``Runner not found: `` and names where it was looked for.

    Of an agent that is only to be installed the text says so.
    """


class Program(NamedTuple):
    """What to run and how to speak with it."""

    argv: list[str]
    dialect: str
    adapter: str
    settings: Provider
    keeps_nothing: bool = False
    """No login and no settings of its user's are looked for in its home: each session may have one of its own."""


def resolve(provider: str, settings: Settings) -> Program:
    """The program of a provider. Raises `RunnerNotFound`."""
    configured = settings.providers.get(provider, _NO_SETTINGS)
    adapter = configured.adapter or ADAPTER_OF.get(provider, DEFAULT_ADAPTER)
    if configured.dialect == "jsonrpc" and configured.adapter is None and provider != "codex":
        adapter = "acp"
    looked = [f"settings [providers.{provider}]"]
    if configured.command:
        return Program(list(configured.command), configured.dialect or "runner", adapter, configured)
    if not provider.replace("-", "").replace("_", "").isalnum() or not provider.isascii():
        raise RunnerNotFound(f"Runner not found: {provider[:64]!r} is no provider's name")
    if settings.runners_dir is not None:
        script = Path(settings.runners_dir) / f"{provider}-runner.mjs"
        if script.is_file():
            return Program(_javascript(script), "runner", adapter, configured)
        looked.append(str(script))
    if provider == "claude" or configured.dialect == "claude":
        return Program([_claude()], "claude", "claude", configured)
    if provider == "codex":
        return Program([_installed("codex", CODEX_MISSING), "app-server"], "jsonrpc", "codex", configured)
    module = f"agentrq_worker.builtin_runners.{provider}"
    if provider in builtin():
        keeps_nothing = provider != "aider"
        return Program([sys.executable, "-m", module], "runner", adapter, configured, keeps_nothing)
    looked.append(f"the built-in runners ({', '.join(builtin())})")
    raise RunnerNotFound(f"Runner not found: {provider}; looked in {', '.join(looked)}")


def _claude() -> str:
    for place in CLAUDE_PLACES:
        path = os.path.expanduser(place)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return _installed("claude", CLAUDE_MISSING)


def _installed(name: str, missing: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise RunnerNotFound(missing)
    return found


def _javascript(script: Path) -> list[str]:
    deno = shutil.which("deno")
    if deno:
        return [deno, "run", "--allow-all", "--no-prompt", str(script)]
    node = shutil.which("node")
    if node:
        return [node, str(script)]
    raise RunnerNotFound(f"Runner not found: {script} needs deno or node on PATH")


def builtin() -> list[str]:
    """The names of the runners that come with the worker."""
    return [
        name for name in ("aider", "demo", "ollama", "replay") if find_spec(f"agentrq_worker.builtin_runners.{name}")
    ]
