"""How a stream ends, and what keeps it: heartbeats, its age, its grant, limits, clients that take nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from agentrq import AsyncAgentClient
from agentrq_gateway import Gateway, Grant, Settings
from tests.gateway.conftest import connect
from tests.gateway.listening import Frame, Listener


@contextlib.asynccontextmanager
async def opened(gateway: Gateway, client: AsyncAgentClient, **headers: str) -> AsyncIterator[Listener]:
    """A stream that has given the one event of a session that nobody takes."""
    session = await client.start("demo", "x")
    async with Listener(gateway, f"/sessions/{session.id}/stream", **headers) as stream:
        await stream.until("status", status="queued")
        yield stream


def after(gateway: Gateway, seconds: float) -> None:
    """Have the gateway look at its streams as if so much time had passed."""
    gateway.streams.look(time.monotonic() + seconds)


async def test_a_comment_keeps_an_idle_stream(gateway: Gateway, client: AsyncAgentClient) -> None:
    async with opened(gateway, client) as stream:
        after(gateway, 14)
        after(gateway, 15.5)
        assert await stream.next() == Frame(None, None, None, comment=True)
        after(gateway, 29)
        after(gateway, 31)
        assert await stream.next() == Frame(None, None, None, comment=True)
        stream.leave()
        assert await stream.next() is None


async def test_a_stream_ends_cleanly_after_half_an_hour(gateway: Gateway, client: AsyncAgentClient) -> None:
    async with opened(gateway, client) as stream:
        after(gateway, 1800 * 0.9 - 1)
        assert await stream.next() == Frame(None, None, None, comment=True)
        after(gateway, 1800 * 1.1)
        assert await stream.rest() == [Frame(None, None, None, retry=1000)]
        assert stream.closed


async def test_a_stream_ends_with_its_grant(client: AsyncAgentClient) -> None:
    gateway = Gateway(client, auth=lambda _: Grant("alice", expires_at=time.time() + 60))
    async with opened(gateway, client) as stream:
        after(gateway, 59)
        after(gateway, 61)
        frames = [frame for frame in await stream.rest() if not frame.comment]
        assert frames == [Frame(None, "expired", {})]
        assert stream.closed
    await gateway.aclose()


async def test_clients_are_sent_away_when_the_gateway_ends(gateway: Gateway, client: AsyncAgentClient) -> None:
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(opened(gateway, client)) for _ in range(20)]
        gateway.end_streams()
        frames = [await stream.rest() for stream in streams]
        assert all(stream.closed for stream in streams)
    waits = [frame.retry or 0 for (frame,) in frames]
    assert all(0 <= wait < 2000 for wait in waits)
    assert len(set(waits)) > 10
    async with Listener(gateway, "/stream?session=x") as late:
        assert (late.status, late.headers["retry-after"]) == (503, "1")
    assert not [state for state in await client.states() if state.ended], "a closed connection stops no session"


async def test_a_client_that_takes_nothing_is_disconnected(gateway: Gateway, client: AsyncAgentClient) -> None:
    async with opened(gateway, client) as frozen, opened(gateway, client) as other:
        frozen.taking.clear()
        after(gateway, 16)  # a heartbeat, which it does not take
        await other.next()
        after(gateway, 19)
        after(gateway, 40)
        assert await frozen.next() is None
        assert not frozen.closed
        assert await other.next() == Frame(None, None, None, comment=True)


async def test_streams_are_limited_by_caller_and_in_all(client: AsyncAgentClient) -> None:
    gateway = Gateway(
        client,
        auth=lambda request: Grant(request.headers["x-user"]),
        settings=Settings(max_streams=3, max_streams_per_caller=2),
    )
    async with opened(gateway, client, X_User="a"), opened(gateway, client, X_User="a"):
        async with Listener(gateway, "/stream?session=x", X_User="a") as third:
            assert (third.status, third.headers["retry-after"]) == (429, "5")
        async with opened(gateway, client, X_User="b"), Listener(gateway, "/stream?session=x", X_User="b") as fourth:
            assert fourth.status == 429
    async with opened(gateway, client, X_User="a"):
        pass
    await gateway.aclose()


async def test_commands_are_limited_by_caller(client: AsyncAgentClient) -> None:
    gateway = Gateway(
        client, auth=lambda request: Grant(request.headers["x-user"]), settings=Settings(commands_per_minute=3)
    )
    async with connect(gateway, **{"X-User": "a"}) as http:
        codes = [(await http.post("/sessions/nobody/stop")).status_code for _ in range(4)]
        limited = await http.post("/sessions/nobody/stop")
        assert codes == [404, 404, 404, 429]
        assert limited.json()["error"]["code"] == "too_many_commands"
        assert 1 <= int(limited.headers["retry-after"]) <= 20
        other = await http.post("/sessions/nobody/stop", headers={"X-User": "b"})
        assert other.status_code == 404
        assert (await http.get("/sessions/nobody")).status_code == 404


@pytest.mark.parametrize("cut", ["leave", "cancel"])
async def test_a_client_that_leaves_is_forgotten(gateway: Gateway, client: AsyncAgentClient, cut: str) -> None:
    async with opened(gateway, client) as stream:
        if cut == "leave":
            stream.leave()
        else:
            stream.cancel()
        assert await stream.next() is None
    assert gateway.streams.open == 0
    assert gateway.streams.fan_out.followed == 1
    gateway.streams.fan_out.drop_unused(time.monotonic())
    assert gateway.streams.fan_out.followed == 1, "it may come back"
    gateway.streams.fan_out.drop_unused(time.monotonic() + 6)
    assert gateway.streams.fan_out.followed == 0
