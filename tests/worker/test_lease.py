"""The worker's lease: renewed whatever Redis lost, given back for good, never taken from another process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import redis

from agentrq.connection import connect_async
from agentrq_worker.ownership.lease import Lease, NameTaken
from agentrq_worker.settings import Settings

KEY = "agentrq:worker:w"
OTHER = b"another process"


@pytest.fixture
async def lease(redis_url: str) -> AsyncIterator[Lease]:
    async with connect_async(redis_url) as client:
        yield Lease(client, Settings(name="w", lease_s=5.0, beat_s=1.0))


async def test_it_is_renewed_though_redis_lost_it(lease: Lease, raw: redis.Redis) -> None:
    await lease.begin()
    assert raw.get(KEY) == lease.token.encode()
    for lost in (True, False):
        raw.delete(KEY) if lost else raw.pexpire(KEY, 1000)
        await lease.renew()
        assert raw.get(KEY) == lease.token.encode()
        assert int(raw.pttl(KEY)) > 1000


async def test_a_renewal_after_the_end_takes_it_no_more(lease: Lease, raw: redis.Redis) -> None:
    await lease.begin()
    await lease.end()
    assert not raw.exists(KEY)
    await lease.renew()
    assert not raw.exists(KEY)


async def test_anothers_is_left_alone(lease: Lease, raw: redis.Redis) -> None:
    await lease.begin()
    raw.set(KEY, OTHER)
    with pytest.raises(NameTaken, match="Another process has taken the name 'w'"):
        await lease.renew()
    await lease.end()
    assert raw.get(KEY) == OTHER
    with pytest.raises(NameTaken, match="There is a live worker named 'w'"):
        await lease.begin()
