"""Following a session in tests, and what is asked of every session that goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from agentrq import AsyncAgentClient, Event, Message, StatusEvent


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


async def texts(session: Any) -> list[str]:
    """All texts of a session that has ended."""
    return [content.text for content in contents([event async for event in session.events()], "text")]


async def serves(client: AsyncAgentClient, session: Any) -> None:
    """The session goes on as if nothing had happened."""
    command = await session.prompt("/echo still here")
    receipt = await session.prompt("/echo and here", wait=True, timeout=20)
    assert receipt.outcome == "applied"
    assert command
    state = await session.state()
    assert not state.ended


async def asked(session: Any, after: str | None = None) -> Message:
    """The first request for an approval after a cursor."""
    async with asyncio.timeout(30):
        async for message in session.messages(after):
            if message.type == "approval_request":
                return message  # type: ignore[no-any-return]
    raise AssertionError("nothing was asked")
