"""Follows each session once for all its clients in this process: one follower, one log a session.

Owns which sessions are followed and for how long, and reads from Redis for clients that a log is too short for. What
is lost with this process is nothing: a client comes back with its cursor, to whatever gateway.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from typing import Any, Final

from agentrq import (
    AgentRQError,
    AsyncAgentClient,
    CursorReset,
    RawEvent,
    SessionDelivered,
    SessionUnreadable,
)
from agentrq.client.event_pages import EventPage
from agentrq.wire.ids import ORIGIN, Cursor
from agentrq_gateway.settings import Settings
from agentrq_gateway.streams.frames import event_frame
from agentrq_gateway.streams.session_log import CHUNK, SessionLog

log = logging.getLogger("agentrq.gateway.streams")

LINGER_S: Final = 5.0
"""How long a session is followed after its last client has left: clients that lost their connection come back."""
RETRY_S: Final = 1.0
"""How long the follower waits before it begins again after Redis was away for long, in seconds."""
TEXTS_S: Final = 0.25
"""How often the open texts of one session are asked for at most, in seconds."""
PAGE: Final = 200
"""Events that a client is served from Redis at once."""


class FanOut:
    """The sessions that clients of this process follow."""

    def __init__(self, client: AsyncAgentClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._logs: dict[str, SessionLog] = {}
        self._follower: Any = None
        self._pages: dict[tuple[str, Cursor], asyncio.Future[EventPage]] = {}

    @property
    def followed(self) -> int:
        """Sessions that are followed."""
        return len(self._logs)

    @property
    def buffered(self) -> int:
        """Bytes that are kept of them."""
        return sum(each.size for each in self._logs.values())

    def join(self, session_id: str, present: Cursor) -> SessionLog:
        """The log of a live session, from ``present`` on where nobody has followed it so far."""
        found = self._logs.get(session_id)
        if found is None or found.gone or found.ended:
            found = self._logs[session_id] = SessionLog(session_id, present, self._limit)
            if self._follower is not None:
                self._follower.add(session_id, present)
        found.users += 1
        found.unused_since = None
        return found

    def leave(self, found: SessionLog) -> None:
        """One client less."""
        found.users -= 1
        if not found.users:
            found.unused_since = time.monotonic()

    def drop_unused(self, now: float) -> None:
        """Follow no longer what nobody has followed for some seconds. To be called each second."""
        for sid, each in list(self._logs.items()):
            if each.unused_since is not None and (each.ended or each.gone or now - each.unused_since > LINGER_S):
                del self._logs[sid]
                each.close()
                if self._follower is not None:
                    self._follower.remove(sid)

    def _limit(self) -> int:
        settings = self._settings
        return min(settings.max_unsent, settings.max_buffered // max(1, len(self._logs)))

    async def follow(self) -> None:
        """Fill the logs, for ever. Redis may be away: then clients wait."""
        while True:
            places = {sid: each.newest for sid, each in self._logs.items() if not (each.ended or each.gone)}
            try:
                async with self._client.follow(places, deltas=True, raw=True, until_closed=True) as follower:
                    self._follower = follower
                    async for session_id, item in follower:
                        self._deliver(session_id, item)
            except AgentRQError as error:
                log.warning("sessions cannot be followed at present: %s", error)
            finally:
                self._follower = None
            await asyncio.sleep(RETRY_S)

    def _deliver(self, session_id: str, item: Any) -> None:
        found = self._logs.get(session_id)
        if found is None:
            return
        if isinstance(item, RawEvent):
            found.append(event_frame(item))
        elif isinstance(item, CursorReset):
            found.restart(_before(item.oldest))
        elif isinstance(item, SessionDelivered):
            found.finish(gone=False)
        else:
            if isinstance(item, SessionUnreadable):
                log.warning("session %s cannot be followed: %s", session_id, item.error)
            found.finish(gone=True)

    async def repeat_open_texts(self, found: SessionLog) -> None:
        """Have the texts that are being written told once more, for a client that has come into the middle of them.

        What has been asked for some moments ago is not asked again: it comes to all clients of the session.
        """
        now = time.monotonic()
        if now < found.texts_due:
            return
        found.texts_due = now + TEXTS_S
        try:
            async with asyncio.timeout(self._settings.redis_timeout_s):
                await self._client.session(found.session_id).repeat_open_texts()
        except (AgentRQError, TimeoutError) as error:
            log.info("session %s: its open texts cannot be asked for: %s", found.session_id, error)

    async def page(self, session_id: str, after: Cursor) -> EventPage:
        """Events after a cursor, from Redis. Clients that want the same at once share one read.

        Raises what the client raises, TimeoutError.
        """
        place = (session_id, after)
        running = self._pages.get(place)
        if running is not None:
            return await asyncio.shield(running)
        running = self._pages[place] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._settings.redis_timeout_s):
                read: Awaitable[EventPage] = self._client.session(session_id).page(
                    None if after == ORIGIN else after, PAGE, CHUNK
                )
                page = await read
        except BaseException as error:
            # Whoever shares it does not share a cancellation.
            running.set_exception(error if isinstance(error, Exception) else TimeoutError())
            running.exception()  # it was looked at, whether or not anybody shares it
            raise
        else:
            running.set_result(page)
            return page
        finally:
            del self._pages[place]


def _before(cursor: str | None) -> Cursor:
    """The place right before an event; the beginning where there is none."""
    if cursor is None:
        return ORIGIN
    epoch, seq = Cursor.parse(cursor)
    return Cursor(epoch, max(0, seq - 1))
