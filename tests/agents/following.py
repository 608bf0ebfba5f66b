"""Following sessions of real agents: what came, in a form that is compared with an expectation."""

from __future__ import annotations

import asyncio
from typing import Any

from agentrq import Event, Message, StatusEvent

PATIENCE_S = 60.0


async def collect(session: Any, status: str = "idle", times: int = 1) -> list[Event]:
    """The session's events until it has been in a status so many times, or ended."""
    events: list[Event] = []
    async with asyncio.timeout(PATIENCE_S):
        async for event in session.events():
            events.append(event)
            if isinstance(event, StatusEvent) and event.status == status:
                times -= 1
                if not times:
                    return events
    return events


async def first(session: Any, kind: str, after: str | None = None, *, deltas: bool = False) -> Any:
    """The first message of a type."""
    async with asyncio.timeout(PATIENCE_S):
        async for message in session.messages(after, deltas=deltas):
            if message.type == kind:
                return message
    raise AssertionError(f"the session ended without {kind}")


def story(events: list[Event], leave_out: tuple[str, ...] = ("status",)) -> list[tuple[str, Any]]:
    """Type and telling content of the messages, in order."""
    return [
        (event.type, _gist(event.content))
        for event in events
        if isinstance(event, Message) and event.type not in leave_out
    ]


def _gist(content: Any) -> Any:
    for name in ("text", "name", "output", "decision", "message"):
        if (found := getattr(content, name, None)) is not None:
            return found
    return getattr(content, "result", None)


def statuses(events: list[Event]) -> list[str]:
    return [event.status for event in events if isinstance(event, StatusEvent)]
