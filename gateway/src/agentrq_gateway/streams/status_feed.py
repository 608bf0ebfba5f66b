"""The statuses of all sessions as they change, read once for all clients of this process from agentrq's feed.

Owns who gets which entry. Nothing is replayed: a client asks for its list once it is told that the feed is read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from agentrq import AgentRQError, AsyncAgentClient, FeedEntry, FeedGap
from agentrq.client.feed_reader import FeedReader
from agentrq_gateway.auth.grant import Grant
from agentrq_gateway.streams.frames import named_frame
from agentrq_gateway.streams.stream_response import Source

log = logging.getLogger("agentrq.gateway.streams")

KEPT: Final = 2000
"""Entries that a slow client may be behind; past that it is told to ask for its list again."""
RETRY_S: Final = 1.0
TAKEOVER_S: Final = 60.0
"""Of no effect: this reader shares its place with nobody."""
READY: Final = named_frame("ready")
MISSED: Final = named_frame("reset", reason="trimmed")
AT_ONCE: Final = 200


class _Kept(NamedTuple):
    """One entry, for those who may see it."""

    session_id: str
    tenant: str | None
    frame: bytes


class StatusFeed:
    """What is read of the feed while anybody listens."""

    def __init__(self, client: AsyncAgentClient) -> None:
        self._client = client
        self._kept: deque[_Kept | None] = deque(maxlen=KEPT)
        self._end = 0
        self._news: set[Callable[[], None]] = set()
        self._wanted = asyncio.Event()
        self.reading = False
        """Whatever changes from now on is told."""

    def listen(self, grant: Grant) -> FeedSource:
        """A client of the feed."""
        return FeedSource(self, grant)

    @property
    def end(self) -> int:
        """The place after the newest entry."""
        return self._end

    def add(self, wake: Callable[[], None]) -> None:
        """A client listens."""
        self._news.add(wake)
        self._wanted.set()

    def remove(self, wake: Callable[[], None]) -> None:
        """A client has left."""
        self._news.discard(wake)

    def after(self, place: int) -> list[_Kept | None] | None:
        """Some entries from a place on (None: entries were missed there); None where they are kept no longer."""
        first = self._end - len(self._kept)
        if place < first:
            return None
        return [self._kept[at] for at in range(place - first, min(len(self._kept), place - first + AT_ONCE))]

    async def read(self) -> None:
        """Read the feed, for ever, while anybody listens."""
        while True:
            await self._wanted.wait()
            reader = FeedReader(self._client.context, None, "$", None, TAKEOVER_S)
            while self._news:
                try:
                    page = await self._client.run(reader.read())
                    self._begin()
                    for entry in page:
                        self._keep(entry)
                    if not page:
                        await self._client.run(reader.wait())
                except AgentRQError as error:
                    log.warning("the feed cannot be read at present: %s", error)
                    await asyncio.sleep(RETRY_S)
            self.reading = False
            self._wanted.clear()

    def _begin(self) -> None:
        if not self.reading:
            self.reading = True
            self._tell()

    def _keep(self, entry: FeedEntry | FeedGap) -> None:
        if isinstance(entry, FeedGap):
            self._put(None)
            return
        status = {"started": "queued"}.get(entry.kind, entry.status)
        if entry.kind == "removed":
            frame = named_frame("removed", sessionId=entry.session_id)
        elif entry.kind in ("started", "status", "ended") and status is not None:
            frame = named_frame(
                "status", sessionId=entry.session_id, status=status, cursor=entry.cursor or None, timestamp=entry.time,
                reason=entry.reason, provider=entry.provider,
            )  # fmt: skip
        elif entry.kind in ("waiting", "answered"):
            frame = named_frame(
                entry.kind, sessionId=entry.session_id, requestId=entry.request_id, timestamp=entry.time
            )
        else:
            return
        self._put(_Kept(entry.session_id, entry.tenant, frame))

    def _put(self, entry: _Kept | None) -> None:
        self._kept.append(entry)
        self._end += 1
        self._tell()

    def _tell(self) -> None:
        for wake in list(self._news):
            wake()


class FeedSource(Source):
    """What one caller may see of the feed."""

    def __init__(self, feed: StatusFeed, grant: Grant) -> None:
        self._feed = feed
        self._grant = grant
        self._place: int | None = None

    async def take(self) -> bytes:
        """The entries since the last time that the caller may see."""
        if self._place is None:
            self._feed.add(self.on_news)
            if not self._feed.reading:
                return b""
            self._place = self._feed.end
            return READY
        entries = self._feed.after(self._place)
        if entries is None:
            self._place = self._feed.end
            return MISSED
        self._place += len(entries)
        if len(entries) == AT_ONCE:
            self.on_news()
        return b"".join([MISSED if entry is None else entry.frame for entry in entries if self._sees(entry)])

    def _sees(self, entry: _Kept | None) -> bool:
        grant = self._grant
        return entry is None or (
            grant.names(entry.session_id) and (grant.tenant is None or entry.tenant == grant.tenant)
        )

    def close(self) -> None:
        """The client has left."""
        self._feed.remove(self.on_news)
