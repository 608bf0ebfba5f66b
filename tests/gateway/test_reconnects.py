"""Clients that are cut off again and again and come back to another gateway lose nothing and see nothing twice."""

from __future__ import annotations

import asyncio
import random

import pytest

from agentrq import AsyncAgentClient
from agentrq_gateway import Gateway, Settings
from tests.gateway.listening import Listener
from tests.producer.session_writer import Writer

CLIENTS, EVENTS = 20, 400


@pytest.mark.slow
async def test_cut_clients_of_two_gateways_have_every_event_once(redis_url: str) -> None:
    writer = Writer.start(redis_url, "s")
    reconnects = 0

    async def write() -> None:
        for number in range(EVENTS):
            await asyncio.to_thread(writer.message, "text", {"text": str(number)})
        await asyncio.to_thread(writer.end, "done", "completed")

    async def read(gateways: list[Gateway], chance: random.Random) -> list[str]:
        nonlocal reconnects
        seen: list[str] = []
        while True:
            headers = {"Last_Event_ID": seen[-1]} if seen else {}
            async with Listener(chance.choice(gateways), "/sessions/s/stream", **headers) as stream:
                if stream.status == 204:
                    return seen
                reconnects += 1
                for _ in range(chance.randrange(1, 12)):
                    frame = await stream.next()
                    if frame is None:
                        break
                    assert frame.event != "reset"
                    if frame.id is not None:
                        seen.append(frame.id)

    async with AsyncAgentClient.from_url(redis_url) as one, AsyncAgentClient.from_url(redis_url) as other:
        # One keeps next to nothing, so that clients change between its log and Redis all the time.
        gateways = [Gateway(one, settings=Settings(max_unsent=600)), Gateway(other)]
        async with asyncio.timeout(100), asyncio.TaskGroup() as group:
            group.create_task(write())
            readers = [group.create_task(read(gateways, random.Random(seed))) for seed in range(CLIENTS)]
        for gateway in gateways:
            await gateway.aclose()
    expected = [event["cursor"] for event in writer.stream()]
    assert all(reader.result() == expected for reader in readers)
    assert reconnects > CLIENTS * EVENTS / 12
