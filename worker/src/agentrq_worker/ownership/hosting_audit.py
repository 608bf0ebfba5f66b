"""Finds the sessions that this worker owns by Redis and does not host, and settles them: a live lease is not service.

They come from a Redis that lost its last writes: an end, a hand-over, another owner's claim. One whose end is
remembered here ends so again; any other is released, and recovered by whichever worker takes it.
Does not own sessions without an owner (recovery_scanner.py).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import Any, Final

import redis
import redis.asyncio

from agentrq.connection import is_outage
from agentrq.wire import owner_calls
from agentrq.wire.ids import is_session_id
from agentrq_worker.ownership.ownership import Ownership
from agentrq_worker.redis_retry import CALL_TIMEOUT_S
from agentrq_worker.settings import Settings

log = logging.getLogger(__name__)

AUDIT_S: Final = 5.0
"""Between two rounds; a session is settled in the second round that finds it."""
PAGE: Final = 500


class HostingAudit:
    """Compares what one worker owns in Redis with what it hosts."""

    def __init__(self, client: redis.asyncio.Redis, ownership: Ownership, settings: Settings) -> None:
        self._client = client
        self._ownership = ownership
        self._keys = settings.keys
        self._suspects: set[str] = set()

    async def run(self) -> None:
        """Repeat the audit until cancelled; errors are logged."""
        while True:
            await asyncio.sleep(AUDIT_S)
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S * 3):
                    await self.audit_once()
            except (redis.RedisError, OSError) as error:
                if not is_outage(error):
                    log.warning("the audit of owned sessions failed: %s", error)

    async def audit_once(self) -> None:
        """One round: settle what the last round found too."""
        found = await self._find_unhosted()
        for session_id in found & self._suspects:
            await self._settle(session_id)
        self._suspects = found

    async def _find_unhosted(self) -> set[str]:
        found: set[str] = set()
        for at in itertools.count(0, PAGE):
            members: Any = await self._client.zrange(self._keys.live, at, at + PAGE - 1)
            ids = [sid.decode() for sid in members if is_session_id(sid)]
            ids = [sid for sid in ids if not self._is_hosted(sid)]
            if ids:
                call = owner_calls.find_owned_sessions(self._keys, ids, self._ownership.token)
                found.update(await self._ownership.run_script(call))
            if len(members) < PAGE:
                break
        return {sid for sid in found if not self._is_hosted(sid)}  # some are hosted by now

    def _is_hosted(self, session_id: str) -> bool:
        return session_id in self._ownership.sessions or session_id in self._ownership.claiming

    async def _settle(self, session_id: str) -> None:
        snapshot = await self._ownership.fetch_session(session_id)
        if snapshot is None or snapshot.inner.token != self._ownership.token or snapshot.state.ended:
            return
        end = self._ownership.remembered_end(snapshot)
        if end is not None:
            log.warning("session %s: Redis lost its end, which is written again", session_id)
            await self._ownership.end_session(snapshot, *end)
        else:
            log.warning("session %s: owned by this worker in Redis and not hosted here: released", session_id)
            await self._ownership.release_session(snapshot)
