"""Sessions that are removed: nothing of them stays, and nobody brings them back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import psutil
import pytest
import redis

from agentrq import AgentClient, AsyncAgentClient, AsyncSession, SessionNotFound
from agentrq.wire.keys import Keys
from tests.faults.delayed_removal import remove_after
from tests.faults.proxy import Proxy
from tests.rq_checks import eventually, fetch
from tests.sessions import contents, until
from tests.workers import Worker

Start = Callable[..., Worker]
KEYS = Keys()
REGISTRIES = ("finished", "failed", "canceled", "wip")


def left(raw: redis.Redis, ids: Iterable[str]) -> list[str]:
    """All that Redis has of sessions, by key."""
    names = set(ids)
    found = [key.decode() for key in raw.scan_iter(count=1000) if any(name in key.decode() for name in names)]
    for index in (KEYS.sessions, *(f"rq:{registry}:agentrq" for registry in REGISTRIES)):
        entries: Any = raw.zrange(index, 0, -1)
        members = {member.decode().partition(":")[0] for member in entries}
        found += [f"{index}: {name}" for name in names & members]
    return found + [name for name in names if name.encode() in raw.lrange("rq:queue:agentrq", 0, -1)]


async def test_removed_as_soon_as_they_are_started(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    """Wherever the worker is with them: queued, taken, claimed, at work, at their end."""
    worker = start_worker()
    ids: list[str] = []

    async def one(delay: float) -> None:
        session = await client.start("demo", "/echo hi")
        ids.append(session.id)
        await remove_after(session, delay)

    async with asyncio.timeout(60):
        for _ in range(5):
            await asyncio.gather(*(one(0.004 * number) for number in range(16)))
        last = await client.start("demo", "/echo last")  # taken after all of them
        await until(last, "idle")
    await eventually(lambda: not left(raw, ids), "nothing is left of what was removed")
    assert [state.id for state in await client.sessions()] == [last.id]
    assert not [line for line in worker.log if "ERROR" in line]


async def test_another_by_the_same_id_begins_anew_in_rq_too(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    start_worker()
    for number in range(4):
        session = await client.start("demo", f"/echo {number}", "again", metadata={"number": str(number)})
        await until(session, "idle")
        # The worker may still be at the end of the one before.
        await eventually(lambda: fetch(raw, "again").latest_result() is None)
        await eventually(lambda: not any(raw.zscore(f"rq:{each}:agentrq", "again") for each in REGISTRIES[:3]))
        await session.remove()
    await eventually(lambda: not left(raw, ["again"]))


@pytest.mark.slow
async def test_a_worker_that_thaws_lets_them_be(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    frozen = start_worker("--lease-s", "1", "--beat-s", "0.3", "--name", "frozen")
    session: AsyncSession = await client.start("demo", "/echo hi")
    await until(session, "idle")
    frozen.freeze()
    start_worker("--lease-s", "1", "--beat-s", "0.3", "--name", "other")
    await eventually(lambda: raw.hget(KEYS.state(session.id), "worker") == b"other")
    await until(session, "recovering")
    await session.remove()
    frozen.thaw()
    frozen.wait_log(f"session {session.id}: superseded")
    await eventually(lambda: not left(raw, [session.id]))
    served = await client.start("demo", "/echo after")
    await until(served, "idle")
    assert not left(raw, [session.id])


@pytest.mark.slow
async def test_a_worker_that_was_cut_off_lets_them_be(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, redis_url: str
) -> None:
    """It did not stand still: to it, Redis came back without them. What it has of them is not given back."""
    async with Proxy.to(redis_url) as network:
        cut = await asyncio.to_thread(
            lambda: start_worker("--lease-s", "1", "--beat-s", "0.3", "--name", "cut", url=network.url)
        )
        sessions = [
            await client.start("demo", prompt, sid) for sid, prompt in (("gone", "/echo a"), ("again", "/echo a"))
        ]
        busy = await client.start("demo", "/sleep 300", "busy")
        for session in sessions:
            await until(session, "idle")
        await until(busy, "running")
        network.freeze()
        await eventually(lambda: not raw.exists(KEYS.worker("cut")))
        for session in (*sessions, busy):
            await session.stop()
            await session.remove()
        again = await client.start("demo", "/echo new", "again", metadata={"which": "new"})
        network.thaw()
        for sid in ("gone", "again", "busy"):
            await asyncio.to_thread(cut.wait_log, f"session {sid}: superseded")
        place = await until(again, "idle")
        await again.prompt("/echo more", wait=True, timeout=20)
        await until(again, "idle", place)
        await again.stop()
        assert (await again.wait(20)).metadata == {"which": "new"}
        assert [each.text for each in contents([event async for event in again.events()], "text")] == ["new", "more"]
        assert [state.id for state in await client.sessions()] == ["again"]
        await eventually(lambda: not left(raw, ["gone", "busy"]))
        assert await asyncio.to_thread(cut.terminate) == 0


@pytest.mark.parametrize("turns", [1, 5])
async def test_one_by_the_same_id_in_the_process_that_thaws(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, turns: int
) -> None:
    """Its owner's token is the same as that of the one before: the claim tells their writers apart."""
    frozen = start_worker("--lease-s", "1", "--beat-s", "0.3", "--name", "frozen")
    session = await client.start("demo", "/echo old", "again")
    place = await until(session, "idle")
    for _ in range(turns - 1):
        await session.prompt("/echo old")
        place = await until(session, "idle", place)
    runner = (await session.state()).pid
    frozen.freeze()
    await eventually(lambda: not raw.exists(KEYS.worker("frozen")))
    await session.stop()
    old_epoch = (await session.state()).epoch
    await session.remove()
    session = await client.start("demo", "/echo new", "again")
    frozen.thaw()
    frozen.wait_log("session again: superseded")
    place = await until(session, "idle")
    await session.prompt("/echo more", wait=True, timeout=20)
    await until(session, "idle", place)
    await eventually(lambda: not psutil.pid_exists(runner or 0))
    await session.stop()
    assert (await session.wait(20)).epoch > old_epoch
    assert [each.text for each in contents([event async for event in session.events()], "text")] == ["new", "more"]


