"""Who owns which session: looked up, claimed under the worker's lease, ended where nobody owns it.

The lease is lease.py's, what clients send to the sessions inbox_reader.py's. Does not own what a command means
(session/shell.py).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import Any, Final, NamedTuple

import msgspec
import redis.asyncio

from agentrq.errors import AgentRQError
from agentrq.rq_commands import job_key
from agentrq.wire import script_calls, scripts
from agentrq.wire.codec import encode
from agentrq.wire.commands import MAX_PROMPT_BYTES, Command, Options, make_options
from agentrq.wire.ids import Cursor
from agentrq.wire.messages import SessionTotal
from agentrq.wire.script_calls import ScriptCall
from agentrq.wire.state import Inner, State, read_inner, read_state
from agentrq.wire.status import Reason, Status
from agentrq_worker.ownership.inbox_reader import InboxReader
from agentrq_worker.ownership.interrupted_turn import read_interrupted_turn, read_stored_answers
from agentrq_worker.ownership.lease import Lease
from agentrq_worker.redis_retry import LimitedRetry
from agentrq_worker.session_types import ClaimedSession, InterruptedTurn
from agentrq_worker.settings import Settings

log = logging.getLogger(__name__)

SPOILT: Final = "Its keys in Redis cannot be written"
LONGEST_EVENT: Final = 2 * MAX_PROMPT_BYTES  # bytes; what a cut turn's event may have to be read back

_SPOILT: Final = """
-- KEYS state, events, inbox, commands; ARGV epoch, token and nonce seen, status, reason, error, time in ms, retention.
-- The end of a session whose stream takes no event any more: in its state alone. 0 where another writer came.
local seen = redis.call('HMGET', KEYS[1], 'epoch', 'token', 'nonce')
if seen[1] ~= ARGV[1] or (seen[2] or '') ~= ARGV[2] or (seen[3] or '') ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], 'status', ARGV[4], 'reason', ARGV[5], 'error', ARGV[6], 'endedAt', ARGV[7])
redis.call('HDEL', KEYS[1], 'worker', 'token', 'claim', 'pid')
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[8]) end
return 1
"""


def _read_options(data: str) -> tuple[Options, str | None]:
    """What a start asked for, or why that cannot be known: never the defaults in its place, they allow more."""
    try:
        options = make_options(msgspec.json.decode(data, type=dict[str, Any]))
    except (ValueError, RecursionError) as error:
        return Options(), f"Its options cannot be read: {str(error)[:300]}"
    return options, None


class SessionSnapshot(NamedTuple):
    """A session as it was read: its state, bookkeeping, and whether its owner's lease lives."""

    state: State
    inner: Inner
    owned: bool


class Claim(NamedTuple):
    """A claim that succeeded: what to run and where its events go on."""

    claimed: ClaimedSession
    cursor: Cursor
    state: dict[str, Any]
    """The state's fields as they are known here."""


def _read_snapshot(session_id: str, answer: Any) -> SessionSnapshot | None:
    """The session by the answer to `steps.look`, as if nobody owned it."""
    try:
        raw = script_calls.look_answer(answer)
    except ValueError as error:
        log.error("session %s: %s", session_id, error)
        return None
    state, inner = read_state(session_id, raw), read_inner(raw)
    # Compared by every step that ends or claims it: as text they have to be what they are as bytes.
    if state is None or any(raw.get(name, b"") != value.encode() for name, value in (
        (b"epoch", str(state.epoch)), (b"token", inner.token), (b"nonce", inner.nonce)
    )):  # fmt: skip
        return None
    return SessionSnapshot(state, inner, False)


