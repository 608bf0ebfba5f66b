"""What a client does, as plain generators: each yields the Redis work it needs and is sent the answers.

sync_client.py and asyncio_client.py only run these: no rule of the product stands in both. Owns no connection.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias, TypeVar

from msgspec import to_builtins

from agentrq import rq_commands
from agentrq.errors import AgentRQError, InboxFull, InvalidOption, SessionEnded, SessionExists, SessionNotFound
from agentrq.wire import script_calls, scripts
from agentrq.wire.codec import decode_entry
from agentrq.wire.commands import MAX_INBOX, Command, Options, check_text, make_command, make_options
from agentrq.wire.ids import check_session_id, is_session_id, new_id
from agentrq.wire.keys import Keys, queue_name
from agentrq.wire.messages import Receipt
from agentrq.wire.script_calls import EndOutcome, ScriptCall
from agentrq.wire.state import Inner, State, read_inner, read_state
from agentrq.wire.status import Reason, Status


class Batch(NamedTuple):
    """Raw Redis commands, sent in one go; ``atomic`` puts them in a MULTI, ``apart`` gives an error as its answer."""

    commands: list[tuple[Any, ...]]
    atomic: bool = False
    apart: bool = False


T = TypeVar("T")
Operation: TypeAlias = Generator[ScriptCall[Any] | Batch, Any, T]
"""What it yields is answered by the client: a `ScriptCall` by what its ``read`` gives, a `Batch` by a list."""


def run_script(call: ScriptCall[T]) -> Operation[T]:
    """One script call, with its answer's type."""
    answer: T = yield call
    return answer


class Context(NamedTuple):
    """What all operations of one client share: names, RQ's queue, and times in seconds.

    ``retention_s``: how long an ended session is kept; ``recovery_timeout_s``: how long a session may be without an
    owner before whoever follows it ends it.
    """

    keys: Keys
    queue: str
    retention_s: float = script_calls.DEFAULT_RETENTION_S
    recovery_timeout_s: float = script_calls.DEFAULT_RECOVERY_TIMEOUT_S

    @classmethod
    def from_environment(cls) -> Context:
        """From ``AGENTRQ_PREFIX``, ``AGENTRQ_QUEUE``, ``AGENTRQ_RETENTION_S``, ``AGENTRQ_RECOVERY_TIMEOUT_S``."""
        return cls(
            Keys.from_environment(),
            queue_name(),
            _seconds("AGENTRQ_RETENTION_S", script_calls.DEFAULT_RETENTION_S),
            _seconds("AGENTRQ_RECOVERY_TIMEOUT_S", script_calls.DEFAULT_RECOVERY_TIMEOUT_S),
        )


def _seconds(variable: str, default: float) -> float:
    given = os.environ.get(variable)
    try:
        seconds = float(given) if given else default
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e9:
        raise InvalidOption(variable, f"Expected seconds above 0, got {given!r}")
    return seconds


def start(
    context: Context, provider: str, prompt: str, session_id: str | None, given: dict[str, Any]
) -> Operation[str]:
    """Open a session and enqueue its start; answers the session id."""
    sid = check_session_id(new_id() if session_id is None else session_id)
    options = make_options(given)
    check_text("provider", provider)
    check_text("prompt", prompt)
    # In one step: a state without a job would be a start that nobody sees.
    created_at = datetime.now(UTC)
    outcome = yield from run_script(script_calls.open_session(
        context.keys, sid, provider, prompt, options, new_id(), context.queue,
        extra_commands=enqueue(context.queue, sid, provider, prompt, options, created_at),
        job_created_at=rq_commands.format_time(created_at),
    ))  # fmt: skip
    if outcome == "exists":
        raise SessionExists(sid)
    return sid


def enqueue(
    queue: str, session_id: str, provider: str, prompt: str, options: Options, created_at: datetime
) -> list[tuple[Any, ...]]:
    """The commands that enqueue a session's start."""
    arguments = [session_id, provider, prompt, to_builtins(options)]
    return rq_commands.start_job(queue, session_id, arguments, created_at)


class SessionSnapshot(NamedTuple):
    """A state with its bookkeeping and whether its owner's lease lives."""

    state: State
    inner: Inner
    owned: bool


def look(context: Context, session_id: str) -> Operation[SessionSnapshot]:
    """The state as it is, and whether a live worker owns the session."""
    check_session_id(session_id)
    (raw,) = yield Batch([("HGETALL", context.keys.state(session_id))])
    state, inner = read_state(session_id, raw), read_inner(raw)
    if state is None:
        raise SessionNotFound(session_id)
    owned = False
    if inner.token and state.worker:
        (token,) = yield Batch([("GET", context.keys.worker(state.worker))])
        owned = token is not None and script_calls.text(token) == inner.token
    return SessionSnapshot(state, inner, owned)


def state(context: Context, session_id: str) -> Operation[State]:
    """The session's state; raises `SessionNotFound`."""
    check_session_id(session_id)
    (raw,) = yield Batch([("HGETALL", context.keys.state(session_id))])
    found = read_state(session_id, raw)
    if found is None:
        raise SessionNotFound(session_id)
    return found


