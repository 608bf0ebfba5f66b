"""Readers that join in the middle of a text have all of it, and no piece twice; nothing is written for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from agentrq import AgentClient, AsyncAgentClient, Message, RawEvent, RedisRefused, SessionNotFound
from agentrq.client import subscription
from agentrq.connection import connect_async
from agentrq.wire.keys import Keys
from agentrq.wire.messages import Text, TextDelta, Thinking, ThinkingDelta
from agentrq.wire.status import Reason, Status
from agentrq_worker.ownership import inbox_reader
from agentrq_worker.process.redact import Redactor
from agentrq_worker.stream.event_log import EventLog
from agentrq_worker.stream.message_redactor import MessageRedactor
from tests.faults import waiting
from tests.faults.talking_agent import an_agent, heard

KEYS = Keys()
WORDS = ["one ", "deux ", "drei — ", "四", "🙂", "\n", "x" * 300, "a\ud800"]


class Page:
    """What a reader shows of the texts, piece by piece."""

    def __init__(self) -> None:
        self.shown: dict[str, str] = defaultdict(str)
        self.whole: dict[str, str] = {}
        self.abandoned: list[str] = []

    def add(self, event: Any) -> None:
        if not isinstance(event, Message):
            return
        content = event.content
        if isinstance(content, TextDelta | ThinkingDelta):
            assert content.block_id not in self.whole
            assert content.offset == len(self.shown[content.block_id])
            self.shown[content.block_id] += content.text
            if content.abandoned:
                self.abandoned.append(content.block_id)
        elif isinstance(content, Text | Thinking) and isinstance(content.block_id, str):
            self.whole[content.block_id] = content.text


@contextlib.asynccontextmanager
async def a_reader(url: str, how: str) -> AsyncIterator[Page]:
    """A reader of one of three kinds, from the session's beginning to its end."""
    page = Page()

    def read() -> None:
        with AgentClient.from_url(url) as client:
            for event in client.session("s").events(deltas=True):
                page.add(event)

    async def follow() -> None:
        async with AsyncAgentClient.from_url(url) as client:
            if how == "events":
                async for event in client.session("s").events(deltas=True):
                    page.add(event)
            else:
                async with client.follow({"s": None}, deltas=True) as follower:
                    async for _, item in follower:
                        page.add(item)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(read) if how == "sync" else follow())
        yield page


HOW = pytest.mark.parametrize("how", ["events", "sync", "follow"])


@HOW
async def test_who_joins_in_the_middle_of_a_text_has_all_of_it(redis_url: str, how: str) -> None:
    async with an_agent(redis_url) as agent:
        for word in WORDS:
            agent.say("b1", word)
            agent.say("thought", word, parent="toolu_1")
        agent.say("over", "before")
        agent.finish("over")
        agent.say("given up", "bef")
        agent.abandon("given up")
        await agent.lane.flush()
        async with a_reader(redis_url, how) as page:
            await waiting.true(lambda: {"b1", "thought"} <= page.shown.keys())
            assert page.shown == {"b1": agent.texts["b1"], "thought": agent.texts["thought"]}
            for word in WORDS:
                agent.say("b1", word)
            await waiting.true(lambda: page.shown["b1"] == agent.texts["b1"])
            agent.finish("b1")
            agent.say("b2", "and")
            await waiting.true(lambda: page.shown["b2"] == "and")
            agent.abandon("b2")
            agent.lane.add_end(Status.DONE, Reason.COMPLETED, None)
    assert page.whole == {"over": "before", "b1": agent.texts["b1"]}
    assert page.abandoned == ["b2"]


