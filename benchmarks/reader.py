"""A reader of many sessions by the product's own client, in a process of its own.

``reader URL timed|untimed SID=CURSOR…``; says ``ready`` once it follows all, then a line for each round (tally.py).
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from agentrq import AsyncAgentClient, Message, StatusEvent
from benchmarks.tally import COUNTED, Tally


async def _follow(session: Any, cursor: str, tally: Tally) -> None:
    async for event in session.events(cursor, deltas=True):
        if isinstance(event, Message):
            if event.type in COUNTED:
                tally.count(event.content.text if tally.timed else "")  # type: ignore[union-attr]
        elif isinstance(event, StatusEvent) and event.status == "idle":
            tally.turn_over()
        elif isinstance(event, StatusEvent) and event.status in ("done", "error"):
            raise RuntimeError(f"session {session.id} ended: {event}")


async def main() -> None:
    url, timed, *sessions = sys.argv[1:]
    tally = Tally(len(sessions), timed == "timed")
    async with AsyncAgentClient.from_url(url) as client, asyncio.TaskGroup() as group:
        for given in sessions:
            sid, _, cursor = given.partition("=")
            group.create_task(_follow(client.session(sid), cursor, tally))
        await asyncio.sleep(0.5)  # ready is a hint: who is not yet subscribed then begins by reading the stream
        print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
