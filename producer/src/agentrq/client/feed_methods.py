"""The method `feed` of both clients: its parameters and what it promises. Owns no reading (feed_streams.py)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from agentrq.client.feed_reader import FeedReader
from agentrq.client.redis_requests import Context

Entries = TypeVar("Entries")


class FeedMethods(ABC, Generic[Entries]):
    """What a client can read of all sessions together, as it happens."""

    context: Context

    @abstractmethod
    def _read_feed(self, reader: FeedReader, follow: bool) -> Entries:
        """Yield what the reader reads."""

    def feed(
        self,
        consumer: str | None = None,
        *,
        after: str | None = None,
        process: str | None = None,
        follow: bool = True,
        takeover_s: float = 60.0,
    ) -> Entries:
        """What happens to all sessions, in order, as an (async) iterator of `FeedEntry` and `FeedGap`.

        ``consumer``: a name whose place is kept in Redis; an entry counts as done when the next one is asked for, and
        comes again if that never happens. Any number of processes may share a consumer, each under its own ``process``
        name (default: a new one); entries of one that was silent for ``takeover_s`` seconds go to another.
        ``after``: an entry's ``id`` to go on behind, ``"$"`` for only what comes from now on (default: begin at the
        oldest entry kept); with a consumer it counts when that is new. ``follow`` False: end where there is nothing
        more now.
        A `FeedGap` comes where entries were dropped before they were read. Raises `InvalidOption`; `RedisUnavailable`
        where Redis is away at the beginning, or for ten minutes; `RedisRefused`.
        """
        return self._read_feed(FeedReader(self.context, consumer, after, process, takeover_s), follow)
