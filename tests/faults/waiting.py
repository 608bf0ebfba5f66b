"""Waiting for what tests wait for, without a clock: polled, and bounded by the test's own timeout."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import redis

from agentrq import AsyncAgentClient
from agentrq.client.pubsub_hub import PubSubHub
from agentrq.connection import connect_async
from agentrq.wire.keys import Keys
from agentrq_worker.settings import Settings
from agentrq_worker.stream.event_log import EventLog
from agentrq_worker.stream.publisher import Publisher
from tests.faults.writing import claimed, publishing

SETTINGS = Settings(name="w")


async def true(check: Callable[[], bool | Awaitable[bool]], seconds: float = 30.0) -> None:
    """Return when the check holds; outages while asking count as not yet."""
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(redis.RedisError, OSError):
                answer = check()
                if answer if isinstance(answer, bool) else await answer:
                    return
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def a_lane(
    url: str, session_id: str = "s", settings: Settings = SETTINGS
) -> AsyncIterator[tuple[EventLog, Publisher]]:
    """A session that was started and claimed, and its publisher at work."""
    async with AsyncAgentClient.from_url(url) as client:
        await client.start("demo", "hello", session_id)
    async with publishing(url, settings) as (publisher, ownership):
        yield await claimed(publisher, ownership, session_id), publisher


@contextlib.asynccontextmanager
async def a_hub(url: str) -> AsyncIterator[PubSubHub]:
    """A hub of its own client; with it ends its connection."""
    async with connect_async(url, blocking=True) as live:
        hub = PubSubHub(live, Keys())
        try:
            yield hub
        finally:
            await hub.aclose()
            assert not live.connection_pool._in_use_connections
