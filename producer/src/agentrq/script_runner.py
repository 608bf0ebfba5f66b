"""Runs the atomic steps on a redis-py client: by digest, loaded where the server does not have them, answers typed.

Owns no connection and no retry.
"""

from __future__ import annotations

from typing import Any, TypeVar

import redis
import redis.asyncio

from agentrq.wire.script_calls import ScriptCall
from agentrq.wire.scripts import SOURCES

T = TypeVar("T")


class ScriptRunner:
    """The scripts on a synchronous client."""

    def __init__(self, client: redis.Redis) -> None:
        self._scripts = {name: client.register_script(source) for name, source in SOURCES.items()}

    def run(self, call: ScriptCall[T]) -> T:
        """Run one call. Raises what redis-py does, and ValueError where the answer cannot be read."""
        return call.read(self._scripts[call.script](keys=list(call.keys), args=list(call.args)))


class AsyncScriptRunner:
    """The scripts on an asyncio client."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._scripts = {name: client.register_script(source) for name, source in SOURCES.items()}

    async def run(self, call: ScriptCall[T]) -> T:
        """Like `ScriptRunner.run`."""
        answer: Any = await self._scripts[call.script](keys=list(call.keys), args=list(call.args))
        return call.read(answer)
