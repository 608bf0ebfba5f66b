"""Reads states of sessions, each with whether its worker is lost. Owns neither which sessions, nor their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from agentrq.client.leases import is_lost
from agentrq.client.redis_requests import Batch, Context, Operation, T
from agentrq.errors import SessionNotFound
from agentrq.wire import script_calls, scripts
from agentrq.wire.ids import check_session_id, is_session_id
from agentrq.wire.script_calls import ScriptCall, text
from agentrq.wire.state import STATE_FIELDS, State, read_state

PAGE: Final = 500
"""States that are read in one round trip."""
_FIELDS: Final = (*STATE_FIELDS, "openRequests", "token")


class OwnedState(NamedTuple):
    """A state as it was read, and its owner's token ('': it has none)."""

    state: State
    token: str

    @property
    def has_owner(self) -> bool:
        """Whether a worker owns it."""
        return bool(self.token and self.state.worker) and not self.state.ended


class StatesRead(NamedTuple):
    """What was found of some sessions. One whose state cannot be read is in neither."""

    found: list[OwnedState]
    gone: list[str]
    """Ids without any state."""


def state(context: Context, session_id: str) -> Operation[State]:
    """The session's state; raises `SessionNotFound`."""
    check_session_id(session_id)
    (values,) = yield Batch([("HMGET", context.keys.state(session_id), *_FIELDS)])
    found = _read_values(session_id, values)
    if found is None:
        raise SessionNotFound(session_id)
    (checked,) = yield from check_leases(context, [found])
    return checked


def states(context: Context) -> Operation[list[State]]:
    """The states of all sessions, the oldest start first. Ids without a state are forgotten."""
    (members,) = yield Batch([("ZRANGE", context.keys.sessions, 0, -1)])
    ids = [text(member) for member in members if is_session_id(member)]
    found: list[State] = []
    gone: list[str] = []
    for at in range(0, len(ids), PAGE):
        read = yield from read_states(context, ids[at : at + PAGE])
        found += yield from check_leases(context, read.found)
        gone += read.gone
    yield from forget(context, gone)
    return found


def read_states(context: Context, session_ids: Sequence[str]) -> Operation[StatesRead]:
    """The states of these sessions, in this order, in one round trip."""
    answers = yield Batch([("HMGET", context.keys.state(sid), *_FIELDS) for sid in session_ids], apart=True)
    read = StatesRead([], [])
    for sid, values in zip(session_ids, answers, strict=True):
        if isinstance(values, Exception):
            if "WRONGTYPE" not in str(values):
                raise values
            continue
        state = _read_values(sid, values)
        if state is not None:
            read.found.append(state)
        elif not any(value is not None for value in values):
            read.gone.append(sid)
    return read


def check_leases(context: Context, found: Sequence[OwnedState]) -> Operation[list[State]]:
    """The states, those without their owner's lease marked ``worker_lost``."""
    owners = {each.state.worker for each in found if each.has_owner}
    leases: dict[str | None, Any] = {}
    if owners:
        answers = yield Batch([("GET", context.keys.worker(name or "")) for name in owners], apart=True)
        leases = dict(zip(owners, answers, strict=True))
    return [
        each.state.without_worker() if each.has_owner and is_lost(leases[each.state.worker], each.token) else each.state
        for each in found
    ]


def forget(context: Context, gone: Sequence[str], sets: Sequence[str] = ()) -> Operation[None]:
    """Take sessions that have no state out of the indexes. A user who may only read leaves it to others."""
    if gone:
        yield from try_script(script_calls.prune_index(context.keys, gone, sets))


def try_script(call: ScriptCall[T]) -> Operation[T | None]:
    """Run a script that puts an index right; None where it is refused, and left to others."""
    command = ("EVAL", scripts.SOURCES[call.script], len(call.keys), *call.keys, *call.args)
    (answer,) = yield Batch([command], apart=True)
    return None if isinstance(answer, Exception) else call.read(answer)


def _read_values(session_id: str, values: list[bytes | None]) -> OwnedState | None:
    """The state by the values of `_FIELDS`, None where it is unreadable."""
    raw = {name.encode(): value for name, value in zip(_FIELDS, values, strict=True) if value is not None}
    token = raw.pop(b"token", b"")
    found = read_state(session_id, raw)
    return None if found is None else OwnedState(found, text(token))
