"""`use_once`: of all who use a name, one is the first."""

from __future__ import annotations

import asyncio
from typing import Any

from agentrq import AgentClient, AsyncAgentClient
from agentrq.wire.keys import Keys


async def test_a_name_is_first_once_whoever_asks(redis_url: str, client: AsyncAgentClient, raw: Any) -> None:
    asked = await asyncio.gather(*(client.use_once("a", 30) for _ in range(20)))
    assert asked.count(True) == 1
    with AgentClient.from_url(redis_url) as other:
        assert not other.use_once("a", 30)
        assert other.use_once("b", 30)
    assert 30 < raw.ttl(Keys().used) < 10_000
    raw.zadd(Keys().used, {"a": 1})  # kept until 1970
    assert await client.use_once("a", 30)
    assert raw.zcard(Keys().used) == 2
