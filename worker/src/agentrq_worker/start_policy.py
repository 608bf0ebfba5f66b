"""Decides what a start may ask of this worker, by ``[policy]`` of the settings.

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
from typing import Any, Final, Literal

import msgspec

from agentrq.wire.commands import Options
from agentrq.wire.workspace import Workspace

DEFAULT_MODE: Final = "bypassPermissions"
"""The permission mode of a start that names none (docs/reference/start-options.md)."""
_CEILINGS: Final = ("max_turns", "max_budget_usd", "timeout_s", "turn_timeout_s")
_ANY_TEXT: Final = frozenset({"system_prompt", "approvals", "extra_env", "metadata"})
"""Options whose texts never become an argument of a program. Every other text is held to `why_not_an_argument`."""
_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f]")
LONGEST_ARGUMENT: Final = 128 * 1024 - 1
"""Bytes of an argument, or of a variable with its name: Linux takes no more (MAX_ARG_STRLEN, with its NUL). Clients
refuse options before that (`agentrq.wire.commands`); this is for what settings and protocols add to them."""
_WORKTREE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")


_LOADER: Final = (
    "LD_*", "_RLD*", "DYLD_*", "LIBPATH", "SHLIB_PATH", "GLIBC_TUNABLES", "GCONV_PATH", "GETCONF_DIR", "LOCPATH",
    "NLSPATH", "MALLOC_*", "LIBC_*", "HOSTALIASES", "LOCALDOMAIN", "RES_OPTIONS", "RESOLV_*", "OPENSSL_CONF",
    "OPENSSL_MODULES", "OPENSSL_ENGINES", "SSLKEYLOGFILE", "AGENTRQ_*",
)  # fmt: skip
"""Variables that a loader or a basic library reads before a program's first line, and agentrq's own: never set."""
_INTERPRETER: Final = (
    "ENV", "BASH_ENV", "BASH_FUNC_*", "BASH_LOADABLES_PATH", "BASH_XTRACEFD", "BASHOPTS", "SHELLOPTS", "PS4", "IFS",
    "PROMPT_COMMAND", "ZDOTDIR", "FPATH", "PYTHON*", "NODE_OPTIONS", "NODE_PATH", "NODE_REPL_*", "NODE_V8_COVERAGE",
    "NODE_REDIRECT_WARNINGS", "NODE_COMPILE_CACHE", "TS_NODE_*", "NPM_CONFIG_NODE_OPTIONS", "NPM_CONFIG_*SHELL",
    "NPM_CONFIG_*CONFIG", "NPM_CONFIG_PREFIX", "NPM_CONFIG_GIT", "ELECTRON_RUN_AS_NODE", "BUN_OPTIONS", "BUN_INSPECT*",
    "DENO_V8_FLAGS", "PERL*", "RUBY*", "GEM_HOME", "GEM_PATH", "BUNDLE_GEMFILE", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS",
    "JDK_JAVA_OPTIONS", "JAVA_OPTS", "CLASSPATH", "MAVEN_OPTS", "GRADLE_OPTS", "PHPRC", "PHP_INI_SCAN_DIR", "LUA_*",
    "TCLLIBPATH", "TCL_LIBRARY", "R_PROFILE*", "R_ENVIRON*", "R_LIBS*", "JULIA_LOAD_PATH", "JULIA_DEPOT_PATH",
    "DOTNET_STARTUP_HOOKS", "DOTNET_ADDITIONAL_DEPS", "DOTNET_SHARED_STORE", "CORECLR_*", "COR_*", "GOFLAGS", "GOENV",
    "GOTOOLCHAIN", "RUSTC", "RUSTDOC", "RUSTC_*WRAPPER", "CARGO_BUILD_RUST*", "CARGO_TARGET_*_RUNNER",
    "CARGO_TARGET_*_LINKER", "ERL_*", "ELIXIR_ERL_OPTIONS", "AWKPATH", "AWKLIBPATH", "GUILE_*",
)  # fmt: skip
"""Variables by which an interpreter, shell or compiler runs other code: no start sets those that no policy names."""
_HARMLESS: Final = frozenset({
    "PYTHONUNBUFFERED", "PYTHONIOENCODING", "PYTHONUTF8", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED",
    "PYTHONFAULTHANDLER", "PYTHONNODEBUGRANGES", "PERL_UNICODE",
})  # fmt: skip
_TAKES_OVER: Final = (
    *_LOADER, *_INTERPRETER, "PATH", "HOME", "SHELL", "BASH_*", "NODE_*", "NPM_CONFIG_*", "JAVA_*", "JDK_*",
    "GIT_*", "SSH_*", "XDG_*", "TMPDIR", "EDITOR", "VISUAL", "PAGER", "PIP_*", "UV_*", "CARGO_*", "GOPROXY",
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
    require: list[Literal["tenant", "user", "project"]] = []
    """Those of `tenant`, `user` and `project` that a start must name."""
    git: list[str] | None = None
    """Hosts whose repositories a `workspace` may be of. Repositories of the worker's own machine, which no start may
    name without, are named as `file:PATH`. Default: every host.
    """
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
                raise ValueError(f"roots: {root!r} is not an absolute path")


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

    ``options`` has the operator's defaults in it; these are not held to the roots.
    """
    for payer in policy.require:
        if getattr(given, payer) is None:
            raise NotAllowed(f"{payer} is missing, which policy.require asks for")
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
    if options.workspace is not None:
        options = _admit_workspace(policy, options, options.workspace)
    _check_texts(options)
    return options if policy.roots is None else _in_roots(policy.roots, given, options)


