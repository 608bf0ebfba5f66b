"""The feed of sessions that a real worker runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agentrq import AsyncAgentClient, FeedEntry, StatusEvent
from tests.sessions import contents, until
from tests.workers import Worker

Start = Callable[..., Worker]


async def test_the_feed_tells_each_status_request_and_turn_once(
    client: AsyncAgentClient, start_worker: Start, tmp_path: object
) -> None:
    (tmp_path / "README.md").write_text("hello\n")  # type: ignore[operator]
    start_worker()
    session = await client.start("demo", "look", cwd=str(tmp_path))
    idle = await until(session, "idle")
    await session.prompt("/sleep 60")
    await until(session, "running", idle)
    await session.stop()
    await session.wait(20)
    events = [event async for event in session.events()]
    async with asyncio.timeout(20):
        entries = [entry async for entry in client.feed(follow=False) if isinstance(entry, FeedEntry)]
    assert {entry.session_id for entry in entries} == {session.id}
    of_events = {event.cursor: event for event in events}
    statuses = [(entry.cursor, entry.status) for entry in entries if entry.status is not None]
    assert statuses == [(event.cursor, event.status) for event in events if isinstance(event, StatusEvent)]
    waiting = [entry for entry in entries if entry.kind == "waiting"]
    assert {entry.request for entry in waiting} == {"approval", "question"}
    assert [entry.request_id for entry in waiting] == [
        getattr(event.content, "request_id", None)  # type: ignore[union-attr]
        for event in events if getattr(event, "type", "") in ("approval_request", "question")
    ]  # fmt: skip
    answered = [(entry.request_id, entry.decision, entry.by) for entry in entries if entry.kind == "answered"]
    assert answered == [(each.request_id, each.decision, each.by) for each in contents(events, "approval_resolved")]
    turns = [entry for entry in entries if entry.kind == "turn"]
    costs = contents(events, "cost")
    assert [turn.turn for turn in turns] == ["whole"] * len(costs) + ["interrupted"]
    assert [(turn.input_tokens, turn.output_tokens) for turn in turns[:-1]] == [
        (cost.input_tokens, cost.output_tokens) for cost in costs
    ]
    assert all(turn.cursor in of_events for turn in turns)
    (row,) = await client.costs("provider")
    assert (row.provider, row.turns, row.cut_turns) == ("demo", len(turns), 0)
    assert row.cost_nano_usd == sum(round(cost.total_cost_usd * 1e9) for cost in costs)


async def test_a_turn_that_died_with_its_worker_is_told_as_cut(client: AsyncAgentClient, start_worker: Start) -> None:
    first = start_worker()
    session = await client.start("demo", "/sleep 60", tenant="acme")
    await until(session, "running")
    start_worker()
    first.kill()
    await until(session, "idle")
    entries = [entry async for entry in client.feed(follow=False) if isinstance(entry, FeedEntry)]
    assert [(entry.turn, entry.tenant) for entry in entries if entry.kind == "turn"] == [("cut", "acme")]
    (row,) = await client.costs("tenant")
    assert (row.tenant, row.turns, row.cut_turns) == ("acme", 1, 1)
