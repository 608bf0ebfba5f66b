"""Hints over Redis pub/sub for asyncio: one connection for all the sessions that a client follows.

Owns that connection, its reconnects and which reader gets which hint. Readers do not rely on hints: after each
subscription, the first and every later one, they read the stream (subscription.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, Protocol

import redis.asyncio

from agentrq.client.subscription import Mailbox
from agentrq.connection import is_outage
from agentrq.exclusive_connection import Link
from agentrq.reusable_timeout import ReusableTimeout
from agentrq.wire.keys import Keys

log = logging.getLogger("agentrq.client.pubsub_hub")

PING_S: Final = 5.0
"""A connection that is silent for so many seconds is pinged; if it stays silent as long again, it is replaced."""
BACKOFF_S: Final = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)


class HintSink(Protocol):
    """Where the hints of one session go."""

    def put(self, is_status: bool, payload: bytes) -> None:
        """A hint came from the messages or the status channel."""

    def on_subscribed(self) -> None:
        """A subscription began, or began again."""

    def wake(self) -> None:
        """The connection was closed for good."""


class WakeUp:
    """What one asyncio reader waits on."""

    def __init__(self) -> None:
        super().__init__()
        self._woken = False
        self._waiter: asyncio.Future[bool] | None = None
        self._timeout = ReusableTimeout(lambda: self._end_wait(False))

    def wake(self) -> None:
        """Wake the reader: something waits for it."""
        self._woken = True
        self._end_wait(True)

    def _end_wait(self, woken: bool) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(woken)

    async def wait(self, timeout: float) -> bool:
        """Wait until an item is ready; False after ``timeout`` seconds."""
        if not self._woken:
            self._timeout.start(timeout)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                if not await self._waiter:
                    return False
            finally:
                self._waiter = None
                self._timeout.stop()
        self._woken = False
        return True

    def close(self) -> None:
        """Stop the timer: the reader has left."""
        self._timeout.close()


class ReaderInbox(WakeUp, Mailbox):
    """A mailbox that one asyncio reader can wait on."""

    def put(self, is_status: bool, payload: bytes) -> None:
        """A hint came."""
        super().put(is_status, payload)
        self.wake()

    def on_subscribed(self) -> None:
        """Count a subscription that began."""
        super().on_subscribed()
        self.wake()


class _HintConnection(Link):
    """The connection that brings hints."""

    def __init__(self, pool: Any, connection: Any) -> None:
        super().__init__(pool, connection)
        self.heard_at = time.monotonic()
        self.ended = asyncio.Event()
        self.on_push: Callable[[bytes, Any, Any], None] = lambda *_: None
        """Gets each push of three parts: its kind, then mostly channel and payload."""

    def on_answer(self, answer: Any) -> None:
        """A push, the answer to PING, or a refusal."""
        self.heard_at = time.monotonic()
        if isinstance(answer, redis.RedisError):
            self.fail(answer)
        elif isinstance(answer, list) and len(answer) == 3:
            self.on_push(*answer)

    def on_closed(self, error: redis.RedisError) -> None:
        """The connection has ended."""
        self.ended.set()


class PubSubHub:
    """One pub/sub connection, shared. It is open only while somebody follows a session."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        keys: Keys,
        open_connection: Callable[[redis.asyncio.Redis], Awaitable[Any]] = _HintConnection.open,
    ) -> None:
        """``open_connection`` makes a connection for hints; a server that has no socket needs one of its own."""
        self._client = client
        self._open_connection = open_connection
        self._keys = keys
        self._readers: dict[str, list[tuple[bool, HintSink]]] = {}
        self._link: _HintConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self.closed = False

    @contextlib.asynccontextmanager
    async def subscribed(self, session_id: str) -> AsyncIterator[ReaderInbox]:
        """An inbox that gets the session's hints for as long as the context lasts."""
        inbox = ReaderInbox()
        try:
            self.attach({session_id: inbox})
            yield inbox
        finally:
            inbox.close()
            self.detach({session_id: inbox})
            await self.release()

    def attach(self, sinks: Mapping[str, HintSink]) -> None:
        """Have each session's hints go to its sink as well."""
        new = []
        for channel, is_status, sink in self._channels(sinks):
            if channel not in self._readers:
                new.append(channel)
            elif is_status:
                sink.on_subscribed()
            self._readers.setdefault(channel, []).append((is_status, sink))
        if self._task is None:
            # The one task that no group owns: it lives while this client has readers, and the last one ends it.
            self._task = asyncio.get_running_loop().create_task(self._run(), name="agentrq-live")
        elif new:
            self._send("SUBSCRIBE", new)

    def detach(self, sinks: Mapping[str, HintSink]) -> None:
        """Undo `attach`. Without a sink the connection stays, until `release`."""
        left = []
        for channel, _, sink in self._channels(sinks):
            self._readers[channel] = [(kind, other) for kind, other in self._readers[channel] if other is not sink]
            if not self._readers[channel]:
                del self._readers[channel]
                left.append(channel)
        if left:
            self._send("UNSUBSCRIBE", left)

    def _channels(self, sinks: Mapping[str, HintSink]) -> Iterator[tuple[str, bool, HintSink]]:
        # The status channel last: when it is subscribed, both are.
        for session_id, sink in sinks.items():
            yield self._keys.messages_channel(session_id), False, sink
            yield self._keys.status_channel(session_id), True, sink

    async def release(self) -> None:
        """Close the connection, if nobody follows a session."""
        if not self._readers:
            await self._disconnect()

    async def aclose(self) -> None:
        """End the connection for good; readers that wait are woken and find it `closed`."""
        self.closed = True
        for readers in self._readers.values():
            for _, sink in readers:
                sink.wake()
        await self._disconnect()

    async def _disconnect(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _send(self, verb: str, channels: list[str]) -> None:
        # Between connections there is nothing to send: the task subscribes to all channels when it is connected again.
        if self._link is not None and self._link.error is None:
            self._link.send(verb, *channels)

    async def _run(self) -> None:
        failures = 0
        await asyncio.sleep(0)  # an eager task (Python 3.12) runs before it is known as the task
        # Not for ever: before Python 3.13 a task group that fails while it is cancelled forgets that it was.
        while self._task is asyncio.current_task():
            link = None
            try:
                async with asyncio.timeout(PING_S):
                    link = await self._open_connection(self._client)
                self._link, link.on_push = link, self._dispatch
                link.send("SUBSCRIBE", *self._readers)
                failures = 0
                await self._watch(link)
            except Exception as error:  # noqa: BLE001 - whatever it is: readers wait for what comes over this connection
                if not is_outage(error):
                    log.warning("the Pub/Sub connection failed, readers poll until it is back: %s", error)
                failures += 1
            finally:
                if self._link is link:  # else it is already that of the next task
                    self._link = None
                if link is not None:
                    await link.aclose()
            if self._task is asyncio.current_task():
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])

    async def _watch(self, link: _HintConnection) -> None:
        """Until the connection fails, or does not answer."""
        while link.error is None:
            silent = time.monotonic() - link.heard_at
            if silent > 2 * PING_S:
                raise redis.ConnectionError("no answer to PING on the subscription")
            if silent >= PING_S:
                link.send("PING")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PING_S):
                    await link.ended.wait()
        raise link.error

    def _dispatch(self, kind: bytes, channel: Any, data: Any) -> None:
        if kind not in (b"message", b"subscribe"):
            return
        for is_status, sink in self._readers.get(channel.decode(), ()):
            if kind == b"message":
                sink.put(is_status, data)
            elif is_status:  # a session's other channel is subscribed by then
                sink.on_subscribed()