def _admit_workspace(policy: StartPolicy, options: Options, workspace: Workspace) -> Options:
    """Check where a workspace comes from; answer the options, a directory that is copied resolved."""
    if workspace.copy is not None:
        directory = _resolved("workspace copy", workspace.copy, policy.roots)
        return msgspec.structs.replace(options, workspace=msgspec.structs.replace(workspace, copy=directory))
    if workspace.host is not None:
        _one_of("git", "workspace git host", workspace.host, policy.git)
        return options
    path = os.path.realpath((workspace.git or "").removeprefix("file://"))
    _one_of("git", "workspace git", f"file:{path}", [glob for glob in policy.git or () if glob.startswith("file:")])
    return msgspec.structs.replace(options, workspace=msgspec.structs.replace(workspace, git=path))


def may_switch(policy: StartPolicy, command: str, value: str) -> str | None:
    """Why a live session may not be given this model or permission mode; None where it may."""
    rule, what = ("models", "model") if command == "set_model" else ("permission_modes", "permission_mode")
    try:
        _one_of(rule, what, value, getattr(policy, rule))
    except NotAllowed as error:
        return str(error)
    return why_not_an_argument(what, value)


def may_set(policy: StartPolicy, variable: str) -> bool:
    """Whether a start's ``extra_env`` may set a variable at all; what it may set under a policy, `admit` says."""
    name = variable.upper()
    if _matches(name, _LOADER):
        return False
    return name in _HARMLESS or not _matches(name, _INTERPRETER) or variable in (policy.extra_env or ())


def why_not_an_argument(name: str, text: str) -> str | None:
    """Why a text may not become an argument of an agent's program; None where it may."""
    if text.startswith("-"):
        return f"{name} {text[:80]!r} begins with a dash"
    return f"{name} {text[:80]!r} has a control character" if _CONTROL_CHARACTER.search(text) else None


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


def _check_texts(options: Options) -> None:
    """Hold every text of the options to what an argument may be: what is added to them is held to it, too."""
    for name in options.__struct_fields__:
        value = getattr(options, name)
        texts = [value] if isinstance(value, str) else value if isinstance(value, list) else ()
        for text in () if name in _ANY_TEXT else texts:
            if (why := why_not_an_argument(name, text)) is not None:
                raise NotAllowed(why)
    worktree = options.worktree_name
    if worktree is not None and (not _WORKTREE.fullmatch(worktree) or ".." in worktree):
        raise NotAllowed(f"worktree_name {worktree[:80]!r} is not a plain name: letters, digits and . _ / -")


def _in_roots(roots: Sequence[str], given: Options, options: Options) -> Options:
    values: dict[str, Any] = {}
    cwd = options.cwd if options.cwd is not None else os.getcwd()
    if options.workspace is None or options.cwd is not None:  # else its directory is still to be made
        cwd = values["cwd"] = _resolved("cwd", cwd, roots if given.cwd is not None or options.cwd is None else None)
    if options.config_dir is not None:
        values["config_dir"] = _resolved("config_dir", options.config_dir, roots if given.config_dir else None)
    if options.additional_directories is not None:
        held = roots if given.additional_directories is not None else None
        values["additional_directories"] = [
            _resolved("additional_directories", os.path.join(cwd, directory), held)
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
