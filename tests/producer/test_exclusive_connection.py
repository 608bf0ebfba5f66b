"""A connection with redis-py's streams left out: lost, refused, cancelled, sent nonsense; by both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

from agentrq.client import subscription as subscriptions
from agentrq.connection import connect_async, is_outage
from agentrq.exclusive_connection import ExclusiveConnection
from agentrq.wire.keys import Keys
from tests.faults import waiting
from tests.faults.proxy import Proxy
from tests.faults.waiting import a_hub

pytestmark = pytest.mark.both_loops


@asynccontextmanager
async def dedicated(url: str, timeout: float = 20.0) -> AsyncIterator[ExclusiveConnection]:
    client = connect_async(url)
    own = ExclusiveConnection(client, timeout)
    try:
        yield own
    finally:
        await own.aclose()
        assert not client.connection_pool._in_use_connections
        await client.aclose()


def living(raw: redis.Redis) -> set[int]:
    """The server's connections beside this test's own."""
    return {int(client["id"]) for client in raw.client_list()} - {raw.client_id()}


async def popping(own: ExclusiveConnection, raw: redis.Redis, key: str) -> asyncio.Task[Any]:
    """A call that the server answers when something is pushed to ``key``."""
    task = asyncio.get_running_loop().create_task(own.call("BLPOP", key, 0))
    await waiting.true(lambda: raw.info("clients")["blocked_clients"] == 1)
    return task


async def test_a_connection_lost_between_calls_is_made_anew(redis_url: str, raw: redis.Redis) -> None:
    async with dedicated(redis_url) as own:
        first = await own.call("CLIENT", "ID")
        raw.client_kill_filter(_id=first)
        await waiting.true(lambda: own._link is not None and own._link.error is not None)
        assert await own.call("CLIENT", "ID") != first


async def test_a_connection_lost_in_a_call_raises(redis_url: str, raw: redis.Redis) -> None:
    async with dedicated(redis_url) as own:
        first = await own.call("CLIENT", "ID")
        waits = await popping(own, raw, "nothing")
        raw.client_kill_filter(_id=first)
        with pytest.raises(redis.ConnectionError):
            await waits
        assert await own.call("ECHO", "again") == b"again"


async def test_a_cancelled_call_closes_the_connection(redis_url: str, raw: redis.Redis) -> None:
    """The answer to the call that was given up is nobody's."""
    async with dedicated(redis_url) as own:
        first = await own.call("CLIENT", "ID")
        waits = await popping(own, raw, "list")
        waits.cancel()
        await asyncio.wait([waits])
        assert waits.cancelled()
        await waiting.true(lambda: first not in living(raw))
        raw.rpush("list", "not for the dead")
        assert await own.call("ECHO", "again") == b"again"
        assert raw.llen("list") == 1


@pytest.mark.parametrize("protocol", ["", "?protocol=2"])
async def test_a_connection_that_ended_in_the_pool_is_made_anew(
    redis_url: str, raw: redis.Redis, protocol: str
) -> None:
    """By TCP redis-py's pools give away connections whose end they know of."""
    async with Proxy.to(redis_url) as network, dedicated(network.url + protocol) as own:
        pool = own._client.connection_pool
        first, second = await pool.get_connection(), await pool.get_connection()
        await pool.release(first)
        await pool.release(second)
        network.cut()
        await waiting.true(lambda: first._reader.at_eof() and second._reader.at_eof())
        assert await own.call("ECHO", "at once") == b"at once"


async def test_pushes_that_are_not_hints_end_nothing(redis_url: str, raw: redis.Redis) -> None:
    """Notices of maintenance may have three elements too."""
    async with a_hub(redis_url + "&protocol=3") as hub, hub.subscribed("s") as inbox:
        await waiting.true(lambda: inbox.behind)
        inbox.take(subscriptions.Reader(Keys(), "s", None, subscriptions.DECODED))
        link = hub._link
        assert link is not None
        link.data_received(b">3\r\n$9\r\nMIGRATING\r\n:1\r\n:10\r\n")
        raw.publish(Keys().messages_channel("s"), b"hint")
        await waiting.true(lambda: bool(inbox))
        assert hub._link is link


