"""Who owns which session: the worker's lease and token, claims, and the inboxes of what it owns.

Owns the lease key, the wake channel and the reading of inboxes. Does not own what a command means (session.py).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
import redis.asyncio

from agentrq.connection import is_outage
from agentrq.errors import AgentRQError
from agentrq.wire import scripts, steps
from agentrq.wire.codec import encode
from agentrq.wire.commands import MAX_PROMPT_BYTES, Command, Options, make_command, make_options
from agentrq.wire.ids import Cursor
from agentrq.wire.messages import SessionTotal
from agentrq.wire.state import Inner, State, read_inner, read_state
from agentrq.wire.status import Reason, Status
from agentrq.wire.steps import Step
from agentrq_worker.approvals import InvalidPolicy, read_policy
from agentrq_worker.claimed import Claimed, CutTurn, Waiting
from agentrq_worker.history import cut_turn
from agentrq_worker.session import Session
from agentrq_worker.settings import Settings

log = logging.getLogger(__name__)

CALL_TIMEOUT_S: Final = 10.0
RETRY_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0)
SPOILT: Final = "Its keys in Redis cannot be written"
PAGE: Final = 100
LONGEST_ID: Final = 64
LONGEST_COMMAND: Final = 2 * MAX_PROMPT_BYTES  # bytes; a prompt or an answer, and what stands around it
LONGEST_EVENT: Final = 2 * MAX_PROMPT_BYTES  # bytes; what a cut turn's event may have to be read back

_decode_command = msgspec.json.Decoder(Command).decode


_RENEW: Final = """
-- KEYS the worker's lease; ARGV its token, lease in ms. 0 where another process has taken the name. (What is no string
-- is nobody's lease.)
local token = redis.pcall('GET', KEYS[1])
if type(token) == 'string' and token ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

_SPOILT: Final = """
-- KEYS state, events, inbox, commands; ARGV epoch, token seen, status, reason, error, time in ms, retention in ms.
-- The end of a session whose stream takes no event any more: in its state alone. 0 where another writer came.
local seen = redis.call('HMGET', KEYS[1], 'epoch', 'token')
if seen[1] ~= ARGV[1] or (seen[2] or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'status', ARGV[3], 'reason', ARGV[4], 'error', ARGV[5], 'endedAt', ARGV[6])
redis.call('HDEL', KEYS[1], 'worker', 'token', 'pid')
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[7]) end
return 1
"""


def read_command(data: bytes | int) -> Command:
    """One inbox entry (its size, where it is too large): what a client would have sent, whoever wrote it.

    Raises ValueError, RecursionError.
    """
    if isinstance(data, int):
        raise ValueError(f"{data} bytes")
    return make_command(_decode_command(data))


def _entries(answer: Any) -> tuple[list[tuple[bytes, bytes | int]], bool]:
    """One stream's part of what `steps.read` answers, and whether there may be more. Raises redis.ResponseError."""
    if isinstance(answer, bytes):
        raise redis.ResponseError(steps.text(answer))
    return list(zip(answer[1::2], answer[2::2], strict=True)), bool(answer[0])


def _read_options(data: str) -> tuple[Options, str | None]:
    """What a start asked for, or why that cannot be known: never the defaults in its place, they allow more."""
    try:
        options = make_options(msgspec.json.decode(data, type=dict[str, Any]))
        read_policy(options.approvals)
    except InvalidPolicy as error:
        return Options(), f"Its options cannot be read: approvals: {str(error)[:300]}"
    except (ValueError, RecursionError) as error:
        return Options(), f"Its options cannot be read: {str(error)[:300]}"
    return options, None


class NameTaken(Exception):
    """Another live worker has this name."""


class Look(NamedTuple):
    """A session as it was read: its state, bookkeeping, and whether its owner's lease lives."""

    state: State
    inner: Inner
    owned: bool


class Claim(NamedTuple):
    """A claim that succeeded: what to run and where its events go on."""

    claimed: Claimed
    cursor: Cursor
    state: dict[str, Any]
    """The state's fields as they are known here."""


