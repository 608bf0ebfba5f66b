"""Calls of a user whose Redis stumbles: made again until they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import redis

from agentrq import AgentRQError, SessionEnded, SessionNotFound

T = TypeVar("T")


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Call again until Redis answers; a session that has ended or is not found is an answer."""
    while True:
        try:
            return await call()
        except (SessionNotFound, SessionEnded):
            raise
        except (AgentRQError, redis.RedisError, OSError):
            await asyncio.sleep(0.1)


async def persist(call: Callable[[], Any]) -> Any:
    """Call again, with the same command id, until the connection holds."""
    while True:
        try:
            return await call()
        except (redis.RedisError, OSError):
            await asyncio.sleep(0.02)
