"""Combines the worker's approval policy with the session's, and tells whether two requests are the same call. Pure.

What the worker's policy denies no session allows; what it allows is not asked. What one policy says alone is
`agentrq.wire.approval_policy`'s matter.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agentrq.wire.approval_policy import Decision, Policy
from agentrq.wire.call_targets import Directories


def decide(worker: Policy, session: Policy, name: str, given: Any, directories: Directories) -> Decision:
    """The decision on one call: the worker's, unless it asks; then the session's."""
    first = worker.decide(name, given, directories)
    if first in ("allow", "deny"):
        return first
    second = session.decide(name, given, directories)
    if second == "allow" and first == "unsure":
        return "ask"
    return "ask" if second == "unsure" else second


def same_call(name: str, given: Any, other_name: str, other: Any) -> bool:
    """Whether two requests are about the same call: same tool, same input."""
    if name != other_name:
        return False
    try:
        return bool(plain(given) == plain(other))
    except RecursionError:  # nested as deeply as can just be read
        return False


def plain(value: Any) -> Any:
    """JSON as plain values, where it may stand as `msgspec.Raw`."""
    if isinstance(value, msgspec.Raw):
        try:
            return msgspec.json.decode(value)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return bytes(value)
    return value