async def test_a_missing_answer_times_out(redis_url: str, raw: redis.Redis) -> None:
    async with dedicated(redis_url) as own:
        for _ in range(3):  # one timer for all of them
            assert await own.call("ECHO", "quick") == b"quick"
        own._timeout = 0.2
        with pytest.raises(redis.TimeoutError):
            await own.call("BLPOP", "nothing", 0)
        own._timeout = 20.0
        await waiting.true(lambda: not living(raw))
        assert await own.call("ECHO", "again") == b"again"


async def test_a_silent_server_times_out(redis_url: str, raw: redis.Redis) -> None:
    async with Proxy.to(redis_url) as network:
        network.freeze()
        async with dedicated(network.url, timeout=0.2) as own:
            with pytest.raises((TimeoutError, redis.TimeoutError)):
                await own.call("ECHO", "early")
            network.thaw()
            own._timeout = 20.0
            assert await own.call("ECHO", "again") == b"again"


async def test_a_call_given_up_in_a_stalled_network_is_closed(redis_url: str, raw: redis.Redis) -> None:
    """What was not sent when the call was given up is not done later, and keeps no socket."""
    async with Proxy.to(redis_url) as network, dedicated(network.url) as own:
        await own.call("CLIENT", "ID")
        network.freeze()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):  # more than the buffers of a socket hold
                await own.call("SET", "late", b"x" * (32 << 20))
        network.thaw()
        await waiting.true(lambda: not living(raw))
        assert raw.get("late") is None


async def test_a_refused_connection_raises(redis_url: str, raw: redis.Redis) -> None:
    """An error is raised as what it is; the next call is made of a new connection."""
    async with dedicated(redis_url) as own:
        first = await own.call("CLIENT", "ID")
        raw.set("text", "x")
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            await own.call("LPUSH", "text", "y")
        assert await own.call("CLIENT", "ID") != first
        with pytest.raises(redis.DataError):
            await own.call("SET", "key", object())
        assert await own.call("ECHO", "again") == b"again"


async def test_an_absent_redis_raises(redis_url: str, raw: redis.Redis) -> None:
    async with dedicated(redis_url) as own:
        await own.call("CLIENT", "ID")
        waits = await popping(own, raw, "nothing")
        assert own._link is not None
        own._link.data_received(b"HTTP/1.1 400 Bad Request\r\n")
        with pytest.raises(redis.ConnectionError, match="invalid RESP") as caught:
            await waits
        assert is_outage(caught.value)
        assert await own.call("ECHO", "again") == b"again"


async def test_a_push_is_not_taken_for_an_answer(redis_url: str, raw: redis.Redis) -> None:
    async with dedicated(redis_url + "&protocol=3") as own:
        await own.call("CLIENT", "TRACKING", "ON")
        for number in range(10):
            raw.set("key", number)
            assert await own.call("GET", "key") == str(number).encode()
        waits = await popping(own, raw, "list")
        raw.set("key", "changed")
        raw.rpush("list", "x")
        assert await waits == [b"list", b"x"]


async def test_a_refused_subscription_is_tried_again(redis_url: str, raw: redis.Redis) -> None:
    """Who may not subscribe yet is asked again, without an end."""
    raw.acl_setuser("nosy", enabled=True, nopass=True, keys=["*"], commands=["+@all"], channels=[], reset=True)
    try:
        async with a_hub(redis_url + "&username=nosy&password=x") as hub, hub.subscribed("s") as inbox:
            await waiting.true(lambda: raw.acl_log()[:1] != [])
            assert not inbox.behind
            raw.acl_setuser("nosy", enabled=True, channels=["*"])
            await waiting.true(lambda: inbox.behind)
            raw.client_kill_filter(_type="pubsub")
            await waiting.true(lambda: raw.info("clients")["pubsub_clients"] == 1)
    finally:
        raw.acl_deluser("nosy")


async def test_a_reader_that_leaves_a_cut_connection_hangs_nobody(redis_url: str, raw: redis.Redis) -> None:
    """The pump does not know yet: nothing is said to the old connection, and who stays is subscribed by the new."""
    async with a_hub(redis_url) as hub, hub.subscribed("stays") as inbox:
        async with hub.subscribed("leaves"):
            await waiting.true(lambda: hub._link is not None)
            cut = hub._link
            assert cut is not None
            cut._transport.abort()
            inbox.take(subscriptions.Reader(Keys(), "stays", None, subscriptions.DECODED))
        await waiting.true(lambda: hub._link not in (None, cut))
        await waiting.true(lambda: inbox.behind)
