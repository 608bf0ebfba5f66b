"""Server-sent events of sessions: every event once and in order, from whatever cursor, to the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from agentrq import AsyncAgentClient
from agentrq.wire.keys import Keys
from agentrq_gateway import Gateway
from tests.gateway.listening import Frame, Listener
from tests.sessions import until
from tests.workers import Worker

Start = Callable[..., Worker]
KEYS = Keys()


def cursors(frames: list[Frame]) -> list[str]:
    return [frame.id for frame in frames if frame.id is not None]


async def all_cursors(client: AsyncAgentClient, session_id: str) -> list[str]:
    return [event.cursor or "" for event in (await client.session(session_id).page(limit=1000)).events]


async def test_a_stream_gives_each_event_once_and_ends_with_its_session(
    gateway: Gateway, client: AsyncAgentClient, start_worker: Start
) -> None:
    session = await client.start("demo", "/echo one")
    async with Listener(gateway, f"/sessions/{session.id}/stream") as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert (stream.headers["cache-control"], stream.headers["x-accel-buffering"]) == ("no-store", "no")
        assert (await stream.next()) == Frame(None, None, None, retry=1000)
        start_worker()
        first = await stream.until("status", status="idle")
        await session.prompt("/echo two")
        second = await stream.until("status", status="idle")
        await session.stop()
        last = await stream.rest()
        assert stream.closed
    frames = first + second + last
    assert cursors(frames) == await all_cursors(client, session.id)
    assert [frame.event for frame in frames if frame.id is None] == ["end"]
    assert frames[-1] == Frame(None, "end", {"sessionId": session.id})
    assert {frame.event for frame in frames} == {"message", "status", "receipt", "end"}
    assert all(frame.data["cursor"] == frame.id for frame in frames if frame.id is not None)


async def test_a_reader_that_comes_back_with_its_last_id_misses_nothing(
    gateway: Gateway, client: AsyncAgentClient, start_worker: Start
) -> None:
    start_worker()
    session = await client.start("demo", "/echo one")
    await until(session, "idle")
    path = f"/sessions/{session.id}/stream"
    known = await all_cursors(client, session.id)
    for at, cursor in enumerate(known[:-1]):
        async with Listener(gateway, path, Last_Event_ID=cursor) as stream:
            frames = await stream.until("status", status="idle")
            assert cursors(frames) == known[at + 1 :]
    async with Listener(gateway, f"{path}?after={known[0]}", Last_Event_ID=known[2]) as stream:
        frames = await stream.until("status", status="idle")
        assert cursors(frames) == known[3:], "the header wins"
    await session.stop()
    await session.wait(30)
    known = await all_cursors(client, session.id)
    async with Listener(gateway, f"{path}?after={known[-2]}") as stream:
        frames = await stream.rest()
    assert cursors(frames) == known[-1:]
    assert frames[-1].event == "end"
    async with Listener(gateway, path, Last_Event_ID=known[-1]) as stream:
        assert stream.status == 204


@pytest.mark.parametrize(
    "cursor", ["x", "1", "1-", "-1", "1-2-3", "1-x", "1-99999999999999999999", "1-7\x00", "1-7,b=1"]
)
async def test_a_malformed_cursor_is_refused(gateway: Gateway, client: AsyncAgentClient, cursor: str) -> None:
    session = await client.start("demo", "/echo one")
    async with Listener(gateway, f"/sessions/{session.id}/stream", Last_Event_ID=cursor) as stream:
        assert stream.status == 400
    async with Listener(gateway, f"/sessions/{session.id}/stream?after={cursor}") as stream:
        assert stream.status == 400


async def test_a_cursor_that_is_not_kept_is_told_and_the_rest_follows(
    gateway: Gateway, http: httpx.AsyncClient, client: AsyncAgentClient, start_worker: Start, raw: Any
) -> None:
    start_worker()
    session = await client.start("demo", "/echo one")
    await until(session, "idle")
    await session.stop()
    await session.wait(30)
    known = await all_cursors(client, session.id)
    raw.xtrim(KEYS.events(session.id), maxlen=2, approximate=False)
    raw.hset(KEYS.state(session.id), "trimmedThrough", known[-3])
    path = f"/sessions/{session.id}"
    async with Listener(gateway, f"{path}/stream?after={known[0]}") as stream:
        frames = (await stream.rest())[1:]
    assert frames[0] == Frame(None, "reset", {"sessionId": session.id, "reason": "trimmed", "oldest": known[-2]})
    assert cursors(frames) == known[-2:]
    page = await http.get(f"{path}/events?after={known[0]}")
    assert page.status_code == 410
    assert (page.json()["error"]["code"], page.json()["error"]["oldest"]) == ("cursor_not_kept", known[-2])
    async with Listener(gateway, f"{path}/stream?after=99-1") as stream:
        frames = (await stream.rest())[1:]
    assert frames[0] == Frame(None, "reset", {"sessionId": session.id, "reason": "unknown_cursor", "oldest": known[-2]})
    assert cursors(frames) == known[-2:]
    async with Listener(gateway, f"{path}/stream") as stream:
        assert cursors(await stream.rest()) == known[-2:]


async def test_a_session_that_is_removed_under_a_reader_is_gone(
    gateway: Gateway, client: AsyncAgentClient, start_worker: Start
) -> None:
    start_worker()
    session = await client.start("demo", "/echo one")
    other = await client.start("demo", "/echo two")
    both = f"/stream?session={session.id}&session={other.id}"
    async with Listener(gateway, f"/sessions/{session.id}/stream") as one, Listener(gateway, both) as several:
        await one.until("status", status="idle")
        await several.until("status", status="idle", sessionId=session.id)
        await session.remove()
        last = (await one.rest())[-1]
        assert last.event in ("end", "reset")  # whether it saw the end before the removal
        await other.prompt("/echo three")
        await several.until("message", sessionId=other.id, type="prompt")
    async with Listener(gateway, f"/sessions/{session.id}/stream") as stream:
        assert stream.status == 404


async def test_pages_of_events_give_all_of_a_session(
    http: httpx.AsyncClient, client: AsyncAgentClient, start_worker: Start
) -> None:
    start_worker()
    session = await client.start("demo", "/echo one")
    await until(session, "idle")
    await session.stop()
    await session.wait(30)
    found, after, ended = [], None, False
    while not ended:
        query = {"limit": "3"} | ({"after": after} if after else {})
        page = (await http.get(f"/sessions/{session.id}/events", params=query)).json()
        assert len(page["events"]) <= 3
        found += [event["cursor"] for event in page["events"]]
        after, ended = page["cursor"], page["ended"]
    assert found == await all_cursors(client, session.id)
    late = (await http.get(f"/sessions/{session.id}/events", params={"after": found[-1]})).json()
    assert late == {"events": [], "cursor": found[-1], "ended": True}


async def test_several_sessions_come_on_one_connection_with_all_cursors_as_the_id(
    gateway: Gateway, client: AsyncAgentClient, start_worker: Start
) -> None:
    start_worker()
    sessions = [await client.start("demo", f"/echo {number}") for number in range(3)]
    ids = [session.id for session in sessions]
    query = "&".join(f"session={sid}" for sid in ids)
    async with Listener(gateway, f"/stream?{query}") as stream:
        seen: dict[str, list[str]] = {sid: [] for sid in ids}
        last = ""
        while set(await statuses(client, ids)) != {"idle"} or seen != await known(client, ids):
            frame = await stream.next()
            assert frame is not None
            if frame.id:
                seen[frame.data["sessionId"]].append(frame.data["cursor"])
                last = frame.id
                assert dict(part.split("=") for part in last.split(",")) == {
                    sid: places[-1] for sid, places in seen.items() if places
                }
    await sessions[0].prompt("/echo more")
    await until(sessions[0], "idle", seen[ids[0]][-1])
    for session in sessions:
        await session.stop()
        await session.wait(30)
    async with Listener(gateway, f"/stream?{query}", Last_Event_ID=last) as stream:
        frames = await stream.rest()
        assert stream.closed
    for frame in frames:
        if frame.id:
            seen[frame.data["sessionId"]].append(frame.data["cursor"])
    assert seen == await known(client, ids)
    assert {frame.data["sessionId"] for frame in frames if frame.event == "end"} == set(ids)


async def statuses(client: AsyncAgentClient, ids: list[str]) -> list[str]:
    return [(await client.session(sid).state()).status for sid in ids]


async def known(client: AsyncAgentClient, ids: list[str]) -> dict[str, list[str]]:
    return {sid: await all_cursors(client, sid) for sid in ids}


async def test_a_long_list_of_sessions_is_posted(gateway: Gateway, client: AsyncAgentClient) -> None:
    sessions = [await client.start("demo", "x") for _ in range(130)]
    body = {"sessions": {session.id: None for session in sessions} | {"nobody": None}}
    async with Listener(gateway, "/stream", body=body) as stream:
        frames = [await stream.next() for _ in range(2 + len(sessions))]
    retry, gone, *events = [frame for frame in frames if frame is not None]
    assert retry.retry == 1000
    assert gone == Frame(None, "reset", {"sessionId": "nobody", "reason": "gone"})
    assert {frame.data["sessionId"] for frame in events} == {session.id for session in sessions}
    assert events[0].id is not None
    assert events[-1].id is None, "the id would be over 4 KiB: the client names its cursors"
    async with Listener(gateway, "/stream", body={"sessions": {}}) as stream:
        assert stream.status == 422
    async with Listener(gateway, "/stream", body={"sessions": {str(n): None for n in range(257)}}) as stream:
        assert stream.status == 422
    async with Listener(gateway, "/stream?session=a@x") as stream:
        assert stream.status == 400
