"""Fetches and claims sessions under this worker's lease, and ends sessions that nobody owns.

The lease is lease.py's, what clients send to the sessions inbox_reader.py's. Does not own what a command means
(session/shell.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from typing import Any, Final, Literal, NamedTuple, TypeVar

import msgspec
import redis.asyncio

from agentrq.errors import AgentRQError
from agentrq.rq_commands import job_key
from agentrq.script_runner import AsyncScriptRunner
from agentrq.wire import owner_calls, script_calls
from agentrq.wire.codec import encode
from agentrq.wire.commands import MAX_PROMPT_BYTES, Command, Options, make_options
from agentrq.wire.ids import Cursor
from agentrq.wire.messages import SessionTotal
from agentrq.wire.script_calls import EndOutcome, OpenOutcome, ScriptCall
from agentrq.wire.state import Inner, State, read_inner, read_state
from agentrq.wire.status import Reason, Status
from agentrq_worker.logs import event
from agentrq_worker.ownership.inbox_reader import InboxReader
from agentrq_worker.ownership.interrupted_turn import read_interrupted_turn, read_stored_answers
from agentrq_worker.ownership.lease import Lease
from agentrq_worker.redis_clock import RedisClock
from agentrq_worker.redis_retry import LimitedRetry
from agentrq_worker.session_types import ClaimedSession, InterruptedTurn
from agentrq_worker.settings import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")

SPOILT: Final = "Its keys in Redis cannot be written"
ENDS_KEPT: Final = 10_000
LONGEST_EVENT: Final = 2 * MAX_PROMPT_BYTES  # bytes; larger events of an interrupted turn are not read back


def _read_options(data: str) -> tuple[Options, str | None]:
    """The options of a start, or why they cannot be read: the defaults would allow more than they may."""
    try:
        options = make_options(msgspec.json.decode(data, type=dict[str, Any]))
    except (ValueError, RecursionError) as error:
        return Options(), f"Its options cannot be read: {str(error)[:300]}"
    return options, None


class SessionEnd(NamedTuple):
    """How a session ended; ``error`` is empty where it ended well."""

    status: Status
    reason: Reason
    error: str


class SessionSnapshot(NamedTuple):
    """A session as it was read: its state, its internal fields, and whether its owner's lease is live."""

    state: State
    inner: Inner
    owned: bool


class Claim(NamedTuple):
    """A claim that succeeded: what to run, and the last event's cursor."""

    claimed: ClaimedSession
    cursor: Cursor
    state: dict[str, Any]
    """The state's fields as they are known here."""
    claimed_at: int
    """When, in ms by Redis's clock: the ids of commands that came later are not below it."""
    free_since: int
    """Since when it had no owner, in ms by Redis's clock: its creation, the handover, or when its loss was seen."""


def _read_snapshot(session_id: str, raw: dict[bytes, bytes]) -> SessionSnapshot | None:
    """The session of a state hash, taken for unowned; None where it cannot be read."""
    state, inner = read_state(session_id, raw), read_inner(raw)
    # Every script that ends or claims it compares these bytes: they must survive decoding as text.
    if state is None or any(raw.get(name, b"") != value.encode() for name, value in (
        (b"epoch", str(state.epoch)), (b"token", inner.token), (b"nonce", inner.nonce)
    )):  # fmt: skip
        return None
    return SessionSnapshot(state, inner, False)


