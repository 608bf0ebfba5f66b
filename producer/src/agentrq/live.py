"""Hints over Redis pub/sub, asyncio side: one connection for all the sessions a client follows.

Owns that connection, its reconnects and who gets which hint. Nothing here is trusted to arrive: after each
(re)subscription the readers read the stream (subscription.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

import redis.asyncio

from agentrq.connection import is_outage
from agentrq.subscription import Mailbox
from agentrq.wire.keys import Keys

log = logging.getLogger("agentrq.live")

PING_S: Final = 5.0
"""A connection silent for so long is asked; one that does not answer within as much again is made anew."""
BACKOFF_S: Final = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)


class Inbox(Mailbox):
    """A mailbox that an asyncio reader can wait on."""

    def __init__(self) -> None:
        super().__init__()
        self._event = asyncio.Event()

    def put(self, is_status: bool, payload: bytes) -> None:
        """A hint came."""
        super().put(is_status, payload)
        self._event.set()

    def acknowledged(self) -> None:
        """A subscription began."""
        super().acknowledged()
        self._event.set()

    def wake(self) -> None:
        """Something else happened that the reader has to look at."""
        self._event.set()

    async def wait(self, timeout: float) -> bool:
        """Wait until something is there; False after ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Hub:
    """One pub/sub connection, shared. It is open only while somebody follows a session."""

    def __init__(self, client: redis.asyncio.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._readers: dict[str, list[tuple[bool, Inbox]]] = {}
        self._pubsub: Any = None
        self._pump: asyncio.Task[None] | None = None
        self.closed = False

    @contextlib.asynccontextmanager
    async def subscribed(self, session_id: str) -> AsyncIterator[Inbox]:
        """An inbox that gets the session's hints for as long as the context lasts."""
        inbox = Inbox()
        channels = {self._keys.messages_channel(session_id): False, self._keys.status_channel(session_id): True}
        new = [channel for channel in channels if channel not in self._readers]
        for channel, is_status in channels.items():
            self._readers.setdefault(channel, []).append((is_status, inbox))
        try:
            if self._pump is None:
                # The one task that no group owns: it lives while this client has readers, and the last one ends it.
                self._pump = asyncio.get_running_loop().create_task(self._run(), name="agentrq-live")
            elif new:
                await self._tell("subscribe", new)
            else:
                inbox.acknowledged()
            yield inbox
        finally:
            await self._leave(channels, inbox)

    async def _leave(self, channels: dict[str, bool], inbox: Inbox) -> None:
        left = []
        for channel in channels:
            self._readers[channel] = [(kind, other) for kind, other in self._readers[channel] if other is not inbox]
            if not self._readers[channel]:
                del self._readers[channel]
                left.append(channel)
        if not self._readers:
            await self._disconnect()
        elif left:
            await self._tell("unsubscribe", left)

    async def aclose(self) -> None:
        """End the connection for good; readers that wait are woken and find it `closed`."""
        self.closed = True
        for readers in self._readers.values():
            for _, inbox in readers:
                inbox.wake()
        await self._disconnect()

    async def _disconnect(self) -> None:
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    async def _tell(self, verb: str, channels: list[str]) -> None:
        pubsub = self._pubsub
        if pubsub is None:
            return  # between connections: the pump subscribes to all that is wanted when it is back
        try:
            async with asyncio.timeout(PING_S):
                await getattr(pubsub, verb)(*channels)
        except (redis.RedisError, OSError) as error:
            log.info("%s failed, the connection is made anew: %s", verb, error)
            await pubsub.aclose()

    async def _run(self) -> None:
        failures = 0
        while True:
            pubsub = self._client.pubsub()
            try:
                async with asyncio.timeout(PING_S):
                    await pubsub.subscribe(*self._readers)
                self._pubsub = pubsub
                # Who came while the connection was being made is not in it yet.
                await pubsub.subscribe(*self._readers)
                failures = 0
                await self._read(pubsub)
            except Exception as error:  # noqa: BLE001 - whatever it is: readers wait for what comes over this connection
                if not is_outage(error):
                    log.warning("live hints: %r", error)
                failures += 1
            finally:
                self._pubsub = None
                await pubsub.aclose()
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])

    async def _read(self, pubsub: Any) -> None:
        silent = 0
        while True:
            message = await pubsub.get_message(timeout=PING_S)
            if message is None:
                silent += 1
                if silent > 1:
                    raise redis.ConnectionError("no answer to PING on the subscription")
                await pubsub.ping()
                continue
            silent = 0
            readers = self._readers.get(message["channel"].decode() if message["channel"] else "", ())
            if message["type"] == "subscribe":
                for _, inbox in readers:
                    inbox.acknowledged()
            elif message["type"] == "message":
                for is_status, inbox in readers:
                    inbox.put(is_status, message["data"])
