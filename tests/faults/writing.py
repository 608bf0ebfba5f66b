"""The writing half of a worker for tests: the real publisher, and a writer that keeps what it said.

Owns how an event is compared (`seen`). The network and the readers are others'.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

from agentrq import Event, Message, StatusEvent
from agentrq.connection import connect_async
from agentrq.wire.messages import Text, TextDelta
from agentrq.wire.status import Reason, Status
from agentrq_worker.ownership.ownership import Ownership
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.settings import Settings
from agentrq_worker.stream.event_log import EventLog
from agentrq_worker.stream.publisher import Publisher

Seen: TypeAlias = tuple[str | None, str, Any]
"""An event as it is compared: its cursor, its kind, what it says."""


def seen(event: Event) -> Seen:
    if isinstance(event, StatusEvent):
        return event.cursor, "status", event.status
    if isinstance(event, Message):
        return event.cursor, event.type, event.content.text if isinstance(event.content, Text) else event.content
    return event.cursor, "receipt", event.command_id


@contextlib.asynccontextmanager
async def publishing(url: str, settings: Settings) -> AsyncIterator[tuple[Publisher, Ownership]]:
    """The writing half of a worker, without RQ and runners."""
    client, live = connect_async(url), connect_async(url, blocking=True)
    publisher = Publisher(client, settings)
    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(publisher.run())
            yield publisher, Ownership(client, live, settings)
            running.cancel()
    finally:
        await client.aclose()
        await live.aclose()


async def claimed(publisher: Publisher, ownership: Ownership, session_id: str) -> EventLog:
    """Claim a session as a worker does."""
    look = await ownership.fetch_session(session_id)
    assert look is not None
    claim = await ownership.claim_session(look)
    assert claim is not None
    return publisher.open_log(session_id, claim.cursor, claim.state)


class Writer:
    """Plays a session's part: says things into its lane, and keeps what it said."""

    def __init__(self, lane: EventLog, chance: random.Random) -> None:
        self.lane = lane
        self.said: list[Seen] = []
        self._chance = chance
        self._status = Status.STARTING
        self._go = asyncio.Event()
        self._go.set()
        lane.on_full = lambda full: self._go.clear() if full else self._go.set()

    def _cursor(self) -> str:
        return f"{self.lane.epoch}-{self.lane._seq}"

    def say(self) -> None:
        """One event of any kind."""
        number, kind = len(self.said), self._chance.random()
        if kind < 0.06:
            self._status = Status.IDLE if self._status is Status.RUNNING else Status.RUNNING
            self.lane.add_status(self._status, {"turn": int(self._status is Status.RUNNING)})
            self.said.append((self._cursor(), "status", str(self._status)))
        elif kind < 0.1:
            self.lane.add_receipt(f"c{number}", "prompt", "applied", None, b"1-1")
            self.said.append((self._cursor(), "receipt", f"c{number}"))
        elif kind < 0.15:
            self.lane.add_messages([DraftMessage("text_delta", TextDelta("…", "b", 0))])
        else:
            text = f"{number} of {self.lane.epoch} " + "x" * self._chance.choice((0, 10, 100, 100, 1000, 20_000))
            self.lane.add_message("text", Text(text), fields={"numTurns": number})
            self.said.append((self._cursor(), "text", text))

    async def talk(self, count: int) -> None:
        """So many events, in bursts, as long as there is room."""
        while count > 0:
            await self._go.wait()
            for _ in range(min(count, self._chance.randint(1, 30))):
                self.say()
                count -= 1
            await asyncio.sleep(self._chance.choice((0.0, 0.001, 0.02)))

    def end(self) -> None:
        self.lane.add_end(Status.DONE, Reason.COMPLETED, None, {"exitCode": 0})
        self.said.append((self._cursor(), "status", "done"))
