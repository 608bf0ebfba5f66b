"""A connection with one user, which bypasses redis-py's pool, streams and retries: for thousands of calls a second.

redis-py makes the connection (address, TLS, login) and closes it; in between its socket is taken over. From socket to
answer redis-py needs a stream, a lock and a dozen calls: a third of what an event that comes alone costs its worker
and its readers. Owns the takeover, what a lost connection means, and scripts by their digest. Retries are the
caller's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Self

import hiredis
import redis
import redis.asyncio
from redis.asyncio.connection import DefaultParser
from redis.commands.core import AsyncScript

from agentrq.reusable_timeout import ReusableTimeout

_CLOSED: Final = "Connection closed by server."
_MORE: Final = object()
"""What the parser returns while an answer is incomplete."""


class Link(asyncio.Protocol):
    """The socket of a connection. Subclasses get what comes by `on_answer`, and the end by `on_closed`."""

    def __init__(self, pool: Any, connection: Any) -> None:
        self.error: redis.RedisError | None = None
        """Why the connection has ended; None while it lives."""
        self._pool, self._connection = pool, connection
        self._parser = hiredis.Reader(
            protocolError=redis.InvalidResponse, replyError=DefaultParser.parse_error, notEnoughData=_MORE
        )
        transport = connection._writer.transport  # the one thing taken of redis-py that has no public name
        self._transport: asyncio.Transport = transport
        self._before: asyncio.Protocol = transport.get_protocol()
        transport.set_protocol(self)

    @classmethod
    async def open(cls, client: redis.asyncio.Redis) -> Self:
        """Take a connection of a client, made where there is none. Raises `redis.RedisError`, OSError."""
        pool = client.connection_pool
        connection = await pool.get_connection()
        try:
            # A pool that expects maintenance notices (TCP, RESP3) hands out connections that have ended or hold unread
            # data; redis-py has been notified of that, and would not notify us again.
            if connection._writer.transport.is_closing() or await connection.can_read():
                await connection.disconnect(nowait=True)
                await connection.connect()
            return cls(pool, connection)
        except BaseException:
            await pool.release(connection)
            raise

    def on_answer(self, answer: Any) -> None:
        """An answer or a push: bytes, numbers, lists; errors as instances of `redis.ResponseError`."""
        raise NotImplementedError

    def on_closed(self, error: redis.RedisError) -> None:
        """Nothing more will come: the connection was lost, or closed by `aclose`. Told once."""
        raise NotImplementedError

    def send(self, *command: Any) -> None:
        """Send a command, without waiting. Raises `redis.DataError` for an argument that cannot be sent."""
        packed = self._connection.pack_command(*command)
        if not self._transport.is_closing():  # else `on_closed` is about to be told; uvloop raises RuntimeError
            self._transport.writelines(packed)

    def fail(self, error: redis.RedisError) -> None:
        """End it, for this reason."""
        if self.error is None:
            self.error = error
            self.on_closed(error)

    async def aclose(self) -> None:
        """Close it, and release redis-py's connection to the pool. What has not been sent yet is dropped."""
        self._transport.abort()
        try:
            await self._connection.disconnect(nowait=True)
        finally:
            await self._pool.release(self._connection)

    # -- what the loop calls

    def data_received(self, data: bytes) -> None:
        """Bytes from the server."""
        parser = self._parser
        parser.feed(data)
        try:
            while (answer := parser.gets()) is not _MORE:
                self.on_answer(answer)
        except redis.InvalidResponse as error:
            self.fail(redis.ConnectionError(f"The server sent invalid RESP: {error}"))
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """The end of the socket."""
        self._before.connection_lost(error)  # redis-py may wait for it
        self.fail(redis.ConnectionError(f"Connection lost: {error}" if error else _CLOSED))


class _Calls(Link):
    """One call at a time."""

    def __init__(self, pool: Any, connection: Any) -> None:
        super().__init__(pool, connection)
        self._waiter: asyncio.Future[Any] | None = None
        self._timeout_of_call = ReusableTimeout(lambda: self.fail(redis.TimeoutError("No answer in time.")))

    async def call(self, command: Sequence[Any], timeout: float) -> Any:
        """Send a command and wait for its answer, an error among them."""
        self._timeout_of_call.start(timeout)
        self._waiter = asyncio.get_running_loop().create_future()
        self.send(*command)
        answer = await self._waiter
        self._timeout_of_call.stop()
        return answer

    def on_answer(self, answer: Any) -> None:
        if self._waiter is not None and not self._waiter.done() and not isinstance(answer, hiredis.PushNotification):
            self._waiter.set_result(answer)

    def on_closed(self, error: redis.RedisError) -> None:
        self.on_answer(error)

    async def aclose(self) -> None:
        self._timeout_of_call.close()
        await super().aclose()


class ExclusiveConnection:
    """A connection of an asyncio client, made when first used; one call at a time."""

    def __init__(self, client: redis.asyncio.Redis, timeout: float) -> None:
        """``timeout``: of a call in seconds, and of making the connection."""
        self._client = client
        self._timeout = timeout
        self._link: _Calls | None = None

    async def call(self, *command: Any) -> Any:
        """Send a command and wait for its answer. Raises `redis.RedisError`, OSError (TimeoutError is one).

        After any failure, cancellation included, the connection is closed: what it would still answer must not be
        taken for the next call's answer, and a server that refuses may be the wrong one by now.
        """
        if self._link is not None and self._link.error is not None:  # lost while nobody waited
            await self.aclose()
        try:
            if self._link is None:
                async with asyncio.timeout(self._timeout):
                    self._link = await _Calls.open(self._client)
            answer = await self._link.call(command, self._timeout)
            if isinstance(answer, redis.RedisError):
                raise answer
            return answer
        except redis.exceptions.NoScriptError:
            raise
        except BaseException:
            await self.aclose()
            raise

    async def script(self, script: AsyncScript, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        """Run a registered script, loading it where the server does not have it (any more)."""
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            await self.call("SCRIPT", "LOAD", script.script)
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *args)

    async def aclose(self) -> None:
        """Give the connection up; the next call makes another."""
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()
