"""Builds the environment of a runner, from an allow-list.

A worker's secrets, and variables that would turn one agent into another (a nested CLAUDECODE), stay out. Owns which
variables a runner is given. Does not own what a start may set (start_policy.py), reading settings, nor spawning.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agentrq_worker.start_policy import EVERYTHING, StartPolicy, may_set

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
_ALLOWED = frozenset(
    {"PATH", "HOME", "USER", "SHELL", "LANG", "TERM", "TZ", "TMPDIR"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO"}
    | set(_PROXIES)
    | {name.lower() for name in _PROXIES}
)
_EXPERIMENTAL = "CLAUDE_CODE_EXPERIMENTAL_"
_ALLOWED_PREFIXES = ("LC_", "XDG_", _EXPERIMENTAL)
_PROVIDERS_OWN = ("CLAUDE", "CODEX", "OLLAMA", "ANTHROPIC_", "AIDER")


class Environment(NamedTuple):
    """``variables`` for the runner; ``refused``, the keys of ``extra_env`` that were not taken, for a warning."""

    variables: dict[str, str]
    refused: list[str]


def build_environment(
    source: Mapping[str, str],
    *,
    config_dir: str | None = None,
    config_dir_variable: str = "",
    extra_env: Mapping[str, str] | None = None,
    pass_env: Sequence[str] = (),
    settings_env: Mapping[str, str] | None = None,
    policy: StartPolicy = EVERYTHING,
) -> Environment:
    """Build a runner's environment; later sources win.

    1. of ``source`` (the worker's own) the allowed names; 2. of ``source`` the names in ``pass_env`` and 3. the values
    of ``settings_env``, whatever their names: the operator's word; 4. ``extra_env``, the start's word, but for
    providers' own names, invalid ones and those that it may not set under ``policy``; 5. ``config_dir`` as
    ``config_dir_variable``, where there is one.
    """
    variables = {name: value for name, value in source.items() if is_public(name)}
    variables |= {name: source[name] for name in pass_env if name in source}
    variables |= settings_env or {}
    refused: list[str] = []
    for name, value in (extra_env or {}).items():
        if _is_valid(name, value) and not _is_providers_own(name) and may_set(policy, name):
            variables[name] = value
        else:
            refused.append(name)
    if config_dir and config_dir_variable:
        variables[config_dir_variable] = config_dir
    return Environment(variables, refused)


def is_public(name: str) -> bool:
    """Whether the variable is on the allow-list; every runner gets those, so they hold no secret."""
    return name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)


def _is_providers_own(name: str) -> bool:
    return name.startswith(_PROVIDERS_OWN) and not name.startswith(_EXPERIMENTAL)


def _is_valid(name: str, value: str) -> bool:
    """Whether execve(2) accepts them: no "=" in the name, no NUL, no lone surrogate (it has no bytes)."""
    try:
        text = (name + value).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return bool(name) and "=" not in name and b"\0" not in text
