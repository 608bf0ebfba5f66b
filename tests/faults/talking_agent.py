"""An agent that says its texts in pieces, on half a worker, which heeds its wakes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from agentrq import AsyncAgentClient
from agentrq.connection import connect_async
from agentrq.wire.keys import Keys
from agentrq.wire.messages import Text, TextDelta, Thinking, ThinkingDelta
from agentrq.wire.status import Status
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.stream.event_log import EventLog
from tests.faults import waiting
from tests.faults.writing import claimed, publishing

KEYS = Keys()


class Agent:
    """What an agent says in pieces, by block."""

    def __init__(self, lane: EventLog) -> None:
        self.lane = lane
        self.texts: dict[str, str] = defaultdict(str)

    def say(self, block: str, text: str, parent: str | None = None) -> None:
        kind = ThinkingDelta if block.startswith("thought") else TextDelta
        delta = kind(text, block, len(self.texts[block]))
        self.lane.add_messages([DraftMessage(kind.type_name, delta, parent)])
        self.texts[block] += text.replace("\ud800", "\ufffd")

    def finish(self, block: str) -> None:
        kind = Thinking if block.startswith("thought") else Text
        self.lane.add_messages([DraftMessage(kind.type_name, kind(self.texts[block], block))])

    def abandon(self, block: str) -> None:
        delta = TextDelta("", block, len(self.texts[block]), abandoned=True)
        self.lane.add_messages([DraftMessage("text_delta", delta)])


class _Session:
    """A hosted session, as far as its inbox goes."""

    id = "s"

    def deliver(self, waiting: Any) -> None:
        raise AssertionError("no command was sent")

    def reject(self, *_: Any) -> None:
        raise AssertionError("no command was sent")


@contextlib.asynccontextmanager
async def an_agent(url: str) -> AsyncIterator[Agent]:
    """A session that runs on half a worker, which heeds its wakes."""
    async with AsyncAgentClient.from_url(url) as client:
        await client.start("demo", "hello", "s")
    async with publishing(url, waiting.SETTINGS) as (publisher, ownership), asyncio.TaskGroup() as group:
        lane = await claimed(publisher, ownership, "s")
        ownership.inboxes.add(_Session(), lane, 0)
        tasks = [
            group.create_task(ownership.inboxes.listen()),
            group.create_task(ownership.inboxes.repeat_open_texts()),
        ]
        lane.add_status(Status.RUNNING)
        await lane.flush()
        wake = KEYS.wake_channel(waiting.SETTINGS.worker_name)
        async with connect_async(url) as raw:
            await waiting.true(lambda: heard(raw, wake))
        yield Agent(lane)
        for task in tasks:
            task.cancel()


async def heard(raw: Any, channel: str) -> bool:
    ((_, count),) = await raw.pubsub_numsub(channel)
    return bool(count)
