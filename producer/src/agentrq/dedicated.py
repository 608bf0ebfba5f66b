"""One connection kept for one user, past redis-py's pool and retries: for what is called thousands of times a second.

Owns taking it from a client's pool, giving it up when anything went wrong, and scripts by their digest. Retries are
the caller's. (A command through the pool takes some 100 us of Python, one here some 30.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
import redis.asyncio
from redis.commands.core import AsyncScript


class Dedicated:
    """A connection of an asyncio client, made when first used; one call at a time."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._pool = client.connection_pool
        self._connection: Any = None

    async def call(self, *command: Any) -> Any:
        """Send a command and wait for its answer. Raises `redis.RedisError`, OSError.

        After any failure, cancellation included, the connection is closed: what it would still answer must not be
        taken for the next call's answer, and a server that refuses may be the wrong one by now.
        """
        if self._connection is None:
            self._connection = await self._pool.get_connection()
        connection = self._connection
        try:
            await connection.send_packed_command(connection.pack_command(*command), check_health=False)
            return await connection.read_response()
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
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)