class Ownership:
    """This worker's lease and what it owns under it."""

    def __init__(self, client: redis.asyncio.Redis, live: redis.asyncio.Redis, settings: Settings) -> None:
        self.name = settings.worker_name
        self.token = secrets.token_hex(16)
        """New in each process, so that a name that is used again never passes for its predecessor."""
        self.sessions: dict[str, Session] = {}
        self.beats = 0
        self._client = client
        self._live = live
        self._settings = settings
        self._keys = settings.keys
        self._scripts = {name: client.register_script(source) for name, source in scripts.SOURCES.items()}
        self._read_to: dict[str, bytes] = {}
        self._woken: set[str] = set()
        self._unreadable: set[str] = set()  # told once
        self._wake = asyncio.Event()

    # -- the lease

    async def begin(self) -> None:
        """Take the lease, waiting for that of a dead worker of this name to run out; raises `NameTaken`."""
        key, lease = self._keys.worker(self.name), int(self._settings.lease_s * 1000)
        left: int | None = None
        while not await self._client.set(key, self.token, nx=True, px=lease):
            before, left = left, await self._client.pttl(key)
            if await self._client.get(key) == self.token.encode():
                return
            if left < 0 or (before is not None and left > before):
                raise NameTaken(f"There is a live worker named {self.name!r} already: choose another --name")
            if before is None:
                log.info("the name %s is held for %.1f s more, perhaps by a worker that died", self.name, left / 1000)
            await asyncio.sleep(min(left / 1000 + 0.01, 0.5))

    async def end(self) -> None:
        """Give the lease back, if it is still ours."""
        key = self._keys.worker(self.name)
        if await self._call(lambda: self._client.get(key)) == self.token.encode():
            await self._call(lambda: self._client.delete(key))

    async def keep(self) -> None:
        """Renew the lease on every beat; after a stall find out which sessions were taken over.

        Raises `NameTaken` where another process has taken the name meanwhile.
        """
        beaten = time.monotonic()
        while True:
            await self._call(self._renew)
            gap, beaten = time.monotonic() - beaten, time.monotonic()
            stalled = gap > self._settings.lease_s / 2
            if stalled:
                log.warning("stalled for %.1f s: checking which sessions are still owned here", gap)
            if stalled or self.beats % 4 == 3:
                await self._call(self._check_owned)
            self.beats += 1
            self._woken.update(self.sessions)  # wakes are hints: what one of them missed is found here
            self._wake.set()
            await asyncio.sleep(self._settings.beat_s)

    async def _renew(self) -> None:
        lease = int(self._settings.lease_s * 1000)
        answer: Any = await self._client.eval(_RENEW, 1, self._keys.worker(self.name), self.token, str(lease))
        if not answer:
            raise NameTaken(f"Another process has taken the name {self.name!r} while this one stood still")

    async def _check_owned(self) -> None:
        owned = list(self.sessions.items())
        for at in range(0, len(owned), 500):
            part = owned[at : at + 500]
            async with self._client.pipeline(transaction=False) as pipeline:
                for sid, _ in part:
                    pipeline.hmget(self._keys.state(sid), "epoch", "token", "status")
                answers = await pipeline.execute(raise_on_error=False)
            for (sid, session), answer in zip(part, answers, strict=True):
                if sid not in self.sessions:
                    continue
                if isinstance(answer, Exception) and is_outage(answer):
                    raise answer
                try:
                    if self._taken_over(session, *answer):
                        session.supersede("fenced")
                except (ValueError, TypeError) as error:  # garbage, or no hash: its session's loss and nobody else's
                    log.error("session %s: its state cannot be read: %s", sid, error)
                    session.supersede("unreadable")

    def _taken_over(self, session: Session, epoch: bytes | None, token: bytes | None, status: bytes | None) -> bool:
        # An older epoch, or none: Redis came back without ours, and the publisher gives it back.
        if epoch is None or int(epoch) < session.epoch:
            return False
        return token != self.token.encode() and status not in (b"done", b"error")

    # -- claims

    async def look(self, session_id: str) -> Look | None:
        """The session as it is now; None when there is none (or its state is unreadable)."""

        async def read() -> Look | None:
            try:
                raw = steps.look_answer(await self._once(steps.look(self._keys, session_id)))
            except ValueError as error:
                log.error("session %s: %s", session_id, error)
                return None
            state = read_state(session_id, raw)
            if state is None:
                return None
            inner, owned = read_inner(raw), False
            if inner.token and state.worker:
                owned = await self._client.get(self._keys.worker(state.worker)) == inner.token.encode()
            return Look(state, inner, owned)

        found: Look | None = await self._call(read)
        return found

    async def open(self, session_id: str, provider: str, prompt: str, options: Options, job_id: str) -> str:
        """Give a start that came without a state one; answers ``created`` or ``exists``."""
        await self._call(lambda: self._client.zadd(self._keys.sessions, {session_id: steps.now_ms()}, nx=True))
        step = steps.open_session(
            self._keys, session_id, provider, prompt, options, secrets.token_hex(8), self._settings.queue, job_id
        )
        return steps.text(await self.run(step))

    async def claim(self, look: Look) -> Claim | None:
        """Become the owner of a session that has no live one; None if somebody else was first or it ended."""
        state, inner = look.state, look.inner
        sid = state.session_id
        if inner.stop:
            await self.finish(look, Status.DONE, Reason.STOPPED, "")
            return None
        step = steps.claim(self._keys, sid, self.name, self.token, state.epoch, inner.token)
        try:
            outcome, _, cursor = steps.texts(await self.run(step))
        except redis.ResponseError as error:
            await self.finish(look, Status.ERROR, Reason.LOST, f"{SPOILT}: {error}")
            raise AgentRQError(f"Session {sid}: {SPOILT}: {error}") from None
        if outcome != "claimed":
            log.info("session %s: not claimed: %s", sid, outcome)
            return None
        options, unreadable = _read_options(inner.options)
        if state.provider_session_id is not None and inner.prompted:
            options = msgspec.structs.replace(options, resume=state.provider_session_id)
        # Requests outlive a cut turn until they are answered or a whole turn has passed.
        cut = await self._cut_turn(sid) if inner.turn or state.pending_approvals else None
        claimed = Claimed(
            session_id=sid,
            provider=state.provider,
            prompt=inner.prompt,
            options=options,
            recovering=inner.prompted,
            cut=cut if inner.turn else None,
            recoveries=inner.recoveries + bool(inner.token),
            total=SessionTotal(state.cost_usd, state.input_tokens, state.output_tokens, state.num_turns),
            started_at=state.started_at or steps.now_ms(),
            asked=cut.asked if cut is not None and not inner.turn else (),
            unreadable=unreadable,
        )
        mine = {"worker": self.name, "status": Status.STARTING, "startedAt": claimed.started_at}
        known = self._whole_state(look) | mine
        return Claim(claimed, Cursor.parse(cursor), known)

    def _whole_state(self, look: Look) -> dict[str, Any]:
        """The state as fields: what a Redis that lost the session is given back."""
        state: dict[str, Any] = msgspec.to_builtins(look.state) | msgspec.to_builtins(look.inner)
        for name in ("sessionId", "epoch", "cursor", "token"):
            state.pop(name, None)
        state["metadata"] = encode(look.state.metadata)
        return {name: int(value) if isinstance(value, bool) else value for name, value in state.items()
                if value is not None}  # fmt: skip

    async def _cut_turn(self, session_id: str) -> CutTurn:
        async def read(end: str, count: int) -> list[tuple[bytes, bytes | int]]:
            events = [self._keys.events(session_id)]
            step = steps.read(events, [end], "message", most=count, largest=LONGEST_EVENT, backwards=True)
            (answer,) = await self.run(step)
            return _entries(answer)[0]

        try:
            return await cut_turn(read)
        except (redis.RedisError, ValueError, LookupError) as error:
            log.error("session %s: its cut turn cannot be read back: %r", session_id, error)
            return CutTurn("", [], [])

    async def finish(self, look: Look, status: Status, reason: Reason, error: str) -> str:
        """End a session that has no live owner; answers the outcome, ``spoilt`` where only its state took it."""
        state = look.state
        step = steps.end(
            self._keys, state.session_id, state.epoch, look.inner.token, status, reason, error,
            self._settings.retention_s,
        )  # fmt: skip
        try:
            return steps.text((await self.run(step))[0])
        except redis.ResponseError as refused:
            await self._give_up(look, status, reason, error or f"{SPOILT}: {refused}")
            return "spoilt"

    async def _give_up(self, look: Look, status: Status, reason: Reason, error: str) -> None:
        sid = look.state.session_id
        seen, retention = (str(look.state.epoch), look.inner.token), str(int(self._settings.retention_s * 1000))
        args = [*seen, status.value, reason.value, error, str(steps.now_ms()), retention]
        await self._call(lambda: self._client.eval(_SPOILT, 4, *steps.session_keys(self._keys, sid), *args))

    async def send(self, session_id: str, command: Command) -> str:
        """Append a command to an inbox, as a client does; answers the script's outcome."""
        return steps.texts(await self.run(steps.send(self._keys, session_id, command)))[0]

    async def run(self, step: Step) -> Any:
        """Run one atomic step, again until Redis answers: all of them may be repeated."""
        return await self._call(lambda: self._once(step))

    async def _once(self, step: Step) -> Any:
        return await self._scripts[step.script](keys=list(step.keys), args=list(step.args))

    async def _call(self, call: Callable[[], Any]) -> Any:
        failures = 0
        while True:
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    return await call()
            except (redis.RedisError, OSError) as error:
                if not is_outage(error):
                    raise
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1

    # -- inboxes

    def add(self, session: Session) -> None:
        """Deliver this session's commands from now on, those that wait already first."""
        self.sessions[session.id] = session
        self._read_to.pop(session.id, None)  # of a claim before, whose session may still be ending here
        self._woken.add(session.id)
        self._wake.set()

    def drop(self, session: Session) -> None:
        """Deliver nothing more to this session."""
        if self.sessions.get(session.id) is session:
            del self.sessions[session.id]
            self._read_to.pop(session.id, None)
        self._unreadable.discard(session.id)

    async def deliver(self) -> None:
        """Read the inboxes of sessions that were woken, one round trip for all of them, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            woken, self._woken = [sid for sid in self._woken if sid in self.sessions], set()
            for at in range(0, len(woken), PAGE):
                await self._call(functools.partial(self._read, woken[at : at + PAGE]))

    async def _read(self, woken: list[str]) -> None:
        readers = [self.sessions.get(sid) for sid in woken]
        inboxes = [self._keys.inbox(sid) for sid in woken]
        starts = [f"({self._read_to[sid].decode()}" if sid in self._read_to else "-" for sid in woken]
        answers = await self._once(steps.read(inboxes, starts, "command", most=PAGE, largest=LONGEST_COMMAND))
        for sid, reader, answer in zip(woken, readers, answers, strict=True):
            if reader is None or self.sessions.get(sid) is not reader:
                continue  # it left, or was claimed anew: that one begins at the inbox's beginning
            try:
                entries, more = _entries(answer)
            except redis.ResponseError as error:
                if sid not in self._unreadable:
                    log.error("session %s: its inbox cannot be read: %s", sid, error)
                    self._unreadable.add(sid)
                continue
            for entry, data in entries:
                self._read_to[sid] = entry
                self._deliver_one(sid, entry, data)
            if more:
                self._woken.add(sid)
                self._wake.set()

    def _deliver_one(self, sid: str, entry: bytes, data: bytes | int) -> None:
        session = self.sessions.get(sid)
        if session is None:
            return
        try:
            command = read_command(data)
        except (ValueError, RecursionError) as error:
            log.error("session %s: inbox entry %s is no command and is passed over: %.300r", sid, entry.decode(), error)
            return
        session.deliver(Waiting(entry, command))

    async def listen(self) -> None:
        """Keep the subscription to this worker's wakes, until cancelled."""
        channel = self._keys.wake_channel(self.name)
        failures = 0
        while True:
            pubsub = self._live.pubsub()
            try:
                await pubsub.subscribe(channel)
                failures = 0
                await self._wakes(pubsub)
            except (redis.RedisError, OSError) as error:
                log.info("wakes: connection lost, made anew: %s", error)
                failures += 1
            finally:
                await pubsub.aclose()
            await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])

    async def _wakes(self, pubsub: Any) -> None:
        while True:
            message = await pubsub.get_message(timeout=self._settings.lease_s)
            if message is None:
                await pubsub.ping()
            elif message["type"] == "message":
                sid = message["data"][:LONGEST_ID].decode("utf-8", "replace")
                if sid in self.sessions:
                    self._woken.add(sid)
                    self._wake.set()
            elif message["type"] == "subscribe":
                self._woken.update(self.sessions)
                self._wake.set()
