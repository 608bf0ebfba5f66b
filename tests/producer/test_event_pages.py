"""`Session.page`: what stands after a cursor, without waiting for more."""

from __future__ import annotations

import pytest

from agentrq import AgentClient, AsyncAgentClient, CursorReset, InvalidOption, SessionNotFound
from agentrq.testing.fake_redis import FakeRedis
from agentrq.wire.keys import Keys
from tests.producer.session_writer import Writer


async def test_pages_forwards_are_the_stream(fake_redis: FakeRedis, async_agent_client: AsyncAgentClient) -> None:
    writer = Writer.start(fake_redis, "s")
    for number in range(300):
        writer.message("text", {"text": str(number)})
    session, after, found = async_agent_client.session("s"), None, []
    while (page := await session.page(after, 70)).events:
        assert len(page.events) <= 70
        assert not page.ended
        found += page.events
        after = page.cursor
    assert [str(event.cursor) for event in found] == ["0-1", "1-1", *(f"1-{seq}" for seq in range(2, 302))]
    assert (page.cursor, page.ended, page.reset) == ("1-301", False, None)
    few = await session.page(max_bytes=1000)
    assert 0 < len(few.events) < 50


def test_what_cannot_be_told_is_part_of_the_page(fake_redis: FakeRedis, agent_client: AgentClient) -> None:
    session = agent_client.session("s")
    with pytest.raises(SessionNotFound):
        session.page()
    writer = Writer.start(fake_redis, "s")
    for number in range(5):
        writer.message("text", {"text": str(number)})
    fake_redis.redis.xtrim(Keys().events("s"), maxlen=2, approximate=False)
    fake_redis.redis.hset(Keys().state("s"), "trimmedThrough", "1-4")
    trimmed, unknown = session.page("1-1"), session.page("7-1")
    assert (trimmed.reset, unknown.reset) == (CursorReset("trimmed", "1-5"), CursorReset("unknown_cursor", "1-5"))
    assert [event.cursor for event in trimmed.events] == [event.cursor for event in unknown.events] == ["1-5", "1-6"]
    assert session.page().reset is None
    for limit in (0, 1001, True):
        with pytest.raises(InvalidOption):
            session.page(limit=limit)
    with pytest.raises(ValueError, match="Invalid cursor"):
        session.page("x")
