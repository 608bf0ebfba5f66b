"""What a policy on an agent's approvals is, and what it says of one call. Pure.

A policy is ``"ask"``, ``"allow"`` or ``"deny"``, or an object: ``{"default": …, "rules": [{"tool": GLOB, "path":
GLOB?, "command": GLOB?, "decision": …}, …], "deadlineS": SECONDS?, "onDeadline": "deny"|"allow"}``. The first rule
that matches decides. Globs are those of `fnmatch`: ``*`` also matches ``/``.
"""

from __future__ import annotations

import functools
import re
from fnmatch import fnmatchcase
from posixpath import join, normpath
from typing import Any, Final, Literal, get_args

import msgspec

Decision = Literal["ask", "allow", "deny"]
_PATHS: Final = ("file_path", "path", "notebook_path")
_SHELLS: Final = frozenset({"sh", "bash", "dash", "zsh", "ksh", "fish"})
_OPERATORS: Final = frozenset(";&|<>()`$\n")
"""With these a shell makes several commands of one, or other words of those that stand there."""
_LONGEST: Final = 128 * 1024
"""Characters of a command that globs are compared with: Linux takes no longer argument (MAX_ARG_STRLEN)."""
# As shlex.split, whose time grows with the square of a word's length.
_WORD: Final = re.compile(r"""(?:[^ \t\r\n'"\\]++|'[^']*+'|"(?:[^"\\]++|\\.)*+"|\\.)++""", re.DOTALL)
_PIECE: Final = re.compile(r"""'([^']*+)'|"((?:[^"\\]++|\\.)*+)"|\\(.)|([^'"\\]++)""", re.DOTALL)
_SPACE: Final = re.compile(r"[ \t\r\n]*+")
_ESCAPED: Final = re.compile(r"""\\(["\\])""")


class InvalidPolicy(ValueError):
    """A policy that cannot be read; the text says which member is wrong."""


class Rule(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """Decides on calls of the tools, paths and commands that match its globs.

    One that allows has to match every path of a call, and matches no command that makes several, unless its glob has
    the same operators; one that denies or asks matches by any of the paths, and what a shell is given with ``-c`` too.
    Of a command over 128 Ki characters only the safe is assumed: none that allows matches it, every other does.
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
        if len(command) > _LONGEST:
            return self.decision != "allow"
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


@functools.lru_cache(maxsize=1)  # every rule asks for it
def _unwrapped(command: str) -> str:
    """The command that a shell is given with ``-c``; any other as it is."""
    shell, _, rest = command.partition(" ")
    if shell.rpartition("/")[2] not in _SHELLS:
        return command
    found = words(rest, 3)
    return found[1] if len(found) == 2 and found[0] in ("-c", "-lc") else command


def words(text: str, most: int) -> list[str]:
    """The first ``most`` words as a shell takes them; none where a quote is not closed."""
    found: list[str] = []
    at = _end(_SPACE, text, 0)
    while at < len(text) and len(found) < most:
        end = _end(_WORD, text, at)
        if end == at:
            return []
        found.append("".join(map(_unquoted, _PIECE.finditer(text, at, end))))
        at = _end(_SPACE, text, end)
    return found


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()


def _unquoted(piece: re.Match[str]) -> str:
    single, double, escaped, bare = piece.groups()
    return _ESCAPED.sub(r"\1", double) if double else single or escaped or bare or ""