@pytest.mark.parametrize("joins", [40, pytest.param(1000, marks=pytest.mark.long)])
async def test_readers_that_join_anywhere_see_the_exact_text(redis_url: str, joins: int) -> None:
    """Each joins at a place of its own while the agent goes on, stays a while, and leaves."""
    chance = random.Random(joins)
    async with asyncio.timeout(300), an_agent(redis_url) as agent, AsyncAgentClient.from_url(redis_url) as client:
        done = False

        async def talk() -> None:
            number = 0
            while not done:
                block = f"b{number}"
                for _ in range(chance.randint(20, 60)):
                    agent.say(block, chance.choice(WORDS))
                    await (agent.lane.flush() if chance.random() < 0.3 else asyncio.sleep(0))
                agent.finish(block) if chance.random() < 0.7 else agent.abandon(block)
                number += 1

        async def join() -> None:
            page, pieces = Page(), chance.randint(1, 15)
            async with contextlib.aclosing(client.session("s").events(deltas=True)) as events:  # type: ignore[type-var]
                async for event in events:
                    page.add(event)
                    pieces -= event.cursor is None
                    if pieces <= 0:
                        break
            for block, shown in page.shown.items():
                assert agent.texts[block].startswith(shown)
                assert page.whole.get(block, shown).startswith(shown)

        async with asyncio.TaskGroup() as group:
            talking = group.create_task(talk())
            for _ in range(joins // 10):
                async with asyncio.TaskGroup() as some:
                    for _ in range(10):
                        some.create_task(join())
            done = True
            await talking


async def test_answers_come_together_and_nothing_is_kept(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_reader, "REPEAT_S", 3600.0)
    async with an_agent(redis_url) as agent, AsyncAgentClient.from_url(redis_url) as client:
        agent.say("b", "so far")
        await agent.lane.flush()
        async with connect_async(redis_url) as raw:
            before = await raw.xlen(KEYS.events("s")), await raw.hgetall(KEYS.state("s"))
            async with raw.pubsub() as channel:
                await channel.subscribe(KEYS.messages_channel("s"))
                await channel.get_message(timeout=5)
                await client.session("s").repeat_open_texts()
                told: Any = await channel.get_message(timeout=20)
                for _ in range(20):
                    await client.session("s").repeat_open_texts()
                agent.say("b", ", and on")
                last: Any = await channel.get_message(timeout=20)
            assert (await raw.xlen(KEYS.events("s")), await raw.hgetall(KEYS.state("s"))) == before
        ((first,), (second,)) = (json.loads(each["data"]) for each in (told, last))
        assert (first["type"], first["content"]) == ("text_delta", {"text": "so far", "blockId": "b", "offset": 0})
        assert second["content"] == {"text": ", and on", "blockId": "b", "offset": 6}
        with pytest.raises(SessionNotFound):
            await client.session("other").repeat_open_texts()


async def test_raw_followers_get_the_answer_that_others_asked_for(redis_url: str) -> None:
    """They pass it on to readers of their own, who drop what they have."""
    client = AsyncAgentClient.from_url(redis_url)
    async with an_agent(redis_url) as agent, client, client.follow({"s": None}, deltas=True, raw=True) as follower:
        agent.say("b", "so far")
        deltas = 0
        async for _, item in follower:
            if isinstance(item, RawEvent) and item.kind == "delta":
                assert json.loads(item.json)["content"] == {"text": "so far", "blockId": "b", "offset": 0}
                deltas += 1
                if deltas == 3:
                    return
                await client.session("s").repeat_open_texts()


async def test_an_older_worker_does_not_answer_and_the_whole_text_comes(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EventLog, "repeat_open_texts", lambda _: None)
    monkeypatch.setattr(subscription, "ASK_AGAIN_S", 0.0)
    async with an_agent(redis_url) as agent:
        agent.say("b", "missed")
        await agent.lane.flush()
        async with a_reader(redis_url, "follow") as page:
            await waiting.true(lambda: _followed(redis_url))
            for _ in range(20):
                agent.say("b", " more")
                await agent.lane.flush()
            agent.finish("b")
            agent.lane.add_end(Status.DONE, Reason.COMPLETED, None)
    assert page.shown == {}
    assert page.whole == {"b": agent.texts["b"]}


async def _followed(url: str) -> bool:
    async with connect_async(url) as raw:
        return await heard(raw, KEYS.messages_channel("s"))


async def test_a_secret_in_pieces_is_not_told_to_who_joins(redis_url: str) -> None:
    async with an_agent(redis_url) as agent:
        agent.lane.redactor = MessageRedactor(Redactor(["hunter2-hunter2"]))
        for piece in ("It is hun", "ter2-hun", "ter2, or ", "hunter2-hun"):
            agent.say("b", piece)
        await agent.lane.flush()
        async with a_reader(redis_url, "events") as page:
            await waiting.true(lambda: "b" in page.shown)
            assert "hunter2" not in page.shown["b"]
            assert page.shown["b"].endswith(", or ")
            agent.lane.add_end(Status.DONE, Reason.COMPLETED, None)


async def test_a_reader_that_may_not_publish_reads_on_without(redis_url: str, raw: redis.Redis) -> None:
    raw.execute_command("ACL SETUSER onlooker on >p ~* &* +@all -publish")
    try:
        async with an_agent(redis_url) as agent:
            agent.say("b", "missed")
            await agent.lane.flush()
            url = redis_url.replace("unix://", "unix://onlooker:p@")
            async with a_reader(url, "follow") as page, AsyncAgentClient.from_url(url) as client:
                with pytest.raises(RedisRefused):
                    await client.session("s").repeat_open_texts()
                agent.finish("b")
                agent.lane.add_end(Status.DONE, Reason.COMPLETED, None)
        assert page.whole == {"b": "missed"}
    finally:
        raw.execute_command("ACL DELUSER onlooker")
