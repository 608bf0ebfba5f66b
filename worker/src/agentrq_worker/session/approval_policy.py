"""Who decides what an agent may do: the worker's policy and the session's; and which requests are the same. Pure.

What the worker's policy denies no session allows; what it allows is not asked. A policy's own words are
`agentrq.wire.approval_policy`'.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agentrq.wire.approval_policy import Decision, Policy


def decide(worker: Policy, session: Policy, name: str, given: Any, cwd: str | None = None) -> Decision:
    """The decision on one call: the worker's, unless it asks; then the session's."""
    first = worker.decide(name, given, cwd)
    return first if first != "ask" else session.decide(name, given, cwd)


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
