"""A reader of many sessions with redis-py alone: ``plain_reader URL timed|untimed SESSIONS [fenced]``.

As benchmarks.reader. Told ``fenced``, it reads what the plain worker of that mode publishes, and by redis-py's asyncio
side: a thread of its own is not what a web backend has for each reader.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import redis
import redis.asyncio

from benchmarks.tally import COUNTED, Tally


def _take(tally: Tally, hint: dict[str, Any]) -> None:
    message = json.loads(hint["data"])
    if message["type"] in COUNTED:
        tally.count(message["content"]["text"] if tally.timed else "")
    elif message["type"] == "cost":
        tally.turn_over()


def _read(url: str, tally: Tally, channels: list[str]) -> None:
    client = redis.Redis.from_url(url, socket_timeout=None)
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe(*channels)
    pubsub.get_message(timeout=1)
    print("ready", flush=True)
    for hint in pubsub.listen():
        _take(tally, hint)


async def _read_by_asyncio(url: str, tally: Tally, channels: list[str]) -> None:
    client = redis.asyncio.Redis.from_url(url, socket_timeout=None)
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    await pubsub.subscribe(*channels)
    await pubsub.get_message(timeout=1)
    print("ready", flush=True)
    async for hint in pubsub.listen():
        _take(tally, hint)


def main() -> None:
    url, timed, sessions, *mode = sys.argv[1:]
    tally = Tally(int(sessions), timed == "timed")
    channels = [f"{'fenced' if mode else 'plain'}:s{number}:messages" for number in range(int(sessions))]
    if mode:
        asyncio.run(_read_by_asyncio(url, tally, channels))
    else:
        _read(url, tally, channels)


if __name__ == "__main__":
    main()
