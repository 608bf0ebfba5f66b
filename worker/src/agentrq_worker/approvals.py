"""Who decides what an agent may do: the policies of worker and session, and what an answer says. Pure.

A policy is ``"ask"``, ``"allow"`` or ``"deny"``, or an object: ``{"default": …, "rules": [{"tool": GLOB, "path":
GLOB?, "command": GLOB?, "decision": …}, …], "deadlineS": SECONDS?, "onDeadline": "deny"|"allow"}``. The first rule
that matches decides. What the worker's policy denies no session allows; what it allows is not asked.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from os.path import normpath
from typing import Any, Final, Literal, NamedTuple

import msgspec

Decision = Literal["ask", "allow", "deny"]
_PATHS: Final = ("file_path", "path", "notebook_path")


class InvalidPolicy(ValueError):
    """A policy that cannot be read; the text says which member is wrong."""


class Rule(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """Decides on calls of the tools, paths and commands that match its globs (``*`` also matches ``/``)."""

    decision: Decision
    tool: str = "*"
    path: str | None = None
    command: str | None = None

    def matches(self, name: str, given: Any) -> bool:
        """Whether it is about this call; a rule on a path or command matches only calls that have one."""
        if not fnmatchcase(name, self.tool):
            return False
        members = given if isinstance(given, dict) else {}
        if self.path is not None:
            path = next((members[key] for key in _PATHS if isinstance(members.get(key), str)), None)
            if path is None or not fnmatchcase(normpath(path), self.path):
                return False
        if self.command is not None:
            command = members.get("command")
            if not isinstance(command, str) or not fnmatchcase(command, self.command):
                return False
        return True


class Policy(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """One policy; ``deadlineS`` seconds after a request ``onDeadline`` decides it."""

    default: Decision = "ask"
    rules: list[Rule] = []
    deadline_s: float | None = None
    on_deadline: Literal["allow", "deny"] = "deny"

    def decide(self, name: str, given: Any) -> Decision:
        """What it says of one call."""
        return next((rule.decision for rule in self.rules if rule.matches(name, given)), self.default)


ASK: Final = Policy()


def read_policy(value: Any) -> Policy:
    """A policy from its JSON or TOML form (None: ask). Raises `InvalidPolicy`."""
    if value is None:
        return ASK
    try:
        if isinstance(value, str):
            return Policy(default=msgspec.convert(value, Decision))
        policy = msgspec.convert(value, Policy)
    except msgspec.ValidationError as error:
        raise InvalidPolicy(str(error)) from None
    if policy.deadline_s is not None and not 0 < policy.deadline_s < 1e9:
        raise InvalidPolicy(f"deadlineS: Expected seconds above 0, got {policy.deadline_s}")
    return policy


def decide(worker: Policy, session: Policy, name: str, given: Any) -> Decision:
    """The decision on one call: the worker's, unless it asks; then the session's."""
    first = worker.decide(name, given)
    return first if first != "ask" else session.decide(name, given)


class Reply(NamedTuple):
    """What an answer says: ``decision`` allow | deny | answer, and by whom."""

    decision: str
    by: str


def read_reply(answer: Any, by: str = "client") -> Reply:
    """The gist of an answer in any of its forms; the dialect checks the rest."""
    if isinstance(answer, str):
        return Reply(answer, by)
    members = answer if isinstance(answer, dict) else {}
    given = members.get("by")
    decision = members.get("decision") or members.get("behavior")
    if not isinstance(decision, str):
        decision = "answer"
    return Reply(decision, given if isinstance(given, str) and given else by)


def same_call(name: str, given: Any, other_name: str, other: Any) -> bool:
    """Whether two requests are about the same call: same tool, same input."""
    return name == other_name and plain(given) == plain(other)


def plain(value: Any) -> Any:
    """JSON as plain values, where it may stand as `msgspec.Raw`."""
    if isinstance(value, msgspec.Raw):
        try:
            return msgspec.json.decode(value)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return bytes(value)
    return value
