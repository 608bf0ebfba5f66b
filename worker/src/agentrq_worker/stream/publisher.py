"""From lanes to Redis: collects what a loop tick produced for all sessions and writes it in one script.

Owns the writing: batches, retries while Redis is away, what its answers mean, and the look whether Redis still has
what it took. Does not own the events (event_log.py) nor where they wait (stream/buffer.py).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from collections import deque
from typing import Any, Final

import redis.asyncio

from agentrq.connection import is_outage
from agentrq.exclusive_connection import ExclusiveConnection
from agentrq.script_runner import AsyncScriptRunner
from agentrq.wire import owner_calls, script_calls, scripts
from agentrq.wire.ids import Cursor
from agentrq.wire.owner_calls import ChangedSession, WriteAnswer
from agentrq.wire.status import ENDED
from agentrq_worker.redis_retry import retry_outages
from agentrq_worker.settings import Settings
from agentrq_worker.stream.buffer_budget import BufferBudget
from agentrq_worker.stream.entry import Entry
from agentrq_worker.stream.event_log import KEPT_S, EventLog
from agentrq_worker.stream.read_throttle import ReadThrottle

log = logging.getLogger(__name__)

BATCH_EVENTS: Final = 512
BATCH_BYTES: Final = 96 * 1024
"""A call has to fit into the socket in one go: what does not, waits for the loop to come round again."""
WRITERS: Final = 3
"""Calls under way at most: Redis has the next two to do while this loop reads, and makes another."""
FEW_EVENTS: Final = 8
"""With fewer under way, what comes does not wait for their answer: a lone event costs a call in any case."""
MUCH_BYTES: Final = 2 * BATCH_BYTES
"""With more waiting, written or not, Redis and this loop work at the same time. In between, one call at a time makes
the batches large."""
TURN_EVENTS: Final = 64
"""Events of one session in a row before the next session has its turn: a backlog starves nobody."""
CALL_TIMEOUT_S: Final = 15.0
CHECK_S: Final = 2.5
"""How often it is looked whether Redis still has what it took, in seconds."""
CHECK_LANES: Final = 500
TICK_S: Final = 1.0
THAWED_S: Final = 15.0
"""For so long after a standstill a session that Redis does not know is taken for removed, not for lost by Redis."""


class Publisher:
    """Writes the lanes of one worker: the next call takes all that came while one was under way.

    More than one are under way while there is little to do (FEW_EVENTS) or much (MUCH_BYTES), each for other sessions.
    """

    def __init__(self, client: redis.asyncio.Redis, settings: Settings) -> None:
        self.keys = settings.keys
        self.shares = BufferBudget(settings.max_pending, settings.max_spool, settings.spool_path)
        self.away_since: float | None = None
        """Since when (monotonic) Redis takes nothing; None while it does."""
        self.events_written = 0
        self._client = client
        self._write_events = client.register_script(scripts.SOURCES["write_events"])
        self._scripts = AsyncScriptRunner(client)
        self._common = (settings.max_events, settings.max_event_bytes, int(settings.retention_s * 1000))
        self._lanes: set[EventLog] = set()
        self._dirty: deque[EventLog] = deque()
        self._queued: set[EventLog] = set()
        """Those in ``_dirty``, and those that a call under way or a look has: it alone touches what waits in them."""
        self._under_way = 0
        """Events in calls under way."""
        self._work = asyncio.Event()
        self._more_work = asyncio.Event()
        self._throttle = ReadThrottle(self.shares)
        self._lease_s = settings.lease_s
        self._ticked = time.monotonic()
        self._thawed = -math.inf
        """When this process went on after it had stood still for longer than its lease."""

    def open_log(self, session_id: str, cursor: Cursor, state: dict[str, Any]) -> EventLog:
        """A lane for a session claimed at ``cursor`` (the last event written so far); ``state`` as in `Claim`."""
        lane = EventLog(self.keys, session_id, cursor, state, self.shares, self.wake)
        lane.has_read = functools.partial(self._throttle.hold_if_behind, lane)
        self._lanes.add(lane)
        return lane

    def wake(self, lane: EventLog) -> None:
        """The lane has something to write."""
        if lane not in self._queued:
            self._queued.add(lane)
            self._dirty.append(lane)
            self._work.set()
            if self._under_way and self._may_write():
                self._more_work.set()

    def _may_write(self) -> bool:
        """Whether a call may be made, beside those that are under way if any are."""
        return self._under_way < FEW_EVENTS or self.shares.memory > MUCH_BYTES

    async def run(self) -> None:
        """Write until cancelled."""
        self._ticked = time.monotonic()  # what came before it ran was no standstill
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write_from(self._work), name="writer")
            for number in range(2, WRITERS + 1):
                group.create_task(self._write_from(self._more_work), name=f"writer {number}")
            group.create_task(self._check_regularly(), name="check of what Redis has")
            group.create_task(self._tick(), name="standstills")

    async def _tick(self) -> None:
        while True:
            self._stood_still_lately()
            await asyncio.sleep(TICK_S)

    def _stood_still_lately(self) -> bool:
        """Whether, not long ago, others may have taken, ended and removed what this process believes to own."""
        now = time.monotonic()
        if now - self._ticked > self._lease_s:
            self._thawed = now
        self._ticked = now
        return now - self._thawed < THAWED_S

    async def _write_from(self, work: asyncio.Event) -> None:
        """One writer; ``work`` wakes it. What may not be written yet is found by the last whose call ends."""
        own = ExclusiveConnection(self._client, CALL_TIMEOUT_S)
        try:
            while True:
                batch, events = self._collect_batch() if self._may_write() else ([], 0)
                if batch:
                    self._under_way += events
                    try:
                        await self._write_batch(batch, own)
                    finally:
                        self._under_way -= events
                else:
                    work.clear()
                    await work.wait()
        finally:
            await own.aclose()

    def _collect_batch(self) -> tuple[list[tuple[EventLog, list[Entry]]], int]:
        """The next batch, and how many events it has: lanes in turn, bounded in events and bytes."""
        batch: list[tuple[EventLog, list[Entry]]] = []
        events = size = 0
        turn = max(TURN_EVENTS, 2 * BATCH_EVENTS // (len(self._dirty) or 1))
        for _ in range(len(self._dirty)):
            lane = self._dirty.popleft()
            room = min(BATCH_EVENTS - events, turn)
            entries = lane.waiting.peek(room, BATCH_BYTES - size)
            if not entries:
                self._queued.discard(lane)
            else:
                batch.append((lane, entries))
                for entry in entries:
                    events += len(entry.jsons)
                    size += entry.size
            if events >= BATCH_EVENTS or size >= BATCH_BYTES:
                break
        return batch, events

    async def _write_batch(self, batch: list[tuple[EventLog, list[Entry]]], own: ExclusiveConnection) -> None:
        """Write a batch, however long Redis is away."""
        try:
            call = functools.partial(self._call_script, batch, own)
            answers = await retry_outages(call, timeout_s=None, on_outage=self._note_outage)
        except (redis.RedisError, OSError) as error:
            await self._handle_refusal(batch, own, error)
            return
        if self.away_since is not None:
            log.warning("Redis accepts events again after %.1f s", time.monotonic() - self.away_since)
            self.away_since = None
        for (lane, entries), (outcome, cursor) in zip(batch, answers, strict=True):
            try:
                self._apply_outcome(lane, entries, outcome, cursor)
            except ValueError as error:
                self._mark_unreadable(lane, error)
            self._free_log(lane)
        self._throttle.resume_when_written()

    def _note_outage(self, error: Exception) -> None:
        if self.away_since is None:
            self.away_since = time.monotonic()
            log.warning("Redis unavailable, buffering events: %s", error)

    async def _call_script(
        self, batch: list[tuple[EventLog, list[Entry]]], own: ExclusiveConnection
    ) -> list[WriteAnswer]:
        for lane, _ in batch:
            if lane.unknown_to_redis and self._stood_still_lately():
                lane.mark_lost("removed")
            elif lane.unknown_to_redis:
                try:
                    await self._restore_session(lane)
                except ValueError as error:
                    self._mark_unreadable(lane, error)
        keys: list[str] = []
        args: list[Any] = [*self._common, script_calls.now_ms()]
        for lane, entries in batch:
            keys += lane.keys
            fields: dict[str, Any] = {}
            for entry in entries:
                if entry.fields:
                    fields |= entry.fields
            args += owner_calls.write_arguments(lane.session_id, lane.epoch, lane.claim, lane.channels, fields, entries)
        return owner_calls.read_write_answers(await own.script(self._write_events, keys, args))

    async def _restore_session(self, lane: EventLog) -> Cursor | None:
        """Where its stream stands in Redis then; None: it was removed, and is lost here."""
        call = owner_calls.restore_session(self.keys, lane.session_id, lane.epoch, lane.state)
        async with asyncio.timeout(CALL_TIMEOUT_S):
            outcome, cursor = await self._scripts.run(call)
        lane.unknown_to_redis = False
        if outcome == "removed":
            lane.mark_lost(outcome)
            return None
        log.warning("session %s: Redis came back without it, it stands at %s (%s)", lane.session_id, cursor, outcome)
        return cursor

    async def _handle_refusal(
        self, batch: list[tuple[EventLog, list[Entry]]], own: ExclusiveConnection, error: Exception
    ) -> None:
        """Redis refuses the call itself: find the session it is about, so that the others go on."""
        if len(batch) > 1:
            for part in batch:
                await self._write_batch([part], own)
            return
        lane = batch[0][0]
        log.error("session %s: Redis refuses its events: %s", lane.session_id, error)
        lane.mark_lost("refused")
        self._free_log(lane)

    def _apply_outcome(self, lane: EventLog, entries: list[Entry], outcome: str, cursor: str) -> None:
        if lane.lost is not None:
            return
        if outcome == "ok" or (outcome == "ended" and entries[-1].kind == "e"):
            lane.confirm(entries)
            self.events_written += sum(len(entry.jsons) for entry in entries)
        elif outcome == "gap":
            lane.repair(Cursor.parse(cursor))
        elif outcome in ("missing", "behind"):
            lane.unknown_to_redis = True
        else:
            log.warning("session %s: superseded (%s, the stream stands at %s)", lane.session_id, outcome, cursor)
            lane.mark_lost(outcome)

    def _free_log(self, lane: EventLog) -> None:
        """A call, or a look, has done with a lane: it is free for the next one."""
        self._queued.discard(lane)
        if lane.waiting:
            self.wake(lane)

    # -- does Redis still have it?

    async def _check_regularly(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            await self._check()

    async def _check(self) -> None:
        """Find what Redis lost of sessions that have nothing to write now: it came back older, or without them."""
        # Those that have something to write find it by that.
        now = time.monotonic()
        self._lanes = {lane for lane in self._lanes
                       if lane.lost is None and not (lane.ended and lane.written_at < now - KEPT_S)}  # fmt: skip
        lanes = [lane for lane in self._lanes if not lane.waiting]
        for lane in lanes:
            lane.forget(now - KEPT_S)
        for at in range(0, len(lanes), CHECK_LANES):
            part = [(lane, lane.written) for lane in lanes[at : at + CHECK_LANES]]
            try:
                call = owner_calls.find_changed_sessions(
                    [(lane.keys[0], lane.claim, f"{lane.epoch}-{place}") for lane, place in part]
                )
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    changed = await self._scripts.run(call)
                for seen in changed:
                    lane, place = part[seen.number]
                    if not (lane.waiting or lane.lost or lane in self._queued) and lane.written == place:
                        await self._compare_safely(lane, seen)
            except (redis.RedisError, OSError) as error:
                if not is_outage(error):
                    log.error("what Redis has of the sessions here cannot be looked at: %s", error)
                return  # looked at again in the next round

    async def _compare_safely(self, lane: EventLog, seen: ChangedSession) -> None:
        """A state that somebody else wrote garbage into costs its session, not the worker."""
        self._queued.add(lane)
        try:
            await self._repair_difference(lane, seen)
        except ValueError as error:
            self._mark_unreadable(lane, error)
        finally:
            self._free_log(lane)

    def _mark_unreadable(self, lane: EventLog, error: Exception) -> None:
        log.error("session %s: its state cannot be read: %s", lane.session_id, error)
        lane.mark_lost("unreadable")

    async def _repair_difference(self, lane: EventLog, seen: ChangedSession) -> None:
        epoch = seen.epoch
        if epoch and seen.nonce != lane.state.get("nonce", ""):  # removed since, and its id used again: another session
            lane.mark_lost("removed")
            self._lanes.discard(lane)
        elif not epoch or int(epoch) < lane.epoch:
            if not epoch and self._stood_still_lately():
                lane.mark_lost("removed")
            elif epoch or not lane.ended:  # an ended session may have been removed
                stands = await self._restore_session(lane)
                if stands is not None:
                    lane.repair(stands)
        elif int(epoch) > lane.epoch or seen.claim != lane.claim:
            # The end of a session that others ended took the claim, and leaves a runner here.
            lane.mark_lost("ended" if seen.status in ENDED else "fenced")
        else:
            place = Cursor.parse(seen.cursor)
            if (place.seq if place.epoch == lane.epoch else 0) < lane.written:
                lane.repair(place)
