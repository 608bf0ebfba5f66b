"""Wakes are hints over one connection: one that has gone silent, or is never greeted, is made anew."""

from __future__ import annotations

import asyncio

import pytest
import redis

from agentrq.connection import connect_async
from agentrq_worker.ownership.inbox_reader import InboxReader
from agentrq_worker.settings import Settings
from tests.faults.proxy import Proxy
from tests.faults.waiting import true

CHANNEL = "agentrq:worker:w:wake"


@pytest.mark.parametrize("frozen", ["at connect", "later"])
async def test_a_silent_connection_is_made_anew(redis_url: str, raw: redis.Redis, frozen: str) -> None:
    settings = Settings(name="w", lease_s=0.4, beat_s=0.1)

    def heard() -> bool:
        return bool(raw.publish(CHANNEL, "nobody"))

    async with Proxy.to(redis_url) as network, connect_async(network.url, blocking=True) as live:
        inboxes = InboxReader(live, live, settings)
        if frozen == "at connect":
            network.freeze()
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(inboxes.listen())
            if frozen == "later":
                await true(heard)
                network.freeze()
            made = network.connections
            await true(lambda: network.connections > made + 1)
            network.thaw()
            await true(heard)
            listening.cancel()
