"""Finds what Redis lost of this worker's sessions, and has it written again: it came back older, or without them.

Owns the regular comparison, the restoring of a session's state, and when a session counts as removed instead of lost.
Does not own which events are written again (event_log.py) nor the writing (publisher.py).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Final

import redis
import redis.asyncio

from agentrq.connection import is_outage
from agentrq.script_runner import AsyncScriptRunner
from agentrq.wire import owner_calls
from agentrq.wire.ids import Cursor
from agentrq.wire.owner_calls import ChangedSession
from agentrq.wire.status import ENDED
from agentrq_worker.redis_retry import CALL_TIMEOUT_S
from agentrq_worker.settings import Settings
from agentrq_worker.stream.event_log import KEPT_S, EventLog

log = logging.getLogger(__name__)

CHECK_S: Final = 2.5
"""Between two comparisons, in seconds."""
CHECK_LOGS: Final = 500
"""Sessions compared in one call."""
ENDED_KEPT_S: Final = 60.0
"""An ended session is compared for this long after its end was written."""
TICK_S: Final = 1.0
THAWED_S: Final = 15.0
"""For this long after a standstill, a session that Redis does not know counts as removed and not as lost by Redis."""


class LossCheck:
    """Compares the sessions of one worker with what Redis has of them.

    ``acquire`` takes a log for this check alone, False where a call under way has it; ``release`` gives it back.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        settings: Settings,
        acquire: Callable[[EventLog], bool],
        release: Callable[[EventLog], None],
    ) -> None:
        self._scripts = AsyncScriptRunner(client)
        self._keys = settings.keys
        self._lease_s = settings.lease_s
        self._retention_s = settings.retention_s
        self._acquire = acquire
        self._release = release
        self._logs: set[EventLog] = set()
        self._ticked = time.monotonic()
        self._thawed = -math.inf
        """When this process went on after it had stood still for longer than its lease."""

    def add(self, event_log: EventLog) -> None:
        """Compare this session from now on, until it is lost here or has been over for `ENDED_KEPT_S`."""
        self._logs.add(event_log)

    async def run(self) -> None:
        """Compare regularly, until cancelled."""
        self._ticked = time.monotonic()  # what came before it ran was not a standstill
        async with asyncio.TaskGroup() as group:
            group.create_task(self._check_regularly(), name="loss check")
            group.create_task(self._tick(), name="standstills")

    async def _tick(self) -> None:
        while True:
            self._stood_still_lately()
            await asyncio.sleep(TICK_S)

    def _stood_still_lately(self) -> bool:
        """Whether others may have taken, ended and removed, not long ago, what this process believes to own."""
        now = time.monotonic()
        if now - self._ticked > self._lease_s:
            self._thawed = now
        self._ticked = now
        return now - self._thawed < THAWED_S

    async def _check_regularly(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            await self.check_once()

    async def check_once(self) -> None:
        """Compare the sessions that have nothing to write now; the others find a loss by their next write."""
        now = time.monotonic()
        ended_kept = min(ENDED_KEPT_S, self._retention_s)  # after its retention Redis has it no more by right
        self._logs = {each for each in self._logs
                      if each.lost is None and not (each.ended and each.written_at < now - ended_kept)}  # fmt: skip
        quiet = [each for each in self._logs if not each.waiting]
        for each in quiet:
            each.forget(now - KEPT_S)
        for at in range(0, len(quiet), CHECK_LOGS):
            part = [(each, each.written) for each in quiet[at : at + CHECK_LOGS]]
            places = [(each.target.keys[0], each.claim, f"{each.epoch}-{seq}") for each, seq in part]
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    changed = await self._scripts.run(owner_calls.find_changed_sessions(places))
                for seen in changed:
                    event_log, seq = part[seen.number]
                    if event_log.lost is None and event_log.written == seq:
                        await self._repair_if_free(event_log, seen)
            except (redis.RedisError, OSError) as error:
                if not is_outage(error):
                    log.error("the sessions here cannot be compared with Redis: %s", error)
                return  # the next round compares them

    async def _repair_if_free(self, event_log: EventLog, seen: ChangedSession) -> None:
        if event_log.waiting or not self._acquire(event_log):
            return
        try:
            await self._repair_difference(event_log, seen)
        except ValueError as error:  # another program's garbage in its state costs the session, not the worker
            self.mark_unreadable(event_log, error)
        finally:
            self._release(event_log)

    async def _repair_difference(self, event_log: EventLog, seen: ChangedSession) -> None:
        epoch = int(seen.epoch) if seen.epoch else None
        if epoch is None or epoch < event_log.epoch:
            stands = await self.restore(event_log, missing=epoch is None)
            if stands is not None:
                event_log.repair(stands)
        elif seen.nonce != event_log.state.get("nonce", ""):  # removed, and its id used again
            self._mark_removed(event_log)
        elif epoch > event_log.epoch or seen.claim != event_log.claim:
            # Where others ended the session they took the claim away, and its runner is still here.
            event_log.mark_lost("ended" if seen.status in ENDED else "fenced")
        else:
            place = Cursor.parse(seen.cursor)
            if (place.seq if place.epoch == event_log.epoch else 0) < event_log.written:
                event_log.repair(place)

    async def restore(self, event_log: EventLog, *, missing: bool) -> Cursor | None:
        """Write a session's state into a Redis that lost it; answers where its stream stands there.

        None: it was removed, and is marked lost. Raises ValueError where the stream's last id is not a cursor.
        """
        if missing and self._stood_still_lately():
            self._mark_removed(event_log)
            return None
        call = owner_calls.restore_session(self._keys, event_log.session_id, event_log.epoch, event_log.state)
        async with asyncio.timeout(CALL_TIMEOUT_S):
            outcome, cursor = await self._scripts.run(call)
        event_log.unknown_to_redis = False
        if outcome == "removed":
            self._mark_removed(event_log)
            return None
        log.warning("session %s: Redis lost writes (restart or failover); its stream now ends at %s (%s)",
                    event_log.session_id, cursor, outcome)  # fmt: skip
        return cursor

    def mark_unreadable(self, event_log: EventLog, error: Exception) -> None:
        """Nothing can be written of a session whose state cannot be read."""
        log.error("session %s: its state cannot be read: %s", event_log.session_id, error)
        event_log.mark_lost("unreadable")

    def _mark_removed(self, event_log: EventLog) -> None:
        event_log.mark_lost("removed")
        self._logs.discard(event_log)
