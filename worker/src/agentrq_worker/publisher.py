"""From drafts to Redis: collects what a loop tick produced for all sessions and writes it in one script.

Owns the events' places (epoch and sequence), their order, what waits while Redis is slow or away, and the answer to
a Redis that lost its tail. Does not own statuses (session.py) nor the memory that lies on disk (spool.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
import redis.asyncio

from agentrq.connection import is_outage
from agentrq.wire import scripts, steps
from agentrq.wire.codec import encode
from agentrq.wire.ids import Cursor
from agentrq.wire.messages import Error
from agentrq.wire.status import Reason, Status
from agentrq_worker.settings import Settings
from agentrq_worker.spool import Entry, Spool, SpoolFull

log = logging.getLogger(__name__)

BATCH_EVENTS: Final = 512
BATCH_BYTES: Final = 512 * 1024
TURN_EVENTS: Final = 64
"""Events of one session in a row before the next session has its turn: a backlog starves nobody."""
CALL_TIMEOUT_S: Final = 15.0
BACKOFF_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0)
KEPT_S: Final = 5.0
KEPT_BYTES: Final = 256 * 1024
"""Written events stay here for a while, should Redis come back without them (AOF everysec may lose 1 to 2 s)."""


class Lane:
    """The way of one owned session's events: numbered here, written in order by the publisher."""

    def __init__(self, publisher: Publisher, session_id: str, cursor: Cursor, token: str) -> None:
        self.session_id = session_id
        self.epoch = cursor.epoch
        self.token = token
        self.keys = steps.session_keys(publisher.keys, session_id)
        self.channels = (publisher.keys.messages_channel(session_id), publisher.keys.status_channel(session_id))
        self.pending: deque[Entry] = deque()
        self.spool: Spool | None = None
        self.written = cursor.seq
        self.lost: str | None = None
        """Why nothing more can be written (``fenced``, ``missing``, …); None while all is well."""
        self.on_lost: Callable[[str], None] = lambda _: None
        self.on_full: Callable[[bool], None] = lambda _: None
        self.ended = False
        self.unknown_to_redis = False
        """Redis came back without this session, or with an older one: it is given back before the next write."""
        self.state: dict[str, Any] = {}
        """What the state is to hold, as far as it is known here: for such a Redis."""
        self._then: deque[tuple[int, Callable[[], None]]] = deque()
        self._publisher = publisher
        self._seq = cursor.seq
        self._deltas = 0
        self._drained = asyncio.Event()
        self._recent: deque[tuple[float, Entry]] = deque()
        self._recent_bytes = 0
        self._head = f'","sessionId":"{session_id}","id":"{self.epoch}-'.encode()
        self._cursor = f'{{"cursor":"{self.epoch}-'.encode()

    # -- what the session says

    def message(
        self, kind: str, content: Any, parent_id: str | None = None, fields: dict[str, Any] | None = None
    ) -> None:
        """Add a message: ``content`` a struct, a JSON value or `msgspec.Raw`."""
        body = encode(content)
        seq = b"%d" % self._next()
        parts = (
            self._cursor, seq, self._head, seq, b'","type":"', kind.encode(),
            b'","parentId":' + encode(parent_id) if parent_id is not None else b'"',
            b',"timestamp":%d,"content":' % steps.now_ms(), body, b"}",
        )  # fmt: skip
        self._add(Entry("m", self._seq, b"".join(parts), fields=fields))

    def delta(self, kind: str, content: Any, parent_id: str | None = None) -> None:
        """Add a live-only message: published, not kept, without a cursor."""
        self._deltas += 1
        shown: dict[str, Any] = {"sessionId": self.session_id, "id": f"{self.epoch}-d{self._deltas}", "type": kind}
        if parent_id is not None:
            shown["parentId"] = parent_id
        shown |= {"timestamp": steps.now_ms(), "content": content}
        self._add(Entry("d", self._seq, encode(shown)))

    def status(self, status: Status, fields: dict[str, Any] | None = None) -> None:
        """Add a status that is no end."""
        event = {
            "cursor": f"{self.epoch}-{self._next()}",
            "sessionId": self.session_id,
            "status": status,
            "timestamp": steps.now_ms(),
        }
        self._add(Entry("s", self._seq, encode(event), fields={"status": status} | (fields or {})))

    def receipt(self, command_id: str, command: str, outcome: str, reason: str | None, inbox_entry: bytes) -> None:
        """Add a receipt; the command leaves the inbox with it."""
        event: dict[str, Any] = {
            "cursor": f"{self.epoch}-{self._next()}",
            "sessionId": self.session_id,
            "commandId": command_id,
            "command": command,
            "outcome": outcome,
        }
        if reason is not None:
            event["reason"] = reason
        event["timestamp"] = steps.now_ms()
        self._add(Entry("r", self._seq, encode(event), inbox_entry, command_id))

    def end(self, status: Status, reason: Reason, error: str | None, fields: dict[str, Any] | None = None) -> None:
        """Add the end; the script gives it its place, behind the receipts of what the inbox still holds."""
        event = {"sessionId": self.session_id, "status": status, "timestamp": steps.now_ms()}
        if error is not None:
            event["error"] = error
        event["reason"] = reason
        state: dict[str, Any] = {"status": status, "reason": reason} | (fields or {})
        if error is not None:
            state["error"] = error
        self._next()
        self._add(Entry("e", self._seq, encode(event)[1:], fields=state))

    def then(self, call: Callable[[], None]) -> None:
        """Call once all that was added so far is in Redis; never, if it will not be."""
        self._then.append((self._seq, call))

    async def flushed(self) -> None:
        """Wait until all that was added is in Redis, or can never be."""
        while (self.pending or self.spool) and self.lost is None and not self.ended:
            self._drained.clear()
            await self._drained.wait()

    # -- what the publisher does

    def take(self, most: int, most_bytes: int) -> list[Entry]:
        """The next entries to write, read back from the spool where memory has none."""
        if not self.pending and self.spool:
            for entry in self.spool.read(TURN_EVENTS, BATCH_BYTES):
                self._publisher.account(len(entry.json))
                self.pending.append(entry)
            if not self.spool:
                self.spool.close()
                self.spool = None
        taken: list[Entry] = []
        size = 0
        for entry in self.pending:
            if taken and (len(taken) >= most or size + len(entry.json) > most_bytes):
                break
            taken.append(entry)
            size += len(entry.json)
        return taken

    def confirm(self, entries: list[Entry], cursor: str) -> None:
        """These entries, the first that were pending, are in the stream."""
        now = time.monotonic()
        for entry in entries:
            self.pending.popleft()
            self._publisher.account(-len(entry.json))
            if entry.kind != "d":
                self._recent.append((now, entry))
                self._recent_bytes += len(entry.json)
                self.written = entry.seq
            if entry.fields:
                self.state |= entry.fields
            self.ended = self.ended or entry.kind == "e"
        while self._recent and (self._recent_bytes > KEPT_BYTES or self._recent[0][0] < now - KEPT_S):
            self._recent_bytes -= len(self._recent.popleft()[1].json)
        while self._then and self._then[0][0] <= self.written:
            self._then.popleft()[1]()
        if not self.pending and not self.spool:
            self._drained.set()

    def repair(self, place: Cursor) -> None:
        """Redis has nothing after ``place``: send again what is still here, declare what is not."""
        stands = place.seq if place.epoch == self.epoch else 0
        kept = [entry for _, entry in self._recent if entry.seq > stands]
        first = kept[0].seq if kept else self._first_pending()
        self._recent.clear()
        self._recent_bytes = 0
        if first > stands + 1:
            begin, end = f"{place.epoch}-{place.seq + 1}", f"{self.epoch}-{first - 1}"
            lost = Error(f"Events {begin} to {end} were lost by Redis", "history_lost", from_=begin, to=end)
            kept.insert(0, self._stand_in(first - 1, lost))
        for entry in reversed(kept):
            self.pending.appendleft(entry)
            self._publisher.account(len(entry.json))
        log.warning("session %s: Redis lost events after %d-%d, %d sent again, %s declared lost",
                    self.session_id, self.epoch, stands, len(kept), max(0, first - 1 - stands))  # fmt: skip

    def lose(self, why: str) -> None:
        """Nothing more of this session will be written here."""
        if self.lost is None and not self.ended:
            self.lost = why
            self.close()
            self.on_lost(why)

    def close(self) -> None:
        """Forget what waits."""
        for entry in self.pending:
            self._publisher.account(-len(entry.json))
        self.pending.clear()
        if self.spool:
            self.spool.close()
            self.spool = None
        self._drained.set()

    def _first_pending(self) -> int:
        return next((entry.seq for entry in self.pending if entry.kind != "d"), self._seq + 1)

    def _stand_in(self, seq: int, content: Error) -> Entry:
        place = b"%d" % seq
        json = b"".join((self._cursor, place, self._head, place, b'","type":"error","timestamp":%d,"content":'
                         % steps.now_ms(), encode(content), b"}"))  # fmt: skip
        return Entry("g", seq, json)

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    def _add(self, entry: Entry) -> None:
        if self.lost is not None or self.ended:
            return
        if self.spool is not None or self._publisher.is_over():
            try:
                if self.spool is None:
                    self.spool = self._publisher.new_spool()
                self.spool.write(entry)
            except SpoolFull:
                # Past both bounds: what was already read stays in memory, nothing more is read.
                self._overflow(entry)
        else:
            self.pending.append(entry)
            self._publisher.account(len(entry.json))
        self._publisher.wake(self)

    def _overflow(self, entry: Entry) -> None:
        if self.spool:
            self.spool.hold(entry)
        else:
            self.pending.append(entry)
            self._publisher.account(len(entry.json))
        self._publisher.hold(self)