@pytest.mark.parametrize("wrong", [False, True])
async def test_what_was_removed_is_noted_for_a_day(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, wrong: bool
) -> None:
    if wrong:
        raw.set(KEYS.removed, "of another type")
    else:
        raw.zadd(KEYS.removed, {"long ago": 1})
    first = await client.start("demo", "/echo hi")
    nonce = raw.hget(KEYS.state(first.id), "nonce")
    await first.stop()
    await first.remove()
    start_worker("--beat-s", "0.3")
    noted = [] if wrong else [nonce]
    await eventually(lambda: raw.type(KEYS.removed) != b"string" and raw.zrange(KEYS.removed, 0, -1) == noted)


@pytest.mark.parametrize("how", ["async", "sync"])
async def test_a_client_that_may_not_follow_can_remove(
    client: AsyncAgentClient, start_worker: Start, redis_url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A live session is stopped and then asked for again and again: that takes no subscription."""
    start_worker()
    session = await client.start("demo", "/echo hi")
    await until(session, "idle")

    def refused(*_: object) -> None:
        raise AssertionError("it follows")

    if how == "async":
        monkeypatch.setattr(AsyncAgentClient, "follow", refused)
        await session.remove()
    else:
        with AgentClient.from_url(redis_url) as other:
            monkeypatch.setattr(AgentClient, "follow", refused)
            await asyncio.to_thread(other.session(session.id).remove)
    assert (await client.sessions()).sessions == []


@pytest.mark.parametrize("forgotten_by", ["removal", "retention"])
async def test_a_cursor_of_an_earlier_session_hides_no_event_of_a_later_one(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis, forgotten_by: str
) -> None:
    start_worker()
    session = await client.start("demo", "/echo old", "again")
    await until(session, "idle")
    await session.stop()
    old = (await session.wait(20)).cursor
    if forgotten_by == "removal":
        await session.remove()
    else:
        raw.delete(KEYS.state("again"), KEYS.events("again"), KEYS.commands("again"))
    session = await client.start("demo", "/echo new", "again")
    await until(session, "idle")
    await session.stop()
    await session.wait(20)
    every = [event.cursor async for event in session.events()]
    assert [event.cursor async for event in session.events(after=old)] == every
    assert every[0] is not None
    assert every[0].endswith("-1")


async def test_a_kept_epoch_is_forgotten_in_the_end(client: AsyncAgentClient, raw: redis.Redis) -> None:
    raw.zadd(KEYS.epochs, {"long ago": 5 * 2**24 + 7})
    session = await client.start("demo", "hello", "again")
    await session.stop()
    assert raw.zrange(KEYS.epochs, 0, -1) == [b"again"]
    minutes, epoch = divmod(int(raw.zscore(KEYS.epochs, "again") or 0), 2**24)
    assert epoch == 1
    assert minutes > int(raw.time()[0]) // 60 + 7 * 24 * 60
    raw.delete(KEYS.epochs)
    raw.set(KEYS.epochs, "of another type")
    await session.remove()
    assert (await (await client.start("demo", "hello", "again")).state()).cursor == "0-1"


@pytest.mark.parametrize("how", ["async", "sync"])
async def test_a_removal_whose_answer_is_lost_has_removed(redis_url: str, raw: redis.Redis, how: str) -> None:
    """Whichever answer is lost: it is asked again, and what it has done itself is no error."""
    for lost in range(6):
        session_id = f"s-{lost}"
        async with AsyncAgentClient.from_url(redis_url) as client:
            await (await client.start("demo", "hello", session_id)).stop()
        async with LosesOneAnswer(redis_url, lost) as proxy:
            if how == "async":
                async with AsyncAgentClient.from_url(proxy.url) as client:
                    await client.session(session_id).remove()
            else:
                await asyncio.to_thread(_remove, proxy.url, session_id)
        assert left(raw, [session_id]) == []
        async with AsyncAgentClient.from_url(redis_url) as client:
            with pytest.raises(SessionNotFound):
                await client.session(session_id).remove()


def _remove(url: str, session_id: str) -> None:
    with AgentClient.from_url(url) as client:
        client.session(session_id).remove()


class LosesOneAnswer:
    """A proxy that cuts the connection in the place of one answer (counted from 0, the handshakes' left out)."""

    def __init__(self, url: str, number: int) -> None:
        self._path = url.removeprefix("unix://").partition("?")[0]
        self._left = number
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> LosesOneAnswer:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        await self._stack.enter_async_context(server)
        self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, asks = await asyncio.open_unix_connection(self._path)

        async def upward() -> None:
            while data := await reader.read(1 << 16):
                self._asked = data
                asks.write(data)
            asks.close()

        async def downward() -> None:
            while data := await answers.read(1 << 16):
                if any(name in self._asked for name in (b"EVAL", b"HMGET", b"MULTI")):
                    self._left -= 1
                    if self._left == -1:
                        break
                writer.write(data)
            writer.close()

        with contextlib.suppress(OSError):
            async with asyncio.TaskGroup() as group:
                group.create_task(upward())
                group.create_task(downward())
