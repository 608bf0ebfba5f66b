"""Following sessions in tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from agentrq import Event, Message, StatusEvent


async def until(session: Any, status: str, after: str | None = None) -> str:
    """Follow a session until a status; answers its cursor."""
    async with asyncio.timeout(60):
        async for event in session.events(after):
            if isinstance(event, StatusEvent) and event.status == status:
                return event.cursor
    raise AssertionError(f"the session ended without {status}")


def contents(events: Iterable[Event], kind: str) -> list[Any]:
    """The contents of the messages of one type."""
    return [event.content for event in events if isinstance(event, Message) and event.type == kind]
