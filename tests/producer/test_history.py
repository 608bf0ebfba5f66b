"""`Session.history`: pages of a session's stream, read backwards."""

from __future__ import annotations

import pytest

from agentrq import AgentClient, AsyncAgentClient, InvalidOption, SessionNotFound
from agentrq.testing.fake_redis import FakeRedis
from tests.producer.session_writer import Writer


def write_texts(server: FakeRedis, count: int) -> None:
    """A session "s" whose last events are so many texts."""
    writer = Writer.start(server, "s")
    for number in range(count):
        writer.message("text", {"text": str(number)})


async def test_pages_backwards_are_the_stream(fake_redis: FakeRedis, async_agent_client: AsyncAgentClient) -> None:
    write_texts(fake_redis, 7)
    session = async_agent_client.session("s")
    found = await session.history(limit=3)
    assert [event.content.text for event in found] == ["4", "5", "6"]  # type: ignore[union-attr] # texts, all of them
    whole = list(found)
    while page := await session.history(whole[0].cursor, 3):
        whole = page + whole
    assert [str(event.cursor) for event in whole] == ["0-1", "1-1", *(f"1-{seq}" for seq in range(2, 9))]


def test_what_is_not_there_is_said(agent_client: AgentClient) -> None:
    with pytest.raises(SessionNotFound):
        agent_client.session("none").history()
    session = agent_client.start("fake", "Do it", "s")
    assert [event.cursor for event in session.history()] == ["0-1"]
    assert session.history("0-1") == []
    assert session.receipt("nobody sent this") is None
    for limit in (0, 1001, True):
        with pytest.raises(InvalidOption):
            session.history(limit=limit)
    with pytest.raises(ValueError, match="Invalid cursor"):
        session.history("x")
