"""Sessions that nobody serves: lost owners, forgotten starts, jobs whose worker died before it could close them.

Owns the finding; one worker at a time looks. What is done to RQ's jobs is job_handler.py's part, by the two calls it
gives. Nothing here is needed for safety: a claim compares epoch and token, so acting twice does no harm.
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
from agentrq.wire.ids import is_session_id
from agentrq.wire.status import Reason, Status
from agentrq_worker.ownership.ownership import Ownership, SessionSnapshot
from agentrq_worker.settings import Settings

log = logging.getLogger(__name__)

PAGE: Final = 500
SETTLE: Final = 0.5
"""For this part of a lease a start may be on its way from its state to RQ's queue, or from there to a claim."""
RETURN_S: Final = 3.0
"""After an outage, however long, owners have so long to renew their leases before they are taken for lost."""
TROUBLED_S: Final = 60.0
FORGET_MS: Final = 60_000
REMOVED_MS: Final = 86_400_000
"""For so long it is known that a session was removed: an owner may be cut off meanwhile, and come back."""
CLOSE_MS: Final = 30_000
"""A live owner has so long to close the job of a session that ended with it."""
_FIELDS: Final = ("status", "worker", "token", "endedAt", "jobId")


class OrphanedJobs(Protocol):
    """What RQ's side does for maintenance."""

    async def enqueue(self, job_id: str, look: SessionSnapshot) -> bool:
        """Put the job of a session without an owner (back) into its queue; False where a user of RQ canceled it."""

    async def conclude(self, job_id: str, look: SessionSnapshot) -> None:
        """Close the job of a session that has ended, if nobody did."""


class _Closed(NamedTuple):
    """An ended session with nothing left to do until it expires: its start, and when that will be (monotonic)."""

    start: float
    until: float


class _Orphan(NamedTuple):
    since: float
    cursor: str


class _Row(NamedTuple):
    """What is read of every session on every look: little, prompts are long."""

    session_id: str
    start: float
    status: bytes | None
    worker: bytes | None
    token: bytes | None
    ended_at: bytes | None
    job_id: bytes | None

    @property
    def ended(self) -> bool:
        return self.status in (b"done", b"error")

    @property
    def job_key(self) -> str:
        return job_key(self.job_id.decode("utf-8", "replace") if self.job_id else self.session_id)


