"""A lease is lost at the second look, and its worker is asked to renew it in between."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import redis

from agentrq.connection import connect_async
from agentrq_worker.ownership import owner_leases
from agentrq_worker.ownership.owner_leases import CONFIRM_S, OwnerLeases
from agentrq_worker.settings import Settings

KEY, NAME, TOKEN = "agentrq:worker:w", b"w", b"token"
LEASE_S = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(owner_leases, "time", clock)
    return clock


@pytest.fixture
async def leases(redis_url: str) -> AsyncIterator[OwnerLeases]:
    async with connect_async(redis_url) as client:
        yield OwnerLeases(client, Settings().keys, LEASE_S)


async def is_lost(leases: OwnerLeases) -> bool:
    """What one round finds."""
    leases.begin_round()
    await leases.fetch([NAME])
    lost = not leases.is_live(NAME, TOKEN) and leases.is_lost(NAME, TOKEN)
    await leases.ask_to_renew()
    return lost


async def test_a_missing_lease_is_lost_at_the_second_look_and_its_worker_is_asked(
    leases: OwnerLeases, raw: redis.Redis, clock: Clock
) -> None:
    with raw.pubsub(ignore_subscribe_messages=True) as wakes:
        wakes.subscribe(f"{KEY}:wake")
        wakes.get_message(timeout=5)
        assert not await is_lost(leases)
        message = wakes.get_message(timeout=5)
        assert message is not None
        assert message["data"] == b"!renew"
    clock.now += CONFIRM_S - 0.1
    assert not await is_lost(leases)
    clock.now += 0.2
    assert await is_lost(leases)


async def test_a_lease_that_was_renewed_in_between_is_not_lost(
    leases: OwnerLeases, raw: redis.Redis, clock: Clock
) -> None:
    assert not await is_lost(leases)
    raw.set(KEY, TOKEN, px=int(LEASE_S * 1000))
    clock.now += 2 * CONFIRM_S
    assert not await is_lost(leases)
    raw.delete(KEY)
    clock.now += 2 * CONFIRM_S
    assert not await is_lost(leases)  # the first look of another loss


async def test_a_lease_that_was_overdue_before_it_ran_out_has_had_its_first_look(
    leases: OwnerLeases, raw: redis.Redis, clock: Clock
) -> None:
    raw.set(KEY, TOKEN, px=int(LEASE_S * 400))
    assert not await is_lost(leases)
    assert leases.pause_s(2.5) == 2.5  # until a beat, though it runs out later
    raw.pexpire(KEY, 500)
    assert not await is_lost(leases)
    assert leases.pause_s(2.5) < 1
    raw.delete(KEY)
    clock.now += CONFIRM_S
    assert await is_lost(leases)


async def test_a_name_that_a_later_process_has_is_lost_at_once(leases: OwnerLeases, raw: redis.Redis) -> None:
    raw.set(KEY, "another process", px=int(LEASE_S * 1000))
    assert await is_lost(leases)


async def test_a_lease_that_was_given_back_for_a_dead_process_is_lost_at_once(leases: OwnerLeases) -> None:
    leases.note_release(TOKEN.decode())
    assert await is_lost(leases)


async def test_a_key_of_another_type_is_nobodys_lease(leases: OwnerLeases, raw: redis.Redis, clock: Clock) -> None:
    raw.hset(KEY, "of", "another type")
    assert not await is_lost(leases)
    clock.now += 2 * CONFIRM_S
    assert await is_lost(leases)
