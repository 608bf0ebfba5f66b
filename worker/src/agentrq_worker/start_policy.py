"""What a start may ask of this worker: ``[policy]`` of the settings.

Owns the rules, the resolving of paths against the workspace roots, and what a refusal says. Does not own the options'
shapes (agentrq.wire.commands), what agents may do with their tools (approval_policy.py), nor confinement
(sandbox/plan.py).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

from agentrq.wire.commands import Options

DEFAULT_MODE: Final = "bypassPermissions"
"""The permission mode of a start that names none (docs/reference/start-options.md)."""
_CEILINGS: Final = ("max_turns", "max_budget_usd", "timeout_s", "turn_timeout_s")
_ARGUMENTS: Final = ("model", "permission_mode", "resume", "worktree_name", "cwd", "config_dir")
_WORKTREE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")


_TAKES_OVER: Final = (
    "PATH", "HOME", "SHELL", "ENV", "BASH_*", "PYTHON*", "NODE_*", "NPM_CONFIG_*", "PERL*", "RUBY*", "JAVA_*", "JDK_*",
    "GIT_*", "SSH_*", "XDG_*", "LD_*", "DYLD_*", "GCONV_PATH", "LOCPATH", "TMPDIR", "EDITOR", "VISUAL", "PAGER",
    "*_PROXY", "*_BASE_URL", "*_API_BASE", "*_HOST", "SSL_*", "*_CA_BUNDLE", "*_CAINFO",
)  # fmt: skip
"""Variables that decide which code a program runs, or whom it talks to: more than a policy means to give by silence."""


class NotAllowed(Exception):
    """The policy refuses a start or a command; the text says by which rule."""


class StartPolicy(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """``[policy]``. Lists of names are globs (``fnmatch``, case counts); a rule that is absent allows everything."""

    providers: list[str] | None = None
    """Providers that may be started."""
    models: list[str] | None = None
    """Models that a start, or `set_model`, may name."""
    permission_modes: list[str] | None = None
    """Permission modes that a start, or `set_permission_mode`, may name. A start without one gets the first, unless
    `bypassPermissions` is allowed.
    """
    roots: list[str] | None = None
    """Directories that `cwd`, `additional_directories` and `config_dir` of a start have to be in. Absolute."""
    extra_env: list[str] | None = None
    """Variables that `extra_env` may set. Default: all but those that decide which code runs or whom it talks to."""
    max_turns: int | None = None
    """Ceiling of `max_turns`, and its value for starts without one."""
    max_budget_usd: float | None = None
    """Ceiling of `max_budget_usd`, and its value for starts without one."""
    timeout_s: float | None = None
    """Ceiling of `timeout_s`, and its value for starts without one."""
    turn_timeout_s: float | None = None
    """Ceiling of `turn_timeout_s`, and its value for starts without one."""

    def __post_init__(self) -> None:
        for name in _CEILINGS:
            value = getattr(self, name)
            if value is not None and not 0 < value < 2**53:
                raise ValueError(f"{name}: Expected a number above 0, got {value}")
        for root in self.roots or ():
            if not os.path.isabs(root):
                raise ValueError(f"roots: {root!r} is no absolute path")


EVERYTHING: Final = StartPolicy()


def bounded(policy: StartPolicy, options: Options) -> Options:
    """Options as this worker runs them: what a start left out where the policy has a ceiling or allows less."""
    values: dict[str, Any] = {
        name: getattr(policy, name)
        for name in _CEILINGS
        if getattr(policy, name) is not None and getattr(options, name) is None
    }
    modes = policy.permission_modes
    if modes and options.permission_mode is None and not _matches(DEFAULT_MODE, modes):
        values["permission_mode"] = modes[0]
    return msgspec.structs.replace(options, **values) if values else options


def admit(policy: StartPolicy, provider: str, given: Options, options: Options) -> Options:
    """Check what a start asked for (``given``); answer ``options``, its paths resolved. Raises `NotAllowed`.

    ``options`` has the operator's defaults in it; these are his word and are not held to the roots.
    """
    _one_of("providers", "provider", provider, policy.providers)
    if given.model is not None:
        _one_of("models", "model", given.model, policy.models)
    if given.permission_mode is not None or policy.permission_modes:
        _one_of("permission_modes", "permission_mode", options.permission_mode or DEFAULT_MODE, policy.permission_modes)
    for name in _CEILINGS:
        asked, most = getattr(given, name), getattr(policy, name)
        if asked is not None and most is not None and asked > most:
            raise NotAllowed(f"{name} {asked:g} is over policy.{name} ({most:g})")
    for key in given.extra_env or {}:
        _one_of("extra_env", "extra_env key", key, policy.extra_env)
        if policy.extra_env is None and policy != EVERYTHING and _matches(key.upper(), _TAKES_OVER):
            raise NotAllowed(f"extra_env key {key[:80]!r} decides what runs: policy.extra_env has to name it")
    _no_programs_options(options)
    return options if policy.roots is None else _in_roots(policy.roots, given, options)


def may_switch(policy: StartPolicy, command: str, value: str) -> str | None:
    """Why a live session may not be given this model or permission mode; None where it may."""
    rule, what = ("models", "model") if command == "set_model" else ("permission_modes", "permission_mode")
    try:
        _one_of(rule, what, value, getattr(policy, rule))
    except NotAllowed as error:
        return str(error)
    return f"{what} {value[:80]!r} begins with a dash" if value.startswith("-") else None


@contextlib.contextmanager
def entered(roots: Sequence[str] | None, cwd: str | None, others: Sequence[str] = ()) -> Iterator[str | None]:
    """The working directory for a spawn, and the ``others`` that were asked for, checked once more.

    Raises `NotAllowed`, OSError.

    With roots it is held open and named by its descriptor: whoever puts another directory, or a link, in its place
    after the check comes too late.
    """
    if roots is None or cwd is None:
        yield cwd
        return
    for path in others:
        _inside("a directory", os.path.realpath(path), roots)
    descriptor = os.open(cwd, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        path = f"/proc/self/fd/{descriptor}"
        if os.path.exists(path):
            _inside("cwd", os.readlink(path), roots)
        else:  # no procfs, as on macOS
            path = _inside("cwd", os.path.realpath(cwd), roots)
        yield path
    finally:
        os.close(descriptor)


def _matches(value: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(value, glob) for glob in globs)


def _one_of(rule: str, what: str, value: str, globs: Sequence[str] | None) -> None:
    if globs is not None and not _matches(value, globs):
        raise NotAllowed(f"{what} {value[:80]!r} is not allowed by policy.{rule} ({', '.join(globs) or 'none'})")


def _no_programs_options(options: Options) -> None:
    """Text that becomes an argument of a program must not be read as an option of it; no policy allows that."""
    for name in _ARGUMENTS:
        value = getattr(options, name)
        if value is not None and value.startswith("-"):
            raise NotAllowed(f"{name} {value[:80]!r} begins with a dash")
    for directory in options.additional_directories or ():
        if directory.startswith("-"):
            raise NotAllowed(f"additional_directories {directory[:80]!r} begins with a dash")
    worktree = options.worktree_name
    if worktree is not None and (not _WORKTREE.fullmatch(worktree) or ".." in worktree):
        raise NotAllowed(f"worktree_name {worktree[:80]!r} is no plain name")


def _in_roots(roots: Sequence[str], given: Options, options: Options) -> Options:
    values: dict[str, Any] = {}
    cwd = options.cwd if options.cwd is not None else os.getcwd()
    values["cwd"] = _resolved("cwd", cwd, roots if given.cwd is not None or options.cwd is None else None)
    if options.config_dir is not None:
        values["config_dir"] = _resolved("config_dir", options.config_dir, roots if given.config_dir else None)
    if options.additional_directories is not None:
        held = roots if given.additional_directories is not None else None
        values["additional_directories"] = [
            _resolved("additional_directories", os.path.join(values["cwd"], directory), held)
            for directory in options.additional_directories
        ]
    return msgspec.structs.replace(options, **values)


def _resolved(name: str, path: str, roots: Sequence[str] | None) -> str:
    try:
        resolved = os.path.realpath(path)
    except (ValueError, OSError) as error:
        raise NotAllowed(f"{name} {path[:200]!r}: {error}") from None
    return resolved if roots is None else _inside(name, resolved, roots)


def _inside(name: str, resolved: str, roots: Sequence[str]) -> str:
    for root in roots:
        real = os.path.realpath(root)
        if resolved == real or resolved.startswith(real.rstrip("/") + "/"):
            return resolved
    raise NotAllowed(f"{name} {resolved[:200]!r} is not under policy.roots ({', '.join(roots) or 'none'})")