class RecoveryScanner:
    """Looks at all sessions on every beat, as long as no other worker does."""

    def __init__(
        self, client: redis.asyncio.Redis, ownership: Ownership, settings: Settings, jobs: OrphanedJobs
    ) -> None:
        self._client = client
        self._ownership = ownership
        self._settings = settings
        self._keys = settings.keys
        self._jobs = jobs
        self._closed: dict[bytes, _Closed] = {}
        self._troubled: dict[bytes, float] = {}  # sessions whose keys make trouble → when they are looked at again
        self._orphans: dict[str, _Orphan] = {}
        self._leases: dict[bytes, bytes | None] = {}
        self._suspended = False
        """``rq suspend`` holds all workers: nobody takes a session, on purpose."""
        self._answered = -math.inf
        self._back = -math.inf
        """Since when Redis answers; after an outage owners have not renewed their leases yet."""

    async def run(self) -> None:
        """Look again and again, until cancelled; trouble costs a log line."""
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
                    log.warning("maintenance: %s", error)
            await asyncio.sleep(self._settings.beat_s)

    async def _take_scan_lock(self) -> bool:
        lock, token = self._keys.maintenance_lock(), self._ownership.token.encode()
        milliseconds = int(self._settings.beat_s * 2500)
        if await self._client.set(lock, token, nx=True, px=milliseconds):
            return True
        if (
            await self._client.pttl(lock) == -1
        ):  # no worker's: whatever it is, it would keep this from being done for ever
            await self._client.delete(lock)
            return False
        if await self._client.get(lock) != token:
            return False
        await self._client.pexpire(lock, milliseconds)
        return True

    async def scan_once(self) -> None:
        """One round over all sessions that are not known to be closed."""
        self._leases = {}
        self._suspended = bool(await self._client.exists(SUSPENDED))
        known: set[bytes] = set()
        # Page by page: whoever leaves meanwhile moves another out of this round, not out of the next.
        for at in itertools.count(0, PAGE):
            members: Any = await self._client.zrange(self._keys.sessions, at, at + PAGE - 1, withscores=True)
            known.update(sid for sid, _ in members)
            # After those that run here looks the publisher.
            others = [entry for entry in members if entry[0].decode("ascii", "replace") not in self._ownership.sessions]
            strange = [sid for sid, _ in others if not is_session_id(sid)]
            if strange:
                await self._drop_invalid_ids(strange)
            await self._scan_page([entry for entry in others if entry[0] not in strange and self._is_due(*entry)])
            if len(members) < PAGE:
                break
        await self._prune_removals()
        self._closed = {sid: closed for sid, closed in self._closed.items() if sid in known}
        self._troubled = {sid: until for sid, until in self._troubled.items() if sid in known}
        self._orphans = {sid: orphan for sid, orphan in self._orphans.items() if sid not in self._ownership.sessions}

    async def _prune_removals(self) -> None:
        try:
            await self._client.zremrangebyscore(self._keys.removed, "-inf", script_calls.now_ms() - REMOVED_MS)
        except redis.ResponseError:  # of another type: it would keep sessions' removals from being noted
            await self._client.delete(self._keys.removed)

    def _is_due(self, sid: bytes, start: float) -> bool:
        now, closed = time.monotonic(), self._closed.get(sid)
        if closed is not None and closed.start == start and closed.until > now:
            return False
        return self._troubled.get(sid, 0.0) <= now

    async def _drop_invalid_ids(self, members: list[bytes]) -> None:
        log.warning("%d names in %s are no session ids and are dropped", len(members), self._keys.sessions)
        await self._client.zrem(self._keys.sessions, *members)

    async def _scan_page(self, members: list[tuple[bytes, float]]) -> None:
        async with self._client.pipeline(transaction=False) as pipeline:
            for sid, _ in members:
                pipeline.hmget(self._keys.state(sid.decode("utf-8", "replace")), *_FIELDS)
            answers = await pipeline.execute(raise_on_error=False)
        rows = []
        for (sid, start), answer in zip(members, answers, strict=True):
            if isinstance(answer, Exception):
                log.error("session %s: its state cannot be read: %s", sid.decode("utf-8", "replace"), answer)
                self._troubled[sid] = time.monotonic() + TROUBLED_S
            else:
                rows.append(_Row(sid.decode("utf-8", "replace"), start, *answer))
        ended = [row for row in rows if row.ended]
        async with self._client.pipeline(transaction=False) as pipeline:
            for row in ended:
                pipeline.hget(row.job_key, "status")
            statuses = dict(zip(ended, await pipeline.execute(raise_on_error=False), strict=True))
        for row in rows:
            try:
                await self._handle_session(row, statuses.get(row))
            except Exception as error:
                if is_outage(error):
                    raise
                log.error("session %s: cannot be dealt with for now: %r", row.session_id, error)
                self._troubled[row.session_id.encode()] = time.monotonic() + TROUBLED_S

    async def _handle_session(self, row: _Row, job_status: Any) -> None:
        if row.status is None:
            if row.start < script_calls.now_ms() - FORGET_MS:
                await self._ownership.run_script(script_calls.prune_index(self._keys, [row.session_id]))
            return
        owned = bool(row.token and row.worker) and await self._fetch_lease(row.worker) == row.token
        if row.ended:
            recent = row.ended_at is not None and int(row.ended_at) > script_calls.now_ms() - CLOSE_MS
            if job_status not in (b"started", b"queued") or not (owned and recent):
                await self._conclude_job(row, job_status)
            self._orphans.pop(row.session_id, None)
        elif owned:
            self._orphans.pop(row.session_id, None)
        else:
            look = await self._ownership.fetch_session(row.session_id)
            if look is not None and not look.owned and not look.state.ended:
                await self._recover_orphan(row.session_id, look)

    async def _conclude_job(self, row: _Row, job_status: Any) -> None:
        if job_status in (b"started", b"queued"):
            look = await self._ownership.fetch_session(row.session_id)
            if look is not None and look.state.ended:
                await self._jobs.conclude(look.inner.job_id or row.session_id, look)
        self._closed[row.session_id.encode()] = _Closed(row.start, time.monotonic() + self._settings.retention_s)

    async def _fetch_lease(self, worker: bytes | None) -> bytes | None:
        if worker is None:
            return None
        if worker not in self._leases:
            lease: Any = await self._client.get(self._keys.worker(worker.decode("utf-8", "replace")))
            self._leases[worker] = lease
        return self._leases[worker]

    async def _recover_orphan(self, session_id: str, look: SessionSnapshot) -> None:
        """A session without an owner: its job belongs into the queue; too long there, and it is lost."""
        state, now = look.state, time.monotonic()
        orphan = self._orphans.get(session_id)
        if orphan is None or orphan.cursor != state.cursor:
            if look.inner.token:
                log.warning("session %s: its worker %s is gone", session_id, state.worker)
            orphan = None
        if orphan is None or (self._suspended and state.status is not Status.QUEUED):
            orphan = self._orphans[session_id] = _Orphan(now, state.cursor)
        waited = now - orphan.since
        if look.inner.token and now - self._back < RETURN_S:
            return
        if look.inner.stop:
            await self._ownership.end_session(look, Status.DONE, Reason.STOPPED, "")
            return
        if state.status is Status.QUEUED and waited <= SETTLE * self._settings.lease_s:
            return
        if state.status is not Status.QUEUED and waited > self._settings.recovery_timeout_s:
            error = f"Its worker was lost and no other took it within {self._settings.recovery_timeout_s:g} s"
            await self._ownership.end_session(look, Status.ERROR, Reason.LOST, error)
        elif not await self._jobs.enqueue(look.inner.job_id or session_id, look):
            log.info("session %s: its job was canceled in RQ: stopped", session_id)
            await self._ownership.end_session(look, Status.DONE, Reason.STOPPED, "")
