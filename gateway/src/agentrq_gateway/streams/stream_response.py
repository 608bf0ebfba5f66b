"""The answer that is a stream of server-sent events: sent as its client takes it, ended as its keeper says.

Owns one connection: what is under way to the client, and that it has left. What is sent is the source's matter.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agentrq_gateway.errors import ApiError, to_response, unavailable
from agentrq_gateway.limits import Limits
from agentrq_gateway.streams.frames import HEARTBEAT, RETRY_MS, retry_frame
from agentrq_gateway.streams.stream_keeper import StreamKeeper

log = logging.getLogger("agentrq.gateway.streams")

HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}
MOST_MADE: Final = 64 * 1024
"""Bytes that a generator may be ahead of its client."""


class Source(ABC):
    """What a stream sends. ``on_news`` is set by the stream: the source calls it once `take` has more."""

    on_news: Callable[[], None] = staticmethod(lambda: None)
    over = False
    """Nothing will come any more; looked at after `take` had nothing."""

    @abstractmethod
    async def take(self) -> bytes:
        """What is there now; nothing where there is nothing. It never waits for news."""

    def start(self, group: asyncio.TaskGroup) -> None:  # noqa: B027 - most sources need no task
        """The stream begins; ``group`` owns tasks that the source needs."""

    @abstractmethod
    def close(self) -> None:
        """The client has left, or the stream is over. May be called again."""


class GeneratorSource(Source):
    """A source that is an asynchronous generator of bytes, kept a little ahead of its client."""

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self._pieces = pieces
        self._made = bytearray()
        self._taken = asyncio.Event()
        self._finished = False
        self._task: asyncio.Task[None] | None = None

    def start(self, group: asyncio.TaskGroup) -> None:
        """Make pieces from now on."""
        self._task = group.create_task(self._make())

    async def _make(self) -> None:
        try:
            async for piece in self._pieces:
                self._made += piece
                self.on_news()
                while len(self._made) > MOST_MADE:
                    self._taken.clear()
                    await self._taken.wait()
        except Exception:  # the answer has begun: the client is only told that it is over
            log.exception("a stream failed")
        finally:
            await self._pieces.aclose()
        self._finished = True
        self.on_news()

    async def take(self) -> bytes:
        """All that was made."""
        made, self._made = bytes(self._made), bytearray()
        self._taken.set()
        self.over = self._finished and not made
        return made

    def close(self) -> None:
        """Make no more."""
        if self._task is not None:
            self._task.cancel()


class StreamResponse(Response):
    """One stream. ``caller``: whose streams are counted; ``expires_at``: of their grant, seconds since the epoch.

    ``cut_short``: to be ended before its source is over, its connection is cut: its client takes a clean end for the
    end of the whole.
    """

    def __init__(
        self,
        source: Source,
        keeper: StreamKeeper,
        limits: Limits,
        caller: str,
        *,
        expires_at: float | None = None,
        headers: dict[str, str] | None = None,
        opening: bytes = b"",
        cut_short: bool = False,
    ) -> None:
        super().__init__(None, 200, HEADERS | (headers or {}))
        del self.headers["content-length"]
        now = keeper.clock()
        self.opened_at = keeper.opened_at()
        self.sending_since: float | None = None
        self.heartbeat_at = now + keeper.settings.heartbeat_s
        self.expires_at = None if expires_at is None else now + expires_at - time.time()
        self._source = source
        self._keeper = keeper
        self._limits = limits
        self._caller = caller
        self._cut_short = cut_short
        self._opening = retry_frame(RETRY_MS) + opening
        self._news = asyncio.Event()
        self._heartbeat = False
        self._last: bytes | None = None
        self._left = False
        self._patience = asyncio.timeout(None)

    def send_heartbeat(self) -> None:
        """Send a comment with what comes next."""
        self._heartbeat = True
        self._news.set()

    def end(self, last: bytes) -> None:
        """Send ``last``, then close."""
        if self._cut_short:
            self.abort()
            return
        self._last = last
        self._news.set()

    def abort(self) -> None:
        """Close without a word."""
        self._patience.reschedule(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream until it is over, the client has left or takes nothing."""
        try:
            if self._keeper.ending:
                raise unavailable("ending", "This gateway is about to end: try again")
            with self._limits.stream(self._caller):
                await self._serve(scope, receive, send)
        except ApiError as error:
            await to_response(error)(scope, receive, send)
        finally:
            self._source.close()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._source.on_news = self._news.set
        self._keeper.add(self)
        try:
            async with self._patience, asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch(receive))
                self._source.start(group)
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                if scope["method"] != "HEAD":
                    await self._send_all(send)
                await send({"type": "http.response.body", "body": self._last or b"", "more_body": False})
                watch.cancel()
                self._source.close()
        except TimeoutError:
            if not self._patience.expired():
                raise
        finally:
            self._keeper.discard(self)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._left = True
        self._news.set()

    async def _send_all(self, send: Send) -> None:
        piece = self._opening
        while True:
            if piece:
                self.sending_since = self._keeper.clock()
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                self.sending_since = None
            elif self._source.over:
                return
            else:
                await self._news.wait()
            if self._last is not None or self._left:
                return
            self._news.clear()
            piece = await self._source.take()
            if self._heartbeat:
                piece, self._heartbeat = piece + HEARTBEAT, False
