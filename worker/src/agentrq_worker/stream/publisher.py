"""Writes the events of all sessions of one worker: each call of one script takes what came while others were under way.

Owns the batches, the retries while Redis is away, and what the answers mean. Does not own the events (event_log.py),
where they wait (buffer.py), nor the comparison with what Redis kept (loss_check.py).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import deque
from typing import Any, Final, TypeAlias

import redis
import redis.asyncio

from agentrq.exclusive_connection import ExclusiveConnection
from agentrq.wire import scripts
from agentrq.wire.ids import Cursor
from agentrq.wire.owner_calls import EventWrites, WriteAnswer, WriteLimits
from agentrq_worker.logs import event
from agentrq_worker.measurements import Measurements
from agentrq_worker.redis_clock import RedisClock
from agentrq_worker.redis_retry import retry_delay, retry_outages
from agentrq_worker.settings import Settings
from agentrq_worker.stream.buffer_budget import BufferBudget
from agentrq_worker.stream.entry import Entry
from agentrq_worker.stream.event_log import EventLog
from agentrq_worker.stream.loss_check import LossCheck
from agentrq_worker.stream.read_throttle import ReadThrottle

log = logging.getLogger(__name__)

Batch: TypeAlias = list[tuple[EventLog, list[Entry]]]
"""The entries of one call, by session."""

BATCH_EVENTS: Final = 512
BATCH_BYTES: Final = 96 * 1024
"""A call has to fit into the socket in one go: the rest of a larger one would wait for the loop's next round."""
WRITERS: Final = 3
"""Calls under way at most: Redis works on the next two while this loop reads one answer and makes another call."""
FEW_EVENTS: Final = 8
"""With fewer under way, a new event does not wait for their answer: a lone event costs a call in any case."""
MUCH_BYTES: Final = 2 * BATCH_BYTES
"""With more waiting, written or not, Redis and this loop work at the same time. In between, one call at a time makes
the batches large."""
TURN_EVENTS: Final = 64
"""Events of one session in a row before the next session has its turn: a backlog starves nobody."""
CALL_TIMEOUT_S: Final = 15.0


