"""The removal of a session at any moment of its work."""

from __future__ import annotations

import asyncio

from agentrq import AsyncSession


async def remove_after(session: AsyncSession, seconds: float) -> None:
    """Remove a session that long after it was started, wherever its worker is with it by then."""
    await asyncio.sleep(seconds)
    await session.remove()
