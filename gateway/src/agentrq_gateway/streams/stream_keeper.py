"""The streams that are open in this process: kept alive, closed in time, ended together. Owns their clocks.

Also runs what all of them share in the background: the fan-out, and the look at every stream once a second.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final, Protocol

from agentrq_gateway.settings import Settings
from agentrq_gateway.streams.fan_out import FanOut
from agentrq_gateway.streams.frames import EXPIRED, RETRY_MS, retry_frame

LOOK_S: Final = 1.0
SPREAD_MS: Final = 2000
"""When a gateway ends, its clients come back to others within so many milliseconds, not all at once."""
AGE_SPREAD: Final = 0.1


class OpenStream(Protocol):
    """One open stream, as its keeper sees it. Times are monotonic."""

    opened_at: float
    sending_since: float | None
    heartbeat_at: float
    expires_at: float | None

    def send_heartbeat(self) -> None:
        """Send a comment as soon as the client takes anything."""

    def end(self, last: bytes) -> None:
        """Send ``last``, then close."""

    def abort(self) -> None:
        """Close without a word: the client takes nothing."""


class Background(Protocol):
    """What reads for all streams, beside the fan-out."""

    async def read(self) -> None:
        """Read for ever."""


class StreamKeeper:
    """All open streams of one gateway. Belongs to one event loop, and begins with the first stream."""

    def __init__(
        self,
        fan_out: FanOut,
        status_feed: Background,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fan_out = fan_out
        self._status_feed = status_feed
        self.settings = settings
        self.clock = clock
        self._streams: set[OpenStream] = set()
        self._task: asyncio.Task[None] | None = None
        self._ending = False

    @property
    def ending(self) -> bool:
        """The process is about to end: no stream begins any more."""
        return self._ending

    @property
    def open(self) -> int:
        """How many they are."""
        return len(self._streams)

    def add(self, stream: OpenStream) -> None:
        """A stream was opened."""
        if self._task is None or self._task.done():
            # The one task that no group owns: it lives from the first stream until `aclose`, as the app has no other.
            self._task = asyncio.get_running_loop().create_task(self._run(), name="agentrq-gateway")
        self._streams.add(stream)

    def discard(self, stream: OpenStream) -> None:
        """A stream was closed."""
        self._streams.discard(stream)

    def end_streams(self) -> None:
        """Tell every client to come back to whoever serves then, at a moment of its own within two seconds."""
        self._ending = True
        for stream in list(self._streams):
            stream.end(retry_frame(random.randrange(SPREAD_MS)))  # noqa: S311 - it spreads load, it guards nothing

    async def aclose(self) -> None:
        """End all streams, and what runs in the background."""
        self.end_streams()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.fan_out.follow())
            group.create_task(self._status_feed.read())
            while True:
                await asyncio.sleep(LOOK_S)
                self.fan_out.drop_unused(self.clock())
                self.look(self.clock())

    def look(self, now: float) -> None:
        """Do what is due for each stream."""
        settings = self.settings
        for stream in list(self._streams):
            if stream.sending_since is not None and now - stream.sending_since >= settings.stalled_s:
                stream.abort()
            elif stream.expires_at is not None and now >= stream.expires_at:
                stream.end(EXPIRED)
            elif now - stream.opened_at >= settings.max_stream_s:
                stream.end(retry_frame(RETRY_MS))
            elif now >= stream.heartbeat_at:
                stream.heartbeat_at = now + settings.heartbeat_s
                stream.send_heartbeat()

    def opened_at(self) -> float:
        """When a stream that opens now counts as opened: a little earlier or later, so that not all end at once."""
        spread = AGE_SPREAD * self.settings.max_stream_s
        return self.clock() + random.uniform(-spread, spread)  # noqa: S311 - it spreads load, it guards nothing
