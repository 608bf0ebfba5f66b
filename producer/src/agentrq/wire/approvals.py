"""What a policy on an agent's approvals is, and what it says of one call. Pure.

A policy is ``"ask"``, ``"allow"`` or ``"deny"``, or an object: ``{"default": …, "rules": [{"tool": GLOB, "path":
GLOB?, "command": GLOB?, "decision": …}, …], "deadlineS": SECONDS?, "onDeadline": "deny"|"allow"}``. The first rule
that matches decides. Globs are those of `fnmatch`: ``*`` also matches ``/``.
"""

from __future__ import annotations

import shlex
from fnmatch import fnmatchcase
from posixpath import join, normpath
from typing import Any, Final, Literal, get_args

import msgspec

Decision = Literal["ask", "allow", "deny"]
_PATHS: Final = ("file_path", "path", "notebook_path")
_SHELLS: Final = frozenset({"sh", "bash", "dash", "zsh", "ksh", "fish"})
_OPERATORS: Final = frozenset(";&|<>()`$\n")
"""With these a shell makes several commands of one, or other words of those that stand there."""


class InvalidPolicy(ValueError):
    """A policy that cannot be read; the text says which member is wrong."""


class Rule(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """Decides on calls of the tools, paths and commands that match its globs.

    One that allows has to match every path of a call, and matches no command that makes several, unless its glob has
    the same operators; one that denies or asks matches by any of the paths, and what a shell is given with ``-c`` too.
    """

    decision: Decision
    tool: str = "*"
    path: str | None = None
    command: str | None = None

    def matches(self, name: str, given: Any, cwd: str | None = None) -> bool:
        """Whether it is about this call; a rule on a path or command matches only calls that have one."""
        if not fnmatchcase(name, self.tool):
            return False
        members = given if isinstance(given, dict) else {}
        return self._on_paths(members, cwd) and self._on_command(members)

    def _on_paths(self, members: dict[str, Any], cwd: str | None) -> bool:
        if self.path is None:
            return True
        own = members.get("cwd")
        base = own if isinstance(own, str) else cwd or ""
        found = [fnmatchcase(normpath(join(base, path)), self.path) for path in _paths(members)]
        return bool(found) and (all(found) if self.decision == "allow" else any(found))

    def _on_command(self, members: dict[str, Any]) -> bool:
        if self.command is None:
            return True
        command = members.get("command")
        if not isinstance(command, str):
            return False
        words = _unwrapped(command)
        if self.decision == "allow" and not _OPERATORS.intersection(words) <= _OPERATORS.intersection(self.command):
            return False
        return fnmatchcase(words, self.command) or fnmatchcase(command, self.command)


class Policy(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """One policy; ``deadlineS`` seconds after a request ``onDeadline`` decides it."""

    default: Decision = "ask"
    rules: list[Rule] = []
    deadline_s: float | None = None
    on_deadline: Literal["allow", "deny"] = "deny"

    def decide(self, name: str, given: Any, cwd: str | None = None) -> Decision:
        """What it says of one call; ``cwd`` is what relative paths are below, where the call does not say so."""
        return next((rule.decision for rule in self.rules if rule.matches(name, given, cwd)), self.default)


ASK: Final = Policy()


def read_policy(value: Any) -> Policy:
    """A policy from its JSON or TOML form (None: ask). Raises `InvalidPolicy`."""
    if value is None:
        return ASK
    try:
        if isinstance(value, str):
            if value not in get_args(Decision):
                raise InvalidPolicy(f"Expected {', '.join(get_args(Decision))} or an object, got {value[:80]!r}")
            return Policy(default=value)  # type: ignore[arg-type]
        policy = msgspec.convert(value, Policy)
    except msgspec.ValidationError as error:
        raise InvalidPolicy(str(error)) from None
    if policy.deadline_s is not None and not 0 < policy.deadline_s < 1e9:
        raise InvalidPolicy(f"deadlineS: Expected seconds above 0, got {policy.deadline_s}")
    return policy


def _paths(members: dict[str, Any]) -> list[str]:
    """The paths that a call is about: one of its own, or those of a patch."""
    changes = members.get("changes")
    found = [change.get("path") for change in changes if isinstance(change, dict)] if isinstance(changes, list) else []
    found += [next((members[key] for key in _PATHS if isinstance(members.get(key), str)), None)]
    return [path for path in found if isinstance(path, str)]


def _unwrapped(command: str) -> str:
    """The command that a shell is given with ``-c``; any other as it is."""
    shell, _, rest = command.partition(" ")
    if shell.rpartition("/")[2] not in _SHELLS:
        return command
    try:
        words = shlex.split(rest)
    except ValueError:
        return command
    return words[1] if len(words) == 2 and words[0] in ("-c", "-lc") else command