class Ownership:
    """This worker's lease and what it owns under it."""

    def __init__(self, client: redis.asyncio.Redis, live: redis.asyncio.Redis, settings: Settings) -> None:
        self.lease = Lease(client, settings)
        self.clock = RedisClock()
        self.inboxes = InboxReader(client, live, settings)
        self.claiming: set[str] = set()
        """Ids of sessions that are being claimed here."""
        self.sessions = self.inboxes.sessions
        self.beats = 0
        """How many times the lease was renewed."""
        self.beaten_at: float | None = None
        """When (monotonic) Redis last gave this worker its lease; None before the first time."""
        self._ends: dict[tuple[str, str], SessionEnd] = {}
        """The newest `ENDS_KEPT` ends of sessions here, by session id and start's nonce."""
        self._client = client
        self._settings = settings
        self._keys = settings.keys
        self._retry_outages = LimitedRetry()
        self._scripts = AsyncScriptRunner(client)

    @property
    def token(self) -> str:
        """What this process's claims and writes are fenced by."""
        return self.lease.token

    # -- what is owned

    async def take_lease(self) -> None:
        """Take the lease, and read Redis's clock. Raises `NameTaken`, `redis.RedisError`, OSError."""
        await self.lease.begin()
        self.beaten_at = time.monotonic()
        await self.clock.synchronize(self._client)

    async def renew_lease(self) -> None:
        """Renew the lease on every beat, and when asked to. Raises `NameTaken` where another process has the name.

        Which sessions others took over in a stall, the publisher finds.
        """
        beaten = time.monotonic()
        while True:
            await self.lease.renew()
            gap, beaten = time.monotonic() - beaten, time.monotonic()
            self.beaten_at = beaten
            if gap > self._settings.lease_s / 2:
                log.warning("stalled for %.1f s: other workers may have taken over its sessions", gap,
                            extra=event("worker_stalled", seconds=round(gap, 1)))  # fmt: skip
            with contextlib.suppress(redis.RedisError, OSError):  # the clock keeps the offset of the beat before
                await self.clock.synchronize(self._client)
            self.beats += 1
            self.inboxes.read_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.beat_s):
                    await self.inboxes.renew_asked.wait()
            self.inboxes.renew_asked.clear()

    # -- claims

    async def fetch_session(self, session_id: str) -> SessionSnapshot | None:
        """The session as it is now; None when there is none (or its state is unreadable)."""

        async def read() -> SessionSnapshot | None:
            try:
                raw = await self._scripts.run(script_calls.fetch_session(self._keys, session_id))
            except ValueError as error:
                log.error("session %s: %s", session_id, error)
                return None
            snapshot = _read_snapshot(session_id, raw)
            if snapshot is not None and snapshot.inner.token and snapshot.state.worker:
                lease = await self._client.get(self._keys.worker(snapshot.state.worker))
                return snapshot._replace(owned=lease == snapshot.inner.token.encode())
            return snapshot

        found: SessionSnapshot | None = await self._retry_outages(read)
        return found

    def read_unowned(self, session_id: str, raw: dict[bytes, bytes]) -> SessionSnapshot | None:
        """The session of a state hash; None where it has an owner, whose lease would have to be read too."""
        snapshot = _read_snapshot(session_id, raw)
        return snapshot if snapshot is not None and not snapshot.inner.token else None

    async def open_session(
        self, session_id: str, provider: str, prompt: str, options: Options, job_id: str, job_created_at: str
    ) -> OpenOutcome:
        """Create the state of a start that RQ brought without one; ``gone``, ``canceled``: so is its job by now."""
        key = job_key(job_id)
        return await self.run_script(script_calls.open_session(
            self._keys, session_id, provider, prompt, options, secrets.token_hex(8), self._settings.queue, job_id,
            [("HSETNX", key, "created_at", job_created_at)], key, job_created_at,
        ))  # fmt: skip

    async def claim_session(self, snapshot: SessionSnapshot) -> Claim | None:
        """Become the owner of a session that has no live owner; None if another worker was first or it has ended."""
        self.claiming.add(snapshot.state.session_id)
        try:
            return await self._claim(snapshot)
        finally:
            self.claiming.discard(snapshot.state.session_id)

    async def _claim(self, snapshot: SessionSnapshot) -> Claim | None:
        state, inner = snapshot.state, snapshot.inner
        sid = state.session_id
        if (end := self.remembered_end(snapshot)) is not None:  # Redis came back older than that
            await self.end_session(snapshot, *end)
            return None
        if inner.stop:
            await self.end_session(snapshot, Status.DONE, Reason.STOPPED, "")
            return None
        mine, seen = secrets.token_hex(8), (state.epoch, inner.token, inner.nonce)
        key = job_key(inner.job_id or sid)
        call = owner_calls.claim_session(self._keys, sid, self.lease.name, self.token, mine, *seen, key)
        try:
            outcome, cursor, claimed_at = await self.run_script(call)
        except redis.ResponseError as error:
            await self.end_session(snapshot, Status.ERROR, Reason.LOST, f"{SPOILT}: {error}")
            raise AgentRQError(f"Session {sid}: {SPOILT}: {error}") from None
        if outcome != "claimed":
            log.info("session %s: not claimed: %s", sid, outcome)
            if outcome == "canceled":
                await self.end_session(snapshot, Status.DONE, Reason.STOPPED, "")
            return None
        options, unreadable = _read_options(inner.options)
        if state.provider_session_id is not None and inner.prompted:
            options = msgspec.structs.replace(options, resume=state.provider_session_id)
        # Requests outlive a cut turn until they are answered or a whole turn has passed.
        left = inner.turn or state.pending_approvals or inner.kept
        cut = await self._read_interrupted_turn(sid, inner.kept) if left else None
        started_at = state.started_at or claimed_at
        claimed = ClaimedSession(
            session_id=sid,
            provider=state.provider,
            prompt=inner.prompt,
            options=options,
            recovering=inner.prompted,
            interrupted_turn=cut if inner.turn else None,
            recoveries=inner.recoveries + bool(inner.token),
            total=SessionTotal(state.cost_usd, state.input_tokens, state.output_tokens, state.num_turns),
            started_at=started_at,
            ran_s=max(0, claimed_at - started_at) / 1000,
            requests=cut.requests if cut is not None and not inner.turn else (),
            decisions=cut.decisions if cut is not None and not inner.turn else {},
            last_turn=state.last_turn,
            model=state.model,
            checkpoint=state.checkpoint,
            unreadable=unreadable,
            takeover="" if state.started_at is None else "lost" if inner.token else "handed_over",
        )
        known = self._state_fields(snapshot) | {
            "worker": self.lease.name, "token": self.token, "claim": mine, "status": Status.STARTING,
            "startedAt": claimed.started_at,
        }  # fmt: skip
        free_since = max(inner.lost_at if inner.token else 0, state.updated_at or claimed_at)
        return Claim(claimed, Cursor.parse(cursor), known, claimed_at, free_since)

    def _state_fields(self, snapshot: SessionSnapshot) -> dict[str, Any]:
        """The fields that are written into a Redis that lost the session."""
        state: dict[str, Any] = msgspec.to_builtins(snapshot.state) | msgspec.to_builtins(snapshot.inner)
        for name in ("sessionId", "epoch", "cursor", "token"):
            state.pop(name, None)
        state |= {name: encode(getattr(snapshot.state, name)) for name in ("metadata", "requests")}
        return {name: int(value) if isinstance(value, bool) else value for name, value in state.items()
                if value is not None}  # fmt: skip

    async def _read_interrupted_turn(self, session_id: str, kept: str) -> InterruptedTurn:
        async def read(end: str, count: int) -> list[tuple[bytes, bytes | int]]:
            events = [self._keys.events(session_id)]
            pages = await self.run_script(owner_calls.read_streams(
                events, [end], "message", most=count, largest=LONGEST_EVENT, backwards=True
            ))  # fmt: skip
            if pages and pages[0].error is not None:
                raise ValueError(pages[0].error)
            return pages[0].entries if pages else []

        try:
            return await read_interrupted_turn(read, read_stored_answers(kept))
        except (redis.RedisError, ValueError, LookupError) as error:
            log.error("session %s: its interrupted turn cannot be read back: %r", session_id, error)
            return InterruptedTurn("", [], [], {})

    async def end_session(
        self, snapshot: SessionSnapshot, status: Status, reason: Reason, error: str
    ) -> EndOutcome | Literal["unwritable"]:
        """End a session that has no live owner; answers the outcome, ``unwritable`` where only its state took it."""
        sid, seen = snapshot.state.session_id, (snapshot.state.epoch, snapshot.inner.token, snapshot.inner.nonce)
        retention_s = self._settings.retention_s
        try:
            return await self.run_script(
                script_calls.end_session(self._keys, sid, *seen, status, reason, error, retention_s)
            )
        except redis.ResponseError as refused:
            error = error or f"{SPOILT}: {refused}"
            await self.run_script(
                owner_calls.end_unwritable_session(self._keys, sid, *seen, status, reason, error, retention_s)
            )
            return "unwritable"

    def remember_end(self, session_id: str, nonce: str, end: SessionEnd) -> None:
        """Remember how a session ended here, in case Redis loses that write."""
        self._ends[session_id, nonce] = end
        if len(self._ends) > ENDS_KEPT:
            del self._ends[next(iter(self._ends))]

    def remembered_end(self, snapshot: SessionSnapshot) -> SessionEnd | None:
        """How this session ended here, if it did."""
        return self._ends.get((snapshot.state.session_id, snapshot.inner.nonce))

    async def release_session(self, snapshot: SessionSnapshot) -> bool:
        """Leave a session that is not hosted here to whichever worker recovers it; False where another writer came."""
        sid, inner = snapshot.state.session_id, snapshot.inner
        call = owner_calls.release_session(self._keys, sid, snapshot.state.epoch, inner.token, inner.nonce)
        return await self.run_script(call)

    async def send_command(self, session_id: str, command: Command, job_id: str) -> str:
        """Append the command of an RQ job to an inbox, as a client does; answers the script's outcome."""
        call = script_calls.send_command(self._keys, session_id, command, job_key(job_id))
        return (await self.run_script(call)).outcome

    async def run_script(self, call: ScriptCall[T]) -> T:
        """Run one atomic step until Redis answers; each of them may be repeated."""
        answer: T = await self._retry_outages(lambda: self._scripts.run(call))
        return answer
