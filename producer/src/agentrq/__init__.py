"""agentrq: run coding-agent sessions behind a web backend, on plain Redis and RQ.

Names are imported when they are first used, so that the command line starts without Redis, RQ and asyncio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentrq.client import AgentClient, AsyncAgentClient, AsyncSession, Session
    from agentrq.client.fleet import Fleet, FleetWorker
    from agentrq.client.follow_items import CursorReset, SessionDelivered, SessionGone, SessionUnreadable
    from agentrq.client.session_list import SessionPage
    from agentrq.client.waiting_list import WaitingRequest
    from agentrq.errors import (
        AgentRQError,
        CommandRejected,
        InvalidOption,
        InvalidSessionId,
        RedisOutOfMemory,
        RedisRefused,
        RedisUnavailable,
        SessionEnded,
        SessionExists,
        SessionNotFound,
        StreamTrimmed,
        TenantFull,
    )
    from agentrq.rq_functions import answer, interrupt, prompt, start, stop
    from agentrq.wire.events import Event, Message, Receipt, StatusEvent
    from agentrq.wire.feed import FeedEntry, FeedGap
    from agentrq.wire.ledger import CostRow
    from agentrq.wire.raw_events import RawEvent
    from agentrq.wire.state import State
    from agentrq.wire.status import Reason, Status

__all__ = [
    "AgentClient",
    "AgentRQError",
    "AsyncAgentClient",
    "AsyncSession",
    "CommandRejected",
    "CostRow",
    "CursorReset",
    "Event",
    "FeedEntry",
    "FeedGap",
    "Fleet",
    "FleetWorker",
    "InvalidOption",
    "InvalidSessionId",
    "Message",
    "RawEvent",
    "Reason",
    "Receipt",
    "RedisOutOfMemory",
    "RedisRefused",
    "RedisUnavailable",
    "Session",
    "SessionDelivered",
    "SessionEnded",
    "SessionExists",
    "SessionGone",
    "SessionNotFound",
    "SessionPage",
    "SessionUnreadable",
    "State",
    "Status",
    "StatusEvent",
    "StreamTrimmed",
    "TenantFull",
    "WaitingRequest",
    "answer",
    "interrupt",
    "prompt",
    "start",
    "stop",
]

_MODULES = {
    "agentrq.client": ("AgentClient", "AsyncAgentClient", "AsyncSession", "Session"),
    "agentrq.client.fleet": ("Fleet", "FleetWorker"),
    "agentrq.client.session_list": ("SessionPage",),
    "agentrq.client.follow_items": ("CursorReset", "SessionDelivered", "SessionGone", "SessionUnreadable"),
    "agentrq.client.waiting_list": ("WaitingRequest",),
    "agentrq.errors": (
        "AgentRQError",
        "CommandRejected",
        "InvalidOption",
        "InvalidSessionId",
        "RedisOutOfMemory",
        "RedisRefused",
        "RedisUnavailable",
        "SessionEnded",
        "SessionExists",
        "SessionNotFound",
        "StreamTrimmed",
        "TenantFull",
    ),
    "agentrq.rq_functions": ("answer", "interrupt", "prompt", "start", "stop"),
    "agentrq.wire.events": ("Event", "Message", "Receipt", "StatusEvent"),
    "agentrq.wire.feed": ("FeedEntry", "FeedGap"),
    "agentrq.wire.ledger": ("CostRow",),
    "agentrq.wire.raw_events": ("RawEvent",),
    "agentrq.wire.state": ("State",),
    "agentrq.wire.status": ("Reason", "Status"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