def states(context: Context) -> Operation[list[State]]:
    """The states of all sessions, the oldest start first; forgets ids whose state is gone, passes over what is none."""
    (members,) = yield Batch([("ZRANGE", context.keys.sessions, 0, -1, "WITHSCORES")])
    ids = [(script_calls.text(member), float(score)) for member, score in _pairs(members) if is_session_id(member)]
    found: list[State] = []
    gone: list[str] = []
    for at in range(0, len(ids), 500):
        part = ids[at : at + 500]
        answers = yield Batch([("HGETALL", context.keys.state(sid)) for sid, _ in part], apart=True)
        for (sid, started), raw in zip(part, answers, strict=True):
            if isinstance(raw, Exception):
                if "WRONGTYPE" not in str(raw):
                    raise raw
                continue
            known = read_state(sid, raw)
            if known is not None:
                found.append(known)
            elif not raw and started < script_calls.now_ms() - 60_000:  # it may be just beginning
                gone.append(sid)
    if gone:
        call = script_calls.prune_index(context.keys, gone)
        command = ("EVAL", scripts.SOURCES[call.script], len(call.keys), *call.keys, *call.args)
        yield Batch([command], apart=True)  # who may only read leaves it to others
    return found


def _pairs(members: list[Any]) -> list[tuple[Any, Any]]:
    """ZRANGE WITHSCORES as pairs: RESP2 answers a flat list, RESP3 (and redis-py's parsing) pairs."""
    if members and not isinstance(members[0], list | tuple):
        return list(zip(members[::2], members[1::2], strict=True))
    return [(member, score) for member, score in members]


def send(context: Context, session_id: str, command: Command) -> Operation[str]:
    """One command into the session's inbox; answers the command's id."""
    check_session_id(session_id)
    make_command(command)
    outcome, detail = yield from run_script(script_calls.send_command(context.keys, session_id, command))
    if outcome == "missing":
        raise SessionNotFound(session_id)
    if outcome == "ended":
        raise SessionEnded(session_id, detail)
    if outcome == "full":
        raise InboxFull(session_id, MAX_INBOX)
    return command.command_id


def send_awaited(context: Context, session_id: str, command: Command) -> Operation[tuple[str, Receipt | None]]:
    """As `send`; answers the cursor after which the receipt will come, and the receipt if it is there already."""
    before = (yield from state(context, session_id)).cursor
    yield from send(context, session_id, command)
    return before, (yield from receipt(context, session_id, command.command_id))


def stop(context: Context, session_id: str, command_id: str | None = None) -> Operation[str]:
    """Stop a session: its owner is told; where none lives the end is written here. An ended session is stopped."""
    command = Command(command_id=command_id or new_id(), command="stop", timestamp=script_calls.now_ms())
    for _ in range(20):
        try:
            yield from send(context, session_id, command)
        except SessionEnded:
            return command.command_id
        seen = yield from look(context, session_id)
        if seen.owned or seen.state.ended:
            return command.command_id
        outcome = yield from end(context, seen, Status.DONE, Reason.STOPPED, "")
        if outcome != "changed":
            return command.command_id
    raise AgentRQError(f"Session {session_id} changes its owner too often to be stopped: try again")


def end(context: Context, seen: SessionSnapshot, status: Status, reason: Reason, error: str) -> Operation[EndOutcome]:
    """End a session no live worker owns, unless its owner changed since it was looked at; answers the outcome."""
    sid = seen.state.session_id
    # In one step: from its end on the id may be another session's, whose job is not to be canceled.
    also = rq_commands.cancel_job(context.queue, sid) if seen.state.status is Status.QUEUED else []
    return (yield from run_script(script_calls.end_session(
        context.keys, sid, seen.state.epoch, seen.inner.token, seen.inner.nonce, status, reason, error,
        context.retention_s, also,
    )))  # fmt: skip


class OwnerWatch:
    """Whether a followed session still has somebody who serves it, as a reader sees it over time."""

    def __init__(self, context: Context, session_id: str) -> None:
        self._context = context
        self._session_id = session_id
        self._alone: tuple[float, int] | None = None

    def check(self) -> Operation[None]:
        """Look once; end a session that had no owner for the recovery timeout, so that nobody waits for ever."""
        seen = yield from look(self._context, self._session_id)
        if seen.owned or seen.state.ended or seen.state.status is Status.QUEUED:
            self._alone = None
            return
        if seen.inner.stop:
            yield from end(self._context, seen, Status.DONE, Reason.STOPPED, "")
            return
        (suspended,) = yield Batch([("EXISTS", rq_commands.SUSPENDED)])
        if suspended:  # no worker takes it on purpose
            self._alone = None
            return
        if self._alone is None or self._alone[1] != seen.state.epoch:
            self._alone = (time.monotonic(), seen.state.epoch)
        if time.monotonic() - self._alone[0] >= self._context.recovery_timeout_s:
            error = f"Its worker was lost and no other took it within {self._context.recovery_timeout_s:g} s"
            yield from end(self._context, seen, Status.ERROR, Reason.LOST, error)


def remove(context: Context, session_id: str) -> Operation[bool]:
    """Delete an ended session; False while it lives (stop it first, wait for the end, then remove again)."""
    check_session_id(session_id)
    # In one step: from then on the id is free, and what is named after it may be another session's.
    also = [("ZREM", context.keys.sessions, session_id), *rq_commands.delete_job(context.queue, session_id)]
    outcome = yield from run_script(script_calls.remove_session(context.keys, session_id, "", also))
    if outcome == "missing":
        raise SessionNotFound(session_id)
    return outcome == "removed"


def receipt(context: Context, session_id: str, command_id: str) -> Operation[Receipt | None]:
    """The receipt of a command, None while it waits. Raises `AgentRQError` where it is not kept any more."""
    check_session_id(session_id)
    (cursor,) = yield Batch([("HGET", context.keys.commands(session_id), command_id)])
    if not cursor:
        return None
    (entries,) = yield Batch([("XRANGE", context.keys.events(session_id), cursor, cursor)])
    for _, fields in entries:
        event = decode_entry(*next(iter(fields.items())))
        if isinstance(event, Receipt):
            return event
    raise AgentRQError(f"Session {session_id} keeps the receipt of {command_id} no more")
