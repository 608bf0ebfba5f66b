"""Finds sessions that nobody serves: lost owners, forgotten starts, jobs whose worker died before it could close them.

Owns the finding; one worker at a time scans. What happens to RQ's jobs is rq/job_handler.py's part (`OrphanedJobs`).
Nothing here is needed for safety: a claim compares epoch and token, so acting twice does no harm.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from typing import Any, Final, NamedTuple, Protocol

import redis
import redis.asyncio

from agentrq.connection import is_outage
from agentrq.rq_commands import SUSPENDED, job_key
from agentrq.wire import script_calls
from agentrq.wire.feed import trim_feed
from agentrq.wire.ids import is_session_id
from agentrq.wire.status import Reason, Status
from agentrq_worker.logs import event
from agentrq_worker.ownership.owner_leases import OwnerLeases
from agentrq_worker.ownership.ownership import Ownership, SessionSnapshot
from agentrq_worker.ownership.session_index import FORGET_MS, SessionIndex
from agentrq_worker.settings import Settings

log = logging.getLogger(__name__)

PAGE: Final = 500
SETTLE: Final = 0.5
"""A start may take this part of a lease from its state to RQ's queue, and again from there to a claim."""
RETURN_S: Final = 3.0
"""After an outage, however long, owners have this long to renew their leases before they count as lost."""
RETRY_TROUBLED_S: Final = 60.0
REMOVED_MS: Final = 86_400_000
"""Redis remembers a removed session for a day: its owner may be cut off meanwhile, and come back."""
CLOSE_MS: Final = 30_000
"""A live owner has this long to close the job of a session that ended with it."""
FEED_TRIMMED_AT_ONCE: Final = 5000
"""Entries that one call drops from the feed: some 10 ms of Redis's time."""
_FIELDS: Final = ("status", "worker", "token", "endedAt", "jobId", "pendingApprovals", "requests")


class OrphanedJobs(Protocol):
    """What RQ's side does for the scanner."""

    async def enqueue(self, job_id: str, snapshot: SessionSnapshot) -> bool:
        """Put the job of a session without an owner into its queue; False where a user of RQ canceled it."""

    async def conclude(self, job_id: str, snapshot: SessionSnapshot) -> None:
        """Close the job of a session that has ended, if nobody did."""


class _Orphan(NamedTuple):
    since: float
    cursor: str
    told: bool = False
    """The log has it."""


class _Row(NamedTuple):
    """What every round reads of every session: little, because prompts are long."""

    session_id: str
    start: float
    status: bytes | None
    worker: bytes | None
    token: bytes | None
    ended_at: bytes | None
    job_id: bytes | None
    pending_approvals: bytes | None
    requests: bytes | None

    @property
    def ended(self) -> bool:
        return self.status in (b"done", b"error")

    @property
    def waits_at_older_owner(self) -> bool:
        """Its owner, of a version that does not know the index of waiting sessions, has not put it there."""
        return not self.ended and self.requests is None and self.pending_approvals not in (None, b"0")

    @property
    def job_key(self) -> str:
        return job_key(self.job_id.decode("utf-8", "replace") if self.job_id else self.session_id)


