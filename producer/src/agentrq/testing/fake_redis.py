"""A server in this process for tests: fakeredis with the product's own scripts in its Lua, and clients on it.

Owns what fakeredis does otherwise than Redis and the clients need: scripts' flags, and the asyncio subscription, which
has no socket here. docs/how-to/test-your-backend.md says what fakeredis cannot do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import fakeredis
import redis
import redis.asyncio

from agentrq.client import AgentClient, AsyncAgentClient
from agentrq.client.pubsub_hub import PubSubHub
from agentrq.client.redis_requests import Context


def _without_flags(script: str | bytes) -> str:
    """The script without its first line where that says flags: fakeredis's memory is never full."""
    source = script.decode() if isinstance(script, bytes) else script
    return source.partition("\n")[2] if source.startswith("#!") else source


def _without_script_flags(client: Any) -> Any:
    """The client, whose scripts are registered without flags."""
    register = client.register_script
    client.register_script = lambda script: register(_without_flags(script))
    return client


class _HintConnection:
    """The connection that brings hints, as pubsub_hub.py wants it."""

    def __init__(self, pool: Any, connection: Any) -> None:
        self.error: redis.RedisError | None = None
        self.heard_at = time.monotonic()
        self.ended = asyncio.Event()
        self.on_push: Callable[[bytes, Any, Any], None] = lambda *_: None
        self._pool = pool
        self._connection = connection
        # It lives as long as the hub's own task, which closes it.
        self._task = asyncio.get_running_loop().create_task(self._read(), name="agentrq-fake-hints")

    @classmethod
    async def open(cls, client: Any) -> _HintConnection:
        pool = client.connection_pool
        return cls(pool, await pool.get_connection())

    def send(self, *command: Any) -> None:
        """Send a command, without waiting."""
        self._connection._writer.writelines(self._connection.pack_command(*command))

    async def aclose(self) -> None:
        """Close it."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._connection.disconnect()
        await self._pool.release(self._connection)

    async def _read(self) -> None:
        try:
            while True:
                answer = await self._connection.read_response(timeout=None)
                self.heard_at = time.monotonic()
                if isinstance(answer, list) and len(answer) == 3:
                    self.on_push(*answer)
        except redis.RedisError as error:
            self.error = error
            self.ended.set()


class FakeRedis:
    """An empty server of a test's own. ``redis``: a plain redis-py client of it, for what the test looks at itself."""

    def __init__(self, context: Context | None = None) -> None:
        """``context``: names and times of its clients; as their environment says if it is None."""
        self.context = context or Context.from_environment()
        self._server = fakeredis.FakeServer()
        self.redis = self._sync()

    def client(self) -> AgentClient:
        """A synchronous client."""
        return AgentClient(self._sync(), self._sync(), self.context)

    def async_client(self) -> AsyncAgentClient:
        """An asyncio client, for one event loop."""
        live = self._async()
        hub = PubSubHub(live, self.context.keys, _HintConnection.open)
        return AsyncAgentClient(self._async(), live, self.context, hub=hub)

    def _sync(self) -> redis.Redis:
        client: redis.Redis = _without_script_flags(fakeredis.FakeRedis(server=self._server))
        return client

    def _async(self) -> redis.asyncio.Redis:
        client: redis.asyncio.Redis = _without_script_flags(fakeredis.FakeAsyncRedis(server=self._server))
        return client
