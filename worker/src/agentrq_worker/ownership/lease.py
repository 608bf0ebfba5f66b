"""The worker's lease: taken, renewed, given back.

Owns its key and its token. Does not own when it is renewed (ownership.py).
"""

from __future__ import annotations

import asyncio
import logging
import secrets

import redis.asyncio

from agentrq.script_runner import AsyncScriptRunner
from agentrq.wire import owner_calls
from agentrq_worker.ownership.neighbours import Neighbours
from agentrq_worker.redis_retry import retry_outages
from agentrq_worker.settings import Settings

log = logging.getLogger(__name__)


class NameTaken(Exception):
    """Another live worker has this name."""


class Lease:
    """One process's claim to a worker's name."""

    def __init__(self, client: redis.asyncio.Redis, settings: Settings) -> None:
        self.name = settings.worker_name
        self.token = secrets.token_hex(16)
        """New in each process: a worker with a name that was used before never passes for the earlier one."""
        self.neighbours = Neighbours(client, settings.keys, self.name, self.token)
        self._client = client
        self._scripts = AsyncScriptRunner(client)
        self._settings = settings
        self._keys = settings.keys
        self._renewing = asyncio.Lock()
        self._ended = False

    async def begin(self) -> None:
        """Take the lease; raises `NameTaken`.

        The lease of an earlier worker with this name is given back where its process has ended on this machine; else it
        has to run out.
        """
        key, lease = self._keys.worker(self.name), int(self._settings.lease_s * 1000)
        left: int | None = None
        while not await self._client.set(key, self.token, nx=True, px=lease):
            before, left = left, await self._client.pttl(key)
            if await self._client.get(key) == self.token.encode():
                return
            if left < 0 or (before is not None and left > before):
                raise NameTaken(f"There is a live worker named {self.name!r} already: choose another --name")
            if before is None:
                if await self.neighbours.release_if_ended(self.name):
                    continue
                log.info(
                    "the name %s is held for %.1f s more, perhaps by a worker that died: waiting",
                    self.name,
                    left / 1000,
                )
            await asyncio.sleep(min(left / 1000 + 0.01, 0.5))

    async def end(self) -> None:
        """Give it back, if it is still ours; a renewal that is under way or comes later does not take it again."""
        async with self._renewing:
            self._ended = True
            call = owner_calls.release_lease(self._keys, self.name, self.token)
            await retry_outages(lambda: self._scripts.run(call))
            await retry_outages(self.neighbours.unregister)

    async def renew(self) -> None:
        """Extend the lease to its full length. Raises `NameTaken` if another process has taken the name meanwhile."""
        async with self._renewing:
            if self._ended:
                return
            call = owner_calls.renew_lease(self._keys, self.name, self.token, self._settings.lease_s)
            ours = await retry_outages(lambda: self._scripts.run(call))
        if not ours:
            raise NameTaken(f"Another process has taken the name {self.name!r} while this one stood still")
