"""The lines of `codex exec --json`, typed: only the members that are used, payloads as `msgspec.Raw`.

Owns shapes and their decoder, not meaning (exec_parser.py).
"""

from __future__ import annotations

from typing import Any, TypeAlias, get_args

import msgspec
from msgspec import Raw

from agentrq_worker.providers.json_line import ABSENT


class _Line(msgspec.Struct, gc=False):
    """What all lines share."""


class Item(_Line):
    """A thing the agent said or did, of any type."""

    id: str | None = None
    type: str | None = None
    status: Any = None
    text: Raw = ABSENT
    message: Raw = ABSENT
    items: Any = None
    command: Raw = ABSENT
    aggregated_output: Raw = ABSENT
    exit_code: Any = None
    changes: Raw = ABSENT
    server: Any = None
    tool: Any = None
    arguments: Raw = ABSENT
    result: Raw = ABSENT
    error: Raw = ABSENT
    query: Raw = ABSENT
    action: Raw = ABSENT
    prompt: Raw = ABSENT
    receiver_thread_ids: Raw = ABSENT
    agents_states: Raw = ABSENT


class ThreadStarted(_Line, tag="thread.started"):
    """The first line of a process."""

    thread_id: Any = None


class TurnStarted(_Line, tag="turn.started"):
    """A turn begins."""


class TurnCompleted(_Line, tag="turn.completed"):
    """A turn ended well."""

    usage: Any = None


class TurnFailed(_Line, tag="turn.failed"):
    """A turn ended badly."""

    error: Any = None


class ItemStarted(_Line, tag="item.started"):
    """An item begins."""

    item: Item


class ItemUpdated(_Line, tag="item.updated"):
    """An item changed."""

    item: Item


class ItemCompleted(_Line, tag="item.completed"):
    """An item is done; most have only this."""

    item: Item


class PlanDelta(_Line, tag="item.plan.delta"):
    """A piece of a plan, whose whole follows."""


class StreamError(_Line, tag="error"):
    """The connection to the model failed, for now or for good."""

    message: Raw = ABSENT


Line: TypeAlias = (
    ThreadStarted
    | TurnStarted
    | TurnCompleted
    | TurnFailed
    | ItemStarted
    | ItemUpdated
    | ItemCompleted
    | PlanDelta
    | StreamError
)

decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Line)
tags = frozenset(str(kind.__struct_config__.tag) for kind in get_args(Line))


class CollabInput(_Line):
    """The input of a ``collab_tool_call``."""

    receiver_thread_ids: Any
    prompt: Any = msgspec.UNSET