class Publisher:
    """Writes the event logs of one worker.

    More than one call is under way while there is little to do (FEW_EVENTS) or much (MUCH_BYTES), each for other
    sessions.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        settings: Settings,
        clock: RedisClock | None = None,
        measurements: Measurements | None = None,
    ) -> None:
        self.keys = settings.keys
        self._clock = clock or RedisClock()
        self.shares = BufferBudget(settings.max_pending, settings.max_spool, settings.spool_path)
        self.away_since: float | None = None
        """Since when (monotonic) Redis accepts no events; None while it does."""
        self.measurements = measurements or Measurements()
        self._client = client
        self._write_events = client.register_script(scripts.SOURCES["write_events"])
        self._write_ends = client.register_script(scripts.SOURCES["write_ends"])
        self._memory_full = False
        """Redis refused events for want of memory: sessions that end are written apart, by a script it runs anyway."""
        self._limits = WriteLimits(settings.max_events, settings.max_event_bytes, int(settings.retention_s * 1000))
        self._losses = LossCheck(client, settings, self._acquire, self._release)
        self._dirty: deque[EventLog] = deque()
        self._queued: set[EventLog] = set()
        """Logs in ``_dirty``, or held by a call under way or the loss check, which alone touches what waits there."""
        self._under_way = 0
        """Events in calls under way."""
        self._work = asyncio.Event()
        self._more_work = asyncio.Event()
        self._throttle = ReadThrottle(self.shares)

    def open_log(self, session_id: str, cursor: Cursor, state: dict[str, Any]) -> EventLog:
        """A log for a session claimed at ``cursor`` (the last event written so far); ``state`` as in `Claim`."""
        event_log = EventLog(self.keys, session_id, cursor, state, self.shares, self.wake, self._clock)
        event_log.has_read = functools.partial(self._throttle.hold_if_behind, event_log)
        self._losses.add(event_log)
        return event_log

    def wake(self, event_log: EventLog) -> None:
        """Write what waits in this log."""
        if event_log not in self._queued:
            self._queued.add(event_log)
            self._dirty.append(event_log)
            self._work.set()
            if self._under_way and self._may_write():
                self._more_work.set()

    def _may_write(self) -> bool:
        """Whether a call may be made, beside those that are under way if any are."""
        return self._under_way < FEW_EVENTS or self.shares.memory > MUCH_BYTES

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write_from(self._work), name="writer")
            for number in range(2, WRITERS + 1):
                group.create_task(self._write_from(self._more_work), name=f"writer {number}")
            group.create_task(self._losses.run(), name="what Redis lost")

    async def _write_from(self, work: asyncio.Event) -> None:
        """One writer; ``work`` wakes it. Events that may not be written yet are taken when a call under way ends."""
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

    def _collect_batch(self) -> tuple[Batch, int]:
        """The next batch, and how many events it has: logs in turn, bounded in events and bytes."""
        batch: Batch = []
        events = size = 0
        turn = max(TURN_EVENTS, 2 * BATCH_EVENTS // (len(self._dirty) or 1))
        if self._memory_full:  # first those that end: nothing else is accepted
            self._dirty = deque(sorted(self._dirty, key=lambda event_log: not event_log.ends_in_short))
        for _ in range(len(self._dirty)):
            if self._memory_full and batch and batch[0][0].ends_in_short and not self._dirty[0].ends_in_short:
                break
            event_log = self._dirty.popleft()
            room = min(BATCH_EVENTS - events, turn)
            entries = event_log.waiting.peek(room, BATCH_BYTES - size)
            if not entries:
                self._queued.discard(event_log)
            else:
                batch.append((event_log, entries))
                for entry in entries:
                    events += len(entry.jsons)
                    size += entry.size
            if events >= BATCH_EVENTS or size >= BATCH_BYTES:
                break
        return batch, events

    async def _write_batch(self, batch: Batch, own: ExclusiveConnection) -> None:
        """Write a batch, however long Redis is away; one that finds no memory in Redis goes back."""
        try:
            began = time.monotonic()
            call = functools.partial(self._call_script, batch, own)
            answers = await retry_outages(call, timeout_s=None, on_outage=self._note_outage)
        except (redis.RedisError, OSError) as error:
            await self._handle_refusal(batch, own, error)
            return
        if answers is None:
            await asyncio.sleep(retry_delay(3))
            for event_log, _ in batch:
                self._release(event_log)
            return
        if self.away_since is not None and not self._memory_full:
            away_s = time.monotonic() - self.away_since
            log.warning("Redis accepts events again after %.1f s", away_s,
                        extra=event("redis_available", seconds=round(away_s, 1)))  # fmt: skip
            self.away_since = None
        now = time.monotonic()
        self.measurements.publish.add(now - began)
        events = size = 0
        for (event_log, entries), (outcome, cursor) in zip(batch, answers, strict=True):
            try:
                if self._apply_outcome(event_log, entries, outcome, cursor, now):
                    for entry in entries:
                        events += len(entry.jsons)
                        size += entry.size
            except ValueError as error:
                self._losses.mark_unreadable(event_log, error)
            self._release(event_log)
        self.measurements.events.add(amount=events)
        self.measurements.bytes.add(amount=size)
        self._throttle.resume_when_written()

    def _note_outage(self, error: Exception) -> None:
        if self.away_since is None:
            self.away_since = time.monotonic()
            log.warning("Redis unavailable, buffering events: %s", error, extra=event("redis_unavailable"))

    async def _call_script(self, batch: Batch, own: ExclusiveConnection) -> list[WriteAnswer] | None:
        """The answers of one call; None where Redis has no memory left for it."""
        for event_log, _ in batch:
            if event_log.unknown_to_redis:
                try:
                    await self._losses.restore(event_log, missing=event_log.missing_in_redis)
                except ValueError as error:
                    self._losses.mark_unreadable(event_log, error)
        writes = EventWrites(self._limits, self._clock.now_ms())
        for event_log, entries in batch:
            fields: dict[str, Any] = {}
            for entry in entries:
                if entry.fields:
                    fields |= entry.fields
            writes.add(event_log.target, fields, entries, quick=event_log.runs)
        ends = self._memory_full and all(event_log.ends_in_short for event_log, _ in batch)
        try:
            answer = await own.script(self._write_ends if ends else self._write_events, writes.keys, writes.args)
        except redis.exceptions.OutOfMemoryError as error:
            self._memory_full = True
            self._note_outage(error)
            return None
        if not ends:
            self._memory_full = False
        return writes.read(answer)

    async def _handle_refusal(self, batch: Batch, own: ExclusiveConnection, error: Exception) -> None:
        """Redis refuses the whole call: write its sessions one by one, so that only the one it refuses is lost."""
        if len(batch) > 1:
            for part in batch:
                await self._write_batch([part], own)
            return
        event_log = batch[0][0]
        log.error("session %s: Redis refuses its events: %s", event_log.session_id, error)
        event_log.mark_lost("refused")
        self._release(event_log)

    def _apply_outcome(self, event_log: EventLog, entries: list[Entry], outcome: str, cursor: str, now: float) -> bool:
        """What an answer means for a log; True if the entries are written."""
        if event_log.lost is not None:
            return False
        if outcome == "ok" or (outcome == "ended" and entries[-1].kind == "e"):
            event_log.confirm(entries, now)
            return True
        if outcome == "left":
            event_log.runs = False  # until its status is written again
        elif outcome == "gap":
            event_log.repair(Cursor.parse(cursor))
        elif outcome in ("missing", "behind"):
            event_log.unknown_to_redis, event_log.missing_in_redis = True, outcome == "missing"
        else:
            log.warning(
                "session %s: superseded, another owner writes it now (%s, the stream ends at %s)",
                event_log.session_id,
                outcome,
                cursor,
            )
            self.measurements.fenced.add()
            event_log.mark_lost(outcome)
        return False

    def _acquire(self, event_log: EventLog) -> bool:
        if event_log in self._queued:
            return False
        self._queued.add(event_log)
        return True

    def _release(self, event_log: EventLog) -> None:
        """A call, or the loss check, has done with a log: the next may take it."""
        self._queued.discard(event_log)
        if event_log.waiting:
            self.wake(event_log)
