"""Sessions that nobody serves: lost owners, forgotten starts, jobs whose worker died before it could close them.

Owns the finding; one worker at a time looks. What is done to RQ's jobs is intake.py's part, by the three calls it
gives. Nothing here is needed for safety: a claim compares epoch and token, so acting twice does no harm.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final, NamedTuple, Protocol

import redis
import redis.asyncio

from agentrq.connection import is_outage
from agentrq.wire import steps
from agentrq.wire.state import read_inner, read_state
from agentrq.wire.status import Reason, Status
from agentrq_worker.ownership import Look, Ownership
from agentrq_worker.settings import Settings

log = logging.getLogger(__name__)

PAGE: Final = 200
SETTLE_S: Final = 5.0
"""How long a start may be on its way from its state to RQ's queue, or from there to a claim."""
FORGET_MS: Final = 60_000


class Jobs(Protocol):
    """What RQ's side does for maintenance."""

    async def enqueue(self, job_id: str, look: Look) -> None:
        """Put the job of a session without an owner (back) into its queue, in front, if it is not there."""

    async def conclude(self, job_id: str, look: Look) -> None:
        """Finish the job of a session that has ended, if a worker that is gone left it ``started``."""

    async def bury(self, worker: str) -> None:
        """Take a worker that is gone out of RQ's list."""


class _Orphan(NamedTuple):
    since: float
    epoch: int


class Maintenance:
    """Looks at all sessions every beat or two, as long as no other worker does."""

    def __init__(self, client: redis.asyncio.Redis, ownership: Ownership, settings: Settings, jobs: Jobs) -> None:
        self._client = client
        self._ownership = ownership
        self._settings = settings
        self._keys = settings.keys
        self._jobs = jobs
        self._closed: dict[bytes, float] = {}  # ended sessions with nothing left to do → their start
        self._orphans: dict[str, _Orphan] = {}
        self._alive: dict[str, bytes | None] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled; trouble with one session costs a log line."""
        while True:
            try:
                async with asyncio.timeout(self._settings.lease_s * 3):
                    if await self._my_turn():
                        await self.look()
            except (redis.RedisError, OSError) as error:
                if not is_outage(error):
                    log.warning("maintenance: %s", error)
            await asyncio.sleep(self._settings.beat_s)

    async def _my_turn(self) -> bool:
        lock, token = self._keys.maintenance_lock(), self._ownership.token.encode()
        milliseconds = int(self._settings.beat_s * 2500)
        if await self._client.set(lock, token, nx=True, px=milliseconds):
            return True
        if await self._client.get(lock) != token:
            return False
        await self._client.pexpire(lock, milliseconds)
        return True

    async def look(self) -> None:
        """One round over all sessions that are not known to be closed."""
        self._alive = {}
        members: Any = await self._client.zrange(self._keys.sessions, 0, -1, withscores=True)
        known = {sid for sid, _ in members}
        self._closed = {sid: start for sid, start in self._closed.items() if sid in known}
        open_ones = [(sid, start) for sid, start in members if self._closed.get(sid) != start]
        for at in range(0, len(open_ones), PAGE):
            part = open_ones[at : at + PAGE]
            async with self._client.pipeline(transaction=False) as pipeline:
                for sid, _ in part:
                    pipeline.hgetall(self._keys.state(sid.decode()))
                answers = await pipeline.execute(raise_on_error=False)
            for (sid, start), raw in zip(part, answers, strict=True):
                await self._one(sid, start, raw)

    async def _one(self, sid: bytes, start: float, raw: Any) -> None:
        session_id = sid.decode("utf-8", "replace")
        if isinstance(raw, Exception):
            log.error("session %s: its state cannot be read: %s", session_id, raw)
            return
        state, inner = read_state(session_id, raw), read_inner(raw)
        if state is None:
            if not raw and start < steps.now_ms() - FORGET_MS:
                await self._client.zrem(self._keys.sessions, sid)
            return
        lease = await self._lease(state.worker) if inner.token and state.worker else None
        owned = lease is not None and lease == inner.token.encode()
        look = Look(state, inner, owned)
        if owned:
            self._orphans.pop(session_id, None)
        elif state.ended:
            await self._jobs.conclude(inner.job_id or session_id, look)
            self._closed[sid] = start
            self._orphans.pop(session_id, None)
        else:
            await self._orphan(session_id, look)

    async def _lease(self, worker: str) -> bytes | None:
        if worker not in self._alive:
            lease: Any = await self._client.get(self._keys.worker(worker))
            self._alive[worker] = lease
            if self._alive[worker] is None:
                await self._jobs.bury(worker)
        return self._alive[worker]

    async def _orphan(self, session_id: str, look: Look) -> None:
        """A session without an owner: its job belongs into the queue; too long there, and it is lost."""
        state, now = look.state, time.monotonic()
        orphan = self._orphans.get(session_id)
        if orphan is None or orphan.epoch != state.epoch:
            orphan = self._orphans[session_id] = _Orphan(now, state.epoch)
            if state.status is not Status.QUEUED:
                log.warning("session %s: its worker %s is gone", session_id, state.worker or "(handed over)")
        waited = now - orphan.since
        ours = look.inner.queue in ("", self._settings.queue)
        if state.status is Status.QUEUED:
            if waited > SETTLE_S and ours:
                await self._jobs.enqueue(look.inner.job_id or session_id, look)
            return
        if waited > self._settings.recovery_timeout_s:
            error = f"Its worker was lost and no other took it within {self._settings.recovery_timeout_s:g} s"
            await self._ownership.finish(look, Status.ERROR, Reason.LOST, error)
            return
        if ours:
            await self._jobs.enqueue(look.inner.job_id or session_id, look)