class Ownership:
    """This worker's lease and what it owns under it."""

    def __init__(self, client: redis.asyncio.Redis, live: redis.asyncio.Redis, settings: Settings) -> None:
        self.lease = Lease(client, settings)
        self.inboxes = InboxReader(client, live, settings)
        self.sessions = self.inboxes.sessions
        self.beats = 0
        self._client = client
        self._settings = settings
        self._keys = settings.keys
        self._retry_outages = LimitedRetry()
        self._scripts = {name: client.register_script(source) for name, source in scripts.SOURCES.items()}

    @property
    def token(self) -> str:
        """What this process's claims and writes are fenced by."""
        return self.lease.token

    # -- what is owned

    async def renew_lease(self) -> None:
        """Renew the lease on every beat. Raises `NameTaken` where another process has taken the name meanwhile.

        Which sessions others took over in a stall, the publisher finds.
        """
        beaten = time.monotonic()
        while True:
            await self.lease.renew()
            gap, beaten = time.monotonic() - beaten, time.monotonic()
            if gap > self._settings.lease_s / 2:
                log.warning("stalled for %.1f s: others may have taken sessions over", gap)
            self.beats += 1
            self.inboxes.read_all()
            await asyncio.sleep(self._settings.beat_s)

    # -- claims

    async def fetch_session(self, session_id: str) -> SessionSnapshot | None:
        """The session as it is now; None when there is none (or its state is unreadable)."""

        async def read() -> SessionSnapshot | None:
            look = _read_snapshot(session_id, await self._once(script_calls.look(self._keys, session_id)))
            if look is not None and look.inner.token and look.state.worker:
                lease = await self._client.get(self._keys.worker(look.state.worker))
                return look._replace(owned=lease == look.inner.token.encode())
            return look

        found: SessionSnapshot | None = await self._retry_outages(read)
        return found

    async def check_session(self, session_id: str) -> tuple[bool, SessionSnapshot | None]:
        """Whether there is no such session at all (any more), and `look`, which is None for one it cannot read too."""
        look = await self.fetch_session(session_id)
        key = self._keys.state(session_id)
        return look is None and not await self._retry_outages(lambda: self._client.exists(key)), look

    def read_unowned(self, session_id: str, answer: Any) -> SessionSnapshot | None:
        """The session by the answer to `steps.look`; None where that does not say all, as of one that has an owner."""
        look = _read_snapshot(session_id, answer)
        return look if look is not None and not look.inner.token else None

    async def open_session(self, session_id: str, provider: str, prompt: str, options: Options, job_id: str) -> str:
        """Give a start that came without a state one; answers ``created``, ``exists``, or ``gone`` without its job."""
        also = [("ZADD", self._keys.sessions, script_calls.now_ms(), session_id)]
        step = script_calls.open_session(
            self._keys, session_id, provider, prompt, options, secrets.token_hex(8), self._settings.queue, job_id,
            also, job_key(job_id),
        )  # fmt: skip
        return script_calls.text(await self.run_script(step))

    async def claim_session(self, look: SessionSnapshot) -> Claim | None:
        """Become the owner of a session that has no live one; None if somebody else was first or it ended."""
        state, inner = look.state, look.inner
        sid = state.session_id
        if inner.stop:
            await self.end_session(look, Status.DONE, Reason.STOPPED, "")
            return None
        mine, seen = secrets.token_hex(8), (state.epoch, inner.token, inner.nonce)
        step = script_calls.claim(self._keys, sid, self.lease.name, self.token, mine, *seen)
        try:
            outcome, _, cursor = script_calls.texts(await self.run_script(step))
        except redis.ResponseError as error:
            await self.end_session(look, Status.ERROR, Reason.LOST, f"{SPOILT}: {error}")
            raise AgentRQError(f"Session {sid}: {SPOILT}: {error}") from None
        if outcome != "claimed":
            log.info("session %s: not claimed: %s", sid, outcome)
            return None
        options, unreadable = _read_options(inner.options)
        if state.provider_session_id is not None and inner.prompted:
            options = msgspec.structs.replace(options, resume=state.provider_session_id)
        # Requests outlive a cut turn until they are answered or a whole turn has passed.
        left = inner.turn or state.pending_approvals or inner.kept
        cut = await self._read_interrupted_turn(sid, inner.kept) if left else None
        claimed = ClaimedSession(
            session_id=sid,
            provider=state.provider,
            prompt=inner.prompt,
            options=options,
            recovering=inner.prompted,
            cut=cut if inner.turn else None,
            recoveries=inner.recoveries + bool(inner.token),
            total=SessionTotal(state.cost_usd, state.input_tokens, state.output_tokens, state.num_turns),
            started_at=state.started_at or script_calls.now_ms(),
            asked=cut.asked if cut is not None and not inner.turn else (),
            fates=cut.fates if cut is not None and not inner.turn else {},
            last_turn=state.last_turn,
            unreadable=unreadable,
        )
        known = self._state_fields(look) | {
            "worker": self.lease.name, "token": self.token, "claim": mine, "status": Status.STARTING,
            "startedAt": claimed.started_at,
        }  # fmt: skip
        return Claim(claimed, Cursor.parse(cursor), known)

    def _state_fields(self, look: SessionSnapshot) -> dict[str, Any]:
        """The state as fields: what a Redis that lost the session is given back."""
        state: dict[str, Any] = msgspec.to_builtins(look.state) | msgspec.to_builtins(look.inner)
        for name in ("sessionId", "epoch", "cursor", "token"):
            state.pop(name, None)
        state["metadata"] = encode(look.state.metadata)
        return {name: int(value) if isinstance(value, bool) else value for name, value in state.items()
                if value is not None}  # fmt: skip

    async def _read_interrupted_turn(self, session_id: str, kept: str) -> InterruptedTurn:
        async def read(end: str, count: int) -> list[tuple[bytes, bytes | int]]:
            events = [self._keys.events(session_id)]
            step = script_calls.read(events, [end], "message", most=count, largest=LONGEST_EVENT, backwards=True)
            answers = await self.run_script(step)
            return script_calls.entries(answers[0])[0] if answers else []

        try:
            return await read_interrupted_turn(read, read_stored_answers(kept))
        except (redis.RedisError, ValueError, LookupError) as error:
            log.error("session %s: its cut turn cannot be read back: %r", session_id, error)
            return InterruptedTurn("", [], [], {})

    async def end_session(self, look: SessionSnapshot, status: Status, reason: Reason, error: str) -> str:
        """End a session that has no live owner; answers the outcome, ``spoilt`` where only its state took it."""
        state = look.state
        step = script_calls.end(
            self._keys, state.session_id, state.epoch, look.inner.token, look.inner.nonce, status, reason, error,
            self._settings.retention_s,
        )  # fmt: skip
        try:
            return script_calls.text((await self.run_script(step))[0])
        except redis.ResponseError as refused:
            await self._end_unwritable(look, status, reason, error or f"{SPOILT}: {refused}")
            return "spoilt"

    async def _end_unwritable(self, look: SessionSnapshot, status: Status, reason: Reason, error: str) -> None:
        sid = look.state.session_id
        seen = (str(look.state.epoch), look.inner.token, look.inner.nonce)
        retention = str(int(self._settings.retention_s * 1000))
        args = [*seen, status.value, reason.value, error, str(script_calls.now_ms()), retention]
        await self._retry_outages(
            lambda: self._client.eval(_SPOILT, 4, *script_calls.session_keys(self._keys, sid), *args)
        )

    async def send_command(self, session_id: str, command: Command) -> str:
        """Append a command to an inbox, as a client does; answers the script's outcome."""
        return script_calls.texts(await self.run_script(script_calls.send(self._keys, session_id, command)))[0]

    async def run_script(self, step: ScriptCall) -> Any:
        """Run one atomic step, again until Redis answers: all of them may be repeated."""
        return await self._retry_outages(lambda: self._once(step))

    async def _once(self, step: ScriptCall) -> Any:
        return await self._scripts[step.script](keys=list(step.keys), args=list(step.args))
