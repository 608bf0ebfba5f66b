"""agentrq: run coding-agent sessions behind a web backend, on plain Redis and RQ."""

from agentrq.client import AgentClient, AsyncAgentClient, AsyncSession, Session
from agentrq.errors import (
    AgentRQError,
    CommandRejected,
    InvalidOption,
    InvalidSessionId,
    SessionEnded,
    SessionExists,
    SessionNotFound,
    StreamTrimmed,
)
from agentrq.functions import answer, interrupt, prompt, start, stop
from agentrq.wire.messages import Event, Message, Receipt, StatusEvent
from agentrq.wire.state import State
from agentrq.wire.status import Reason, Status

__all__ = [
    "AgentClient",
    "AgentRQError",
    "AsyncAgentClient",
    "AsyncSession",
    "CommandRejected",
    "Event",
    "InvalidOption",
    "InvalidSessionId",
    "Message",
    "Reason",
    "Receipt",
    "Session",
    "SessionEnded",
    "SessionExists",
    "SessionNotFound",
    "State",
    "Status",
    "StatusEvent",
    "StreamTrimmed",
    "answer",
    "interrupt",
    "prompt",
    "start",
    "stop",
]
