"""One client's place in one session: from Redis while it is behind, from the log once it has come up with it.

Owns how it changes from one to the other, so that each event comes once and in order. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from agentrq import AgentRQError, SessionNotFound
from agentrq.wire.ids import ORIGIN, Cursor
from agentrq_gateway.streams.fan_out import FanOut
from agentrq_gateway.streams.frames import Frame, end_frame, event_frame, reset_frame
from agentrq_gateway.streams.session_log import SessionLog

TRY_AGAIN_S: Final = 1.0
"""How long a client that is served from Redis waits while Redis is away, in seconds."""


class SessionReader:
    """What one client gets of one session next."""

    def __init__(
        self, fan_out: FanOut, session_id: str, after: Cursor | None, present: Cursor, *, ended: bool, deltas: bool
    ) -> None:
        """``present``, ``ended``: the state's cursor, and whether it has ended; ``after``: the client's cursor."""
        self.session_id = session_id
        self.cursor = after or ORIGIN
        self.over = False
        """All of it was taken, the last frame included."""
        self.on_news: Callable[[], None] = lambda: None
        """Called once more may be there, after `take` had nothing."""
        self._fan_out = fan_out
        self._deltas = deltas
        self._log: SessionLog | None = None if ended else fan_out.join(session_id, present)
        self._place: int | None = None
        self._joined = False
        """It has come up with the log: from then on it gets the pieces of texts."""
        self._resets = 0 if self._log is None else self._log.resets
        self._retry: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """The client has left."""
        if self._log is not None:
            self._fan_out.leave(self._log)
            self._log.waiting.discard(self._wake)
            self._log = None
        if self._retry is not None:
            self._retry.cancel()

    async def take(self) -> tuple[bytes, list[Frame]]:
        """What comes next: a notice (bytes, perhaps empty), then frames; both empty where there is nothing now."""
        if self.over:
            return b"", []
        log = self._log
        if log is not None:
            if self._place is None or log.resets != self._resets:
                self._find_place(log)
            if self._place is not None:
                if self._deltas and not self._joined:
                    self._joined = True
                    await self._fan_out.repeat_open_texts(log)
                chunk = log.read(self._place, deltas=self._deltas)
                if chunk is not None:
                    self._place = chunk.next
                    self.cursor = chunk.cursor or self.cursor
                    if chunk.frames:
                        return b"", chunk.frames
                    return self._wait_or_end(log)
                self._place, self._joined = None, False  # the log has dropped it
            elif self.cursor > log.newest and log.resets == self._resets and not (log.ended or log.gone):
                log.waiting.add(self._wake)  # Redis was faster than the log: it will come
                return b"", []
        return await self._from_redis()

    def _find_place(self, log: SessionLog) -> None:
        self._place = log.place_after(self.cursor) if log.resets == self._resets else None

    def _wait_or_end(self, log: SessionLog) -> tuple[bytes, list[Frame]]:
        if log.gone:
            self.over = True
            return reset_frame(self.session_id, "gone"), []
        if log.ended:
            self.over = True
            return end_frame(self.session_id), []
        log.waiting.add(self._wake)
        return b"", []

    async def _from_redis(self) -> tuple[bytes, list[Frame]]:
        if self._log is not None:
            self._resets = self._log.resets
        try:
            page = await self._fan_out.page(self.session_id, self.cursor)
        except SessionNotFound:
            self.over = True
            return reset_frame(self.session_id, "gone"), []
        except (AgentRQError, TimeoutError):  # the stream stays, and goes on once Redis is back
            self._retry = asyncio.get_running_loop().call_later(TRY_AGAIN_S, self._wake)
            return b"", []
        self.cursor = Cursor.parse(page.cursor)
        notice = b""
        if page.reset is not None:
            notice = reset_frame(self.session_id, page.reset.reason, page.reset.oldest)
        frames = [event_frame(event) for event in page.events]
        if page.ended and not frames:
            self.over = True
            notice += end_frame(self.session_id)
        return (notice, frames) if notice or frames else await self._without_news()

    async def _without_news(self) -> tuple[bytes, list[Frame]]:
        """Redis has nothing after the cursor: go on with the log, or look again a little later."""
        log = self._log
        if log is not None:
            self._find_place(log)
            if self._place is not None:
                return await self.take()
        self._retry = asyncio.get_running_loop().call_later(TRY_AGAIN_S, self._wake)
        return b"", []

    def _wake(self) -> None:
        self.on_news()