class RecoveryScanner:
    """Scans the living sessions on every beat, as long as no other worker does."""

    def __init__(
        self, client: redis.asyncio.Redis, ownership: Ownership, settings: Settings, jobs: OrphanedJobs
    ) -> None:
        self._client = client
        self._ownership = ownership
        self._settings = settings
        self._keys = settings.keys
        self._clock = ownership.clock
        self._jobs = jobs
        self._index = SessionIndex(client, ownership, settings)
        self._settled: list[str] = []
        """Sessions that have ended and need no look any more, in this round."""
        self._troubled: dict[bytes, float] = {}
        """Sessions whose keys raised errors, and when (monotonic) they are read again."""
        self._orphans: dict[str, _Orphan] = {}
        self._leases = OwnerLeases(client, settings.keys, settings.lease_s)
        self._scanning = asyncio.Lock()
        self._suspended = False
        """``rq suspend`` holds all workers: nobody takes a session, on purpose."""
        self._answered = -math.inf
        self._back = -math.inf
        """Since when Redis accepts writes; after an outage owners have not renewed their leases yet."""

    async def run(self) -> None:
        """Scan again and again, until cancelled; an error costs a log line."""
        while True:
            try:
                async with asyncio.timeout(self._settings.lease_s * 3):
                    mine = await self._take_scan_lock()
                    now = time.monotonic()
                    if now - self._answered > 2 * self._settings.beat_s:
                        self._back = now
                    self._answered = now
                    if mine:
                        await self.scan_once()
            except (redis.RedisError, OSError) as error:
                if not is_outage(error):
                    log.warning("the scan for lost sessions failed: %s", error)
            await asyncio.sleep(self._leases.pause_s(self._settings.beat_s))

    async def recover_released(self, token: str) -> None:
        """Scan at once: the worker with this token has ended, and its lease was given back."""
        self._leases.note_release(token)
        lock = self._keys.maintenance_lock()
        if await self._client.get(lock) == token.encode():
            await self._client.delete(lock)
        await self.scan_once()

    async def _take_scan_lock(self) -> bool:
        lock, token = self._keys.maintenance_lock(), self._ownership.token.encode()
        milliseconds = int(self._settings.beat_s * 2500)
        if await self._client.set(lock, token, nx=True, px=milliseconds):
            return True
        if await self._client.pttl(lock) == -1:  # a key without an expiry is not a worker's, and would stop all scans
            await self._client.delete(lock)
            return False
        if await self._client.get(lock) != token:
            return False
        await self._client.pexpire(lock, milliseconds)
        return True

    async def scan_once(self) -> None:
        """One round over all sessions that have not ended, or whose end nobody has seen to yet."""
        async with self._scanning:
            self._leases.begin_round()
            self._suspended = bool(await self._client.exists(SUSPENDED))
            self._settled.clear()
            await self._index.index_new_sessions()
            known: set[bytes] = set()
            # Page by page: a session that leaves meanwhile moves another out of this round, not out of the next.
            for at in itertools.count(0, PAGE):
                members: Any = await self._client.zrange(self._keys.live, at, at + PAGE - 1, withscores=True)
                known.update(sid for sid, _ in members)
                await self._scan_members(members)
                if len(members) < PAGE:
                    break
            await self._index.settle(self._settled)
            await self._leases.ask_to_renew()
            await self._prune_removals()
            await self._index.check_some()
            await self._trim_feed()
            hosted = self._ownership.sessions
            self._troubled = {sid: until for sid, until in self._troubled.items() if sid in known}
            self._orphans = {sid: orphan for sid, orphan in self._orphans.items() if sid not in hosted}

    async def _scan_members(self, members: list[tuple[bytes, float]]) -> None:
        invalid = {sid for sid, _ in members if not is_session_id(sid)}  # one of them is the index's own mark
        hosted, now = self._ownership.sessions, time.monotonic()  # the publisher watches these
        due = [
            (sid, start)
            for sid, start in members
            if sid not in invalid and sid.decode() not in hosted and self._troubled.get(sid, 0.0) <= now
        ]
        if due:
            await self._scan_page(due)

    async def _prune_removals(self) -> None:
        try:
            await self._client.zremrangebyscore(self._keys.removed, "-inf", self._clock.now_ms() - REMOVED_MS)
        except redis.ResponseError:  # a key of another type: removals could not be noted
            await self._client.delete(self._keys.removed)

    async def _trim_feed(self) -> None:
        oldest_ms = self._clock.now_ms() - int(self._settings.feed_max_age_s * 1000)
        call = trim_feed(self._keys, self._settings.feed_max_entries, oldest_ms, FEED_TRIMMED_AT_ONCE)
        try:
            while await self._ownership.run_script(call) == FEED_TRIMMED_AT_ONCE:
                pass
        except redis.ResponseError as error:  # a key of another type: entries could not be written
            log.warning("the feed cannot be trimmed: %s", error)

    async def _scan_page(self, members: list[tuple[bytes, float]]) -> None:
        async with self._client.pipeline(transaction=False) as pipeline:
            for sid, _ in members:
                pipeline.hmget(self._keys.state(sid.decode("utf-8", "replace")), *_FIELDS)
            answers = await pipeline.execute(raise_on_error=False)
        rows = []
        for (sid, start), answer in zip(members, answers, strict=True):
            if isinstance(answer, Exception):
                log.error("session %s: its state cannot be read: %s", sid.decode("utf-8", "replace"), answer)
                self._troubled[sid] = time.monotonic() + RETRY_TROUBLED_S
            else:
                rows.append(_Row(sid.decode("utf-8", "replace"), start, *answer))
        await self._leases.fetch(row.worker for row in rows if row.worker and not row.ended)
        ended = [row for row in rows if row.ended]
        async with self._client.pipeline(transaction=False) as pipeline:
            for row in ended:
                pipeline.hget(row.job_key, "status")
            statuses = dict(zip(ended, await pipeline.execute(raise_on_error=False), strict=True))
        waiting = [row.session_id for row in rows if row.waits_at_older_owner]
        if waiting:
            await self._ownership.run_script(script_calls.index_waiting(self._keys, waiting))
        for row in rows:
            try:
                await self._handle_session(row, statuses.get(row))
            except Exception as error:
                if is_outage(error):
                    raise
                log.error("session %s: skipped for now: %r", row.session_id, error)
                self._troubled[row.session_id.encode()] = time.monotonic() + RETRY_TROUBLED_S

    async def _handle_session(self, row: _Row, job_status: Any) -> None:
        if row.status is None:
            if row.start < self._clock.now_ms() - FORGET_MS:
                await self._index.prune([row.session_id])
            return
        if row.ended:
            if job_status not in (b"started", b"queued") or not await self._is_owner_closing(row):
                await self._conclude_job(row, job_status)
            self._orphans.pop(row.session_id, None)
        elif self._leases.is_live(row.worker, row.token):
            self._orphans.pop(row.session_id, None)
        elif not (row.worker and row.token) or self._leases.is_lost(row.worker, row.token):
            snapshot = await self._ownership.fetch_session(row.session_id)
            if snapshot is not None and not snapshot.owned and not snapshot.state.ended:
                await self._recover_orphan(row.session_id, snapshot)

    async def _is_owner_closing(self, row: _Row) -> bool:
        """Whether the live owner of a session that has just ended still has the time to close its job."""
        if row.worker is None or int(row.ended_at or 0) <= self._clock.now_ms() - CLOSE_MS:
            return False
        await self._leases.fetch([row.worker])
        return self._leases.is_live(row.worker, row.token)

    async def _conclude_job(self, row: _Row, job_status: Any) -> None:
        if job_status in (b"started", b"queued"):
            snapshot = await self._ownership.fetch_session(row.session_id)
            if snapshot is not None and snapshot.state.ended:
                await self._jobs.conclude(snapshot.inner.job_id or row.session_id, snapshot)
        self._settled.append(row.session_id)

    async def _recover_orphan(self, session_id: str, snapshot: SessionSnapshot) -> None:
        """Put the job of a session without an owner into the queue; end the session if nobody takes it for too long."""
        state, now = snapshot.state, time.monotonic()
        orphan = self._orphans.get(session_id)
        if orphan is None or orphan.cursor != state.cursor:
            orphan = None
        if orphan is None or (self._suspended and state.status is not Status.QUEUED):
            orphan = self._orphans[session_id] = _Orphan(now, state.cursor)
        waited = now - orphan.since
        token = snapshot.inner.token
        if token and now - self._back < RETURN_S and not self._leases.was_released(token):
            return
        if token and not orphan.told:  # not before: after an outage its worker may only be late
            log.warning("session %s: its worker %s is lost", session_id, state.worker, extra=event("session_lost"))
            self._orphans[session_id] = orphan._replace(told=True)
        if (end := self._ownership.remembered_end(snapshot)) is not None:  # Redis came back older than that
            await self._ownership.end_session(snapshot, *end)
            return
        if snapshot.inner.stop:
            await self._ownership.end_session(snapshot, Status.DONE, Reason.STOPPED, "")
            return
        if state.status is Status.QUEUED and waited <= SETTLE * self._settings.lease_s:
            return
        if state.status is not Status.QUEUED and waited > self._settings.recovery_timeout_s:
            error = f"Its worker was lost and no other took it within {self._settings.recovery_timeout_s:g} s"
            await self._ownership.end_session(snapshot, Status.ERROR, Reason.LOST, error)
        elif not await self._jobs.enqueue(snapshot.inner.job_id or session_id, snapshot):
            log.info("session %s: its job was canceled in RQ: stopped", session_id)
            await self._ownership.end_session(snapshot, Status.DONE, Reason.STOPPED, "")
