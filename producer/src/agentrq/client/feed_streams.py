"""Yields the feed to a caller, for both clients: reads, waits, and goes on through an outage of Redis.

Owns when a reader waits and gives up. Does not own what is read (feed_reader.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING

from agentrq.client.feed_reader import FeedReader
from agentrq.client.outages import OutagePatience
from agentrq.errors import RedisUnavailable
from agentrq.wire.feed import FeedEntry, FeedGap

if TYPE_CHECKING:
    from agentrq.client.asyncio_client import AsyncAgentClient
    from agentrq.client.sync_client import AgentClient


def read_entries(client: AgentClient, reader: FeedReader, follow: bool) -> Iterator[FeedEntry | FeedGap]:
    """The entries that are there; with ``follow`` those that come as well."""
    patience = OutagePatience(reader.shrink)
    try:
        while True:
            client.check_open()
            try:
                page = client.run(reader.read())
                patience.over()
                if not page and follow:
                    client.run(reader.wait())
            except RedisUnavailable as error:
                delay = patience.delay(error)
                if delay is None:
                    raise
                time.sleep(delay)
                continue
            if not page and not follow:
                return
            for entry in page:
                yield entry
                reader.done(entry)
    finally:
        with contextlib.suppress(RedisUnavailable):  # then what was done comes again, as after a kill
            client.run(reader.close())


async def read_entries_async(
    client: AsyncAgentClient, reader: FeedReader, follow: bool
) -> AsyncGenerator[FeedEntry | FeedGap, None]:
    """Like `read_entries`, for asyncio."""
    patience = OutagePatience(reader.shrink)
    try:
        while True:
            await client.check_open()
            try:
                page = await client.run(reader.read())
                patience.over()
                if not page and follow:
                    await client.run(reader.wait())
            except RedisUnavailable as error:
                delay = patience.delay(error)
                if delay is None:
                    raise
                await asyncio.sleep(delay)
                continue
            if not page and not follow:
                return
            for entry in page:
                yield entry
                reader.done(entry)
    finally:
        with contextlib.suppress(RedisUnavailable):  # then what was done comes again, as after a kill
            await client.run(reader.close())