class Publisher:
    """Writes the lanes of one worker: one call in flight, the next takes all that came meanwhile."""

    def __init__(self, client: redis.asyncio.Redis, settings: Settings) -> None:
        self.keys = settings.keys
        self._settings = settings
        self._client = client
        self._script = client.register_script(scripts.SOURCES["write"])
        self._restore = client.register_script(scripts.SOURCES["restore"])
        self._common = (settings.max_events, settings.max_event_bytes, int(settings.retention_s * 1000))
        self._dirty: deque[Lane] = deque()
        self._queued: set[Lane] = set()
        self._held: set[Lane] = set()
        self._bytes = 0
        self._spooled = 0
        self._work = asyncio.Event()
        self.away_since: float | None = None
        """Since when (monotonic) Redis takes nothing; None while it does."""

    def open(self, session_id: str, cursor: Cursor, token: str) -> Lane:
        """A lane for a session claimed at ``cursor`` (the last event written so far) with ``token``."""
        return Lane(self, session_id, cursor, token)

    def account(self, change: int) -> None:
        """Bytes waiting in memory grew or shrank."""
        self._bytes += change
        if self._held and self._bytes < self._settings.max_pending // 2 and not self._spool_full():
            held, self._held = self._held, set()
            for lane in held:
                lane.on_full(False)

    def is_over(self) -> bool:
        """True when memory's share is used up."""
        return self._bytes >= self._settings.max_pending

    def new_spool(self) -> Spool:
        """A spool file for one lane, counted against the worker's share of the disk."""
        return Spool(self._settings.spool_path, self._room, self._use)

    def _room(self) -> int:
        return self._settings.max_spool - self._spooled

    def _use(self, change: int) -> None:
        self._spooled += change

    def _spool_full(self) -> bool:
        return self._settings.max_spool > 0 and self._spooled >= self._settings.max_spool

    def hold(self, lane: Lane) -> None:
        """Stop reading this lane's runner until there is room again."""
        if lane not in self._held:
            self._held.add(lane)
            lane.on_full(True)

    def wake(self, lane: Lane) -> None:
        """The lane has something to write."""
        if lane not in self._queued:
            self._queued.add(lane)
            self._dirty.append(lane)
            self._work.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._work.wait()
            batch = self._collect()
            if not batch:
                self._work.clear()
                continue
            await self._write(batch)

    def _collect(self) -> list[tuple[Lane, list[Entry]]]:
        """The next batch: lanes in turn, bounded in events and bytes."""
        batch: list[tuple[Lane, list[Entry]]] = []
        events = size = 0
        for _ in range(len(self._dirty)):
            lane = self._dirty.popleft()
            self._queued.discard(lane)
            room = min(BATCH_EVENTS - events, TURN_EVENTS if self._dirty else BATCH_EVENTS)
            entries = lane.take(room, BATCH_BYTES - size)
            if entries:
                batch.append((lane, entries))
                events += len(entries)
                size += sum(len(entry.json) for entry in entries)
            if events >= BATCH_EVENTS or size >= BATCH_BYTES:
                break
        return batch

    async def _write(self, batch: list[tuple[Lane, list[Entry]]]) -> None:
        """Write a batch, however long Redis is away."""
        failures = 0
        while True:
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    answer = await self._call(batch)
                break
            except (redis.RedisError, OSError) as error:
                if not is_outage(error):
                    await self._refused(batch, error)
                    return
                if self.away_since is None:
                    self.away_since = time.monotonic()
                    log.warning("Redis takes no events, they wait here: %s", error)
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1
        if self.away_since is not None:
            log.warning("Redis is back after %.1f s", time.monotonic() - self.away_since)
            self.away_since = None
        for (lane, entries), outcome, cursor in zip(batch, answer[::2], answer[1::2], strict=True):
            self._settle(lane, entries, outcome, cursor)

    async def _call(self, batch: list[tuple[Lane, list[Entry]]]) -> list[str]:
        for lane, _ in batch:
            if lane.unknown_to_redis:
                await self._give_back(lane)
        keys: list[str] = []
        args: list[Any] = list(self._common)
        for lane, entries in batch:
            keys += lane.keys
            fields: dict[str, Any] = {}
            for entry in entries:
                if entry.fields:
                    fields |= entry.fields
            args += (lane.session_id, lane.epoch, lane.token, *lane.channels, 2 * len(fields))
            for pair in fields.items():
                args += pair
            args.append(len(entries))
            for entry in entries:
                args += (entry.kind, entry.seq, entry.json, entry.inbox_entry, entry.command_id)
        return steps.texts(await self._script(keys=keys, args=args))

    async def _give_back(self, lane: Lane) -> None:
        step = steps.restore(self.keys, lane.session_id, lane.epoch, lane.token, lane.state)
        await self._client.zadd(self.keys.sessions, {lane.session_id: lane.state.get("createdAt", 0)}, nx=True)
        outcome, cursor = steps.texts(await self._restore(keys=list(step.keys), args=list(step.args)))
        lane.unknown_to_redis = False
        log.warning("session %s: Redis came back without it, it stands at %s (%s)", lane.session_id, cursor, outcome)

    async def _refused(self, batch: list[tuple[Lane, list[Entry]]], error: Exception) -> None:
        """Redis refuses the call itself: find the session it is about, so that the others go on."""
        if len(batch) > 1:
            for part in batch:
                await self._write([part])
            return
        lane = batch[0][0]
        log.error("session %s: Redis refuses its events: %s", lane.session_id, error)
        lane.lose("refused")

    def _settle(self, lane: Lane, entries: list[Entry], outcome: str, cursor: str) -> None:
        if lane.lost is not None:
            return
        last = entries[-1]
        if outcome == "ok" or (outcome == "ended" and last.kind == "e"):
            lane.confirm(entries, cursor)
        elif outcome == "gap":
            lane.repair(Cursor.parse(cursor))
        elif outcome in ("missing", "behind"):
            lane.unknown_to_redis = True
        else:
            log.warning("session %s: superseded (%s, the stream stands at %s)", lane.session_id, outcome, cursor)
            lane.lose(outcome)
        if lane.pending or lane.spool:
            self.wake(lane)


def contents(entries: Iterable[Entry]) -> list[Any]:
    """The entries' JSON, decoded: for tests and logs."""
    return [msgspec.json.decode(entry.json) for entry in entries]
