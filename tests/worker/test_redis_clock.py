"""Workers compare times by Redis's clock, whatever their own machines' clocks say."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
import redis.asyncio

from agentrq import AsyncAgentClient
from agentrq.connection import connect_async
from agentrq.wire.messages import Text
from agentrq_worker.ownership.ownership import Ownership
from agentrq_worker.redis_clock import SLOW_ANSWER_MS, RedisClock
from agentrq_worker.settings import Settings
from tests.faults.waiting import a_lane

HOUR_MS = 3_600_000


class OwnClock:
    """`time` on a machine whose wall clock is an hour ahead; ``late_ms`` passes with each answer of Redis."""

    def __init__(self, late_ms: int = 0) -> None:
        self.late_ms = late_ms
        self._looks = 0

    def time_ns(self) -> int:
        return time.time_ns() + HOUR_MS * 1_000_000

    def monotonic_ns(self) -> int:
        self._looks += 1
        return time.monotonic_ns() + self._looks * self.late_ms * 1_000_000


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> OwnClock:
    clock = OwnClock()
    monkeypatch.setattr("agentrq_worker.redis_clock.time", clock)
    return clock


@pytest.fixture
async def connection(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with connect_async(redis_url) as connection:
        yield connection


def redis_ms(raw: redis.Redis) -> int:
    answer: Any = raw.time()
    return int(answer[0]) * 1000


@pytest.mark.usefixtures("ahead")
async def test_a_clock_is_the_machines_own_until_it_is_synchronized(
    connection: redis.asyncio.Redis, raw: redis.Redis
) -> None:
    clock = RedisClock()
    assert clock.now_ms() - redis_ms(raw) > HOUR_MS - 60_000
    await clock.synchronize(connection)
    assert abs(clock.now_ms() - redis_ms(raw)) < 60_000


async def test_a_slow_answer_does_not_replace_a_good_one(connection: redis.asyncio.Redis, ahead: OwnClock) -> None:
    clock = RedisClock()
    await clock.synchronize(connection)
    offset = clock._offset_ms
    ahead.late_ms = 2 * SLOW_ANSWER_MS
    await clock.synchronize(connection)
    assert clock._offset_ms == offset


@pytest.mark.usefixtures("ahead")
async def test_a_recovered_session_has_run_as_long_as_redis_says(
    client: AsyncAgentClient, connection: redis.asyncio.Redis, raw: redis.Redis
) -> None:
    await client.start("demo", "hello", "s")
    raw.hset("agentrq:{s}:state", "startedAt", redis_ms(raw) - 100_000)
    ownership = Ownership(connection, connection, Settings(name="w"))
    await ownership.take_lease()
    snapshot = await ownership.fetch_session("s")
    assert snapshot is not None
    claim = await ownership.claim_session(snapshot)
    assert claim is not None
    assert 99 <= claim.claimed.ran_s < 160


async def test_messages_are_stamped_with_redis_time(redis_url: str, ahead: OwnClock, raw: redis.Redis) -> None:
    async with a_lane(redis_url) as (lane, _), connect_async(redis_url) as connection:
        await lane._clock.synchronize(connection)
        lane.add_message("text", Text("hello"))
        await lane.flush()
        async with AsyncAgentClient.from_url(redis_url) as client:
            async for event in client.session("s").events("1-1"):
                assert abs(event.timestamp - redis_ms(raw)) < 60_000
                break
