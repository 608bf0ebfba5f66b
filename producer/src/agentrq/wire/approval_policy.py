"""An approval policy: its JSON form, and what it decides on one tool call. Pure.

A policy is ``"ask"``, ``"allow"`` or ``"deny"``, or an object: ``{"default": …, "rules": [{"tool": GLOB, "path":
GLOB?, "command": GLOB?, "decision": …}, …], "deadlineS": SECONDS?, "onDeadline": "deny"|"allow"}``. The first rule
that matches decides. Globs are those of `fnmatch`: ``*`` also matches ``/``. docs/reference/approvals.md has the rules.
Does not own what a call names (call_targets.py) nor the commands of a shell line (shell_commands.py).
"""

from __future__ import annotations

import enum
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, get_args

import msgspec

from agentrq.wire.call_targets import NO_DIRECTORIES, CallTargets, Directories, Path, read_call
from agentrq.wire.shell_commands import LONGEST, may_begin, read_command_line, unwrapped

Decision = Literal["ask", "allow", "deny"]
Verdict = Literal["ask", "allow", "deny", "unsure"]
"""A decision, or ``unsure``: a rule that denies may match, so nothing but a denial or a person decides."""
_OPERATORS: Final = frozenset(";&|<>()`$\n")
"""With these a shell makes several commands of one, or other words of those that stand there."""


class _Match(enum.IntEnum):
    NO = 0
    PERHAPS = 1
    YES = 2


class InvalidPolicy(ValueError):
    """A policy that cannot be read; the text says which member is wrong."""


class Rule(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """Decides on calls of the tools, paths and commands that match its globs.

    One that allows has to match every path and every command of a call, and nothing of these may be uncertain. One that
    denies or asks matches by any of them.
    """

    decision: Decision
    tool: str = "*"
    path: str | None = None
    command: str | None = None

    def match(self, name: str, call: CallTargets) -> _Match:
        """Whether it is about this call; a rule on a path or command matches only calls that have one."""
        if not fnmatchcase(name, self.tool):
            return _Match.NO
        if self.decision == "allow":
            return _Match.YES if self._allows_paths(call) and self._allows_commands(call) else _Match.NO
        return min(self._on_paths(call), self._on_commands(call))

    def _allows_paths(self, call: CallTargets) -> bool:
        glob = self.path
        if glob is None:
            return True
        if call.commands and self.command is None:  # which paths these touch is not known
            return False
        certain = call.named and call.paths_are_certain
        return certain and all(fnmatchcase(place, glob) for path in call.paths for place in path.leads_to)

    def _allows_commands(self, call: CallTargets) -> bool:
        glob = self.command
        if glob is None:
            return True
        certain = bool(call.commands) and call.commands_are_certain
        return certain and all(_allows_command(glob, command) for command in call.commands)

    def _on_paths(self, call: CallTargets) -> _Match:
        if self.path is None:
            return _Match.YES
        if any(_is_at(path, self.path) for path in call.paths):
            return _Match.YES
        return _Match.NO if call.paths_are_certain else _Match.PERHAPS

    def _on_commands(self, call: CallTargets) -> _Match:
        if self.command is None:
            return _Match.YES
        found = _Match.NO if call.commands_are_certain else _Match.PERHAPS
        for command in call.commands:
            found = max(found, _on_command(self.command, command))
        return found


def _is_at(path: Path, glob: str) -> bool:
    return path.likely and any(fnmatchcase(place, glob) for place in (*path.written, *path.leads_to))


def _allows_command(glob: str, command: str) -> bool:
    """Whether a glob that allows matches all that a command line runs."""
    if len(command) > LONGEST:
        return False
    text = unwrapped(command)
    same_operators = _operators(text) == _operators(glob)
    return same_operators and (fnmatchcase(text, glob) or fnmatchcase(command, glob))


def _operators(text: str) -> list[str]:
    return [character for character in text if character in _OPERATORS]


def _on_command(glob: str, command: str) -> _Match:
    """Whether a glob that denies or asks matches any part of a command line."""
    if len(command) > LONGEST:
        return _Match.YES
    line = read_command_line(command)
    if any(fnmatchcase(text, glob) for text in (command, unwrapped(command), *line.texts)):
        return _Match.YES
    return _Match.PERHAPS if line.opaque or any(may_begin(glob, prefix) for prefix in line.prefixes) else _Match.NO


class Policy(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """One policy; ``deadlineS`` seconds after a request ``onDeadline`` decides it."""

    default: Decision = "ask"
    rules: list[Rule] = []
    deadline_s: float | None = None
    on_deadline: Literal["allow", "deny"] = "deny"

    @property
    def advice(self) -> str | None:
        """What its author should know of it; None where there is nothing to say."""
        if self.default != "allow" or all(rule.decision == "allow" for rule in self.rules):
            return None
        return (
            "everything is allowed that no rule denies, and no list of what is denied is complete: "
            'prefer "default": "ask" with narrow allow rules (docs/reference/approvals.md)'
        )

    def decide(self, name: str, given: Any, directories: Directories = NO_DIRECTORIES) -> Verdict:
        """What it says of a call of the tool ``name`` with the input ``given`` (plain JSON values)."""
        if not self.rules:
            return self.default
        call = read_call(given, directories)
        decided, unsure = self.default, False
        for rule in self.rules:
            match = rule.match(name, call)
            if match is _Match.YES or (match is _Match.PERHAPS and rule.decision == "ask"):
                decided = rule.decision
                break
            unsure = unsure or match is _Match.PERHAPS
        return "unsure" if unsure and decided != "deny" else decided


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
