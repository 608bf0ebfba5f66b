"""Keeps the indexes of sessions true: new sessions get in, those that are gone get out, what was lost is written again.

Owns how much of that one round does: it grows with what starts and expires, not with what is kept. What an index holds
is the scripts' matter (scripts/index.lua), who has ended ownership/recovery_scanner.py's.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, Final

import redis.asyncio

from agentrq.wire import script_calls
from agentrq.wire.ids import is_session_id
from agentrq_worker.ownership.ownership import Ownership
from agentrq_worker.settings import Settings

log = logging.getLogger(__name__)

PAGE: Final = 500
LOOK_BACK_MS: Final = 1000
"""Sessions that started so long before the newest indexed one are looked at again: clocks of Redis servers differ."""
CHECKED: Final = 100
"""Sessions that a round checks at least, wherever the round before stopped."""
FORGET_MS: Final = 60_000
"""A session that has started since then is not taken out, whatever is missing of it."""


class SessionIndex:
    """The share of one worker in keeping the indexes, while it is the one that scans."""

    def __init__(self, client: redis.asyncio.Redis, ownership: Ownership, settings: Settings) -> None:
        self._client = client
        self._ownership = ownership
        self._settings = settings
        self._keys = settings.keys
        self._rank = 0
        """Where in the set of all sessions the next check begins."""
        self._scan: int = 0
        """Where in the hash of what is indexed it begins."""

    async def index_new_sessions(self) -> None:
        """Index what has started since the last round; all sessions where Redis has no index."""
        run = self._ownership.run_script
        more = await run(script_calls.index_new_sessions(self._keys, PAGE, LOOK_BACK_MS))
        while more:
            more = await run(script_calls.index_new_sessions(self._keys, PAGE))

    async def settle(self, session_ids: Sequence[str]) -> None:
        """Take sessions that have ended, and whose ends have been seen to, out of the living."""
        for at in range(0, len(session_ids), PAGE):
            page = session_ids[at : at + PAGE]
            await self._ownership.run_script(script_calls.index_sessions(self._keys, page, settled=True))

    async def prune(self, session_ids: Sequence[str]) -> None:
        """Take sessions without a state out of all indexes."""
        if session_ids:
            await self._ownership.run_script(script_calls.prune_index(self._keys, session_ids))

    async def check_some(self) -> None:
        """Check some sessions of all, each at least once in the time that an ended one is kept."""
        total = await self._client.zcard(self._keys.sessions)
        count = max(CHECKED, math.ceil(2 * total * self._settings.beat_s / self._settings.retention_s))
        members: Any = await self._client.zrange(
            self._keys.sessions, self._rank, self._rank + count - 1, withscores=True
        )
        self._rank = 0 if len(members) < count else self._rank + count
        indexed: Any
        self._scan, indexed = await self._client.hscan(self._keys.indexed, self._scan, count=count)
        invalid = [sid for sid, _ in members if not is_session_id(sid)]
        if invalid:
            log.warning("%d names in %s are not valid session ids and are dropped", len(invalid), self._keys.sessions)
            await self._client.zrem(self._keys.sessions, *invalid)
        starts = {sid: float(named.split(b" ", 1)[0]) for sid, named in indexed.items()} | dict(members)
        known = {sid.decode(): start for sid, start in starts.items() if is_session_id(sid)}
        before = self._ownership.clock.now_ms() - FORGET_MS
        await self.prune([sid for sid, start in known.items() if start < before])
        if known:
            await self._ownership.run_script(script_calls.index_sessions(self._keys, list(known), again=True))
