"""Reads what a diagnosis of one session is made from: state, inbox, last events, lease, RQ's job and queue, workers.

Owns which keys are read. Does not own what they mean (diagnosis.py). Changes nothing; what this Redis user may not read
is unknown.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from agentrq.client.redis_requests import Batch, Context, Operation
from agentrq.errors import SessionNotFound
from agentrq.rq_commands import FREE_SLOTS, SUSPENDED, WORKER_PREFIX, job_key, workers_key
from agentrq.wire.codec import decode_entry
from agentrq.wire.events import Event
from agentrq.wire.ids import check_session_id
from agentrq.wire.script_calls import text
from agentrq.wire.state import Inner, State, read_inner, read_state

LAST_EVENTS: Final = 50
"""How many of the last events are read."""


class WorkerEvidence(NamedTuple):
    """A worker that RQ lists for the session's queue. ``free`` slots; None if it does not say."""

    name: str
    alive: bool
    free: int | None


class Evidence(NamedTuple):
    """What is known of one session at one moment. Times are ms of Redis's clock; None: unknown or absent."""

    now: int
    state: State
    inner: Inner
    queue: str
    events: list[Event]
    """The last ones, oldest first."""
    inbox_size: int
    inbox_since: int | None
    """When the oldest command that nobody has taken was sent."""
    lease: str | None
    """``held`` by the session's owner, ``lost``, or None: it has no owner."""
    job: str | None
    """The status of RQ's job; ``missing`` if there is none."""
    job_position: int | None
    """How many jobs are before it in the queue."""
    queue_length: int | None
    workers: list[WorkerEvidence] | None
    suspended: bool | None
    memory_full: bool | None


def collect_evidence(context: Context, session_id: str) -> Operation[Evidence]:
    """Read the evidence about a session. Raises `SessionNotFound`, `InvalidSessionId`."""
    keys = context.keys
    check_session_id(session_id)
    now, raw, size, oldest, entries = yield Batch(
        [
            ("TIME",),
            ("HGETALL", keys.state(session_id)),
            ("XLEN", keys.inbox(session_id)),
            ("XRANGE", keys.inbox(session_id), "-", "+", "COUNT", 1),
            ("XREVRANGE", keys.events(session_id), "+", "-", "COUNT", LAST_EVENTS),
        ]
    )
    state, inner = read_state(session_id, raw), read_inner(raw)
    if state is None:
        raise SessionNotFound(session_id)
    queue = inner.queue or context.queue
    job_id = inner.job_id or session_id
    answers = yield Batch(
        [
            ("GET", keys.worker(state.worker or "")),
            ("HGET", job_key(job_id), "status"),
            ("LPOS", f"rq:queue:{queue}", job_id),
            ("LLEN", f"rq:queue:{queue}"),
            ("EXISTS", SUSPENDED),
            ("SMEMBERS", workers_key(queue)),
            ("INFO", "memory"),
        ],
        apart=True,
    )
    lease, job, position, length, suspended, names, memory = (
        None if isinstance(answer, Exception) else answer for answer in answers
    )
    return Evidence(
        now=milliseconds(now),
        state=state,
        inner=inner,
        queue=queue,
        events=[event for event in map(_decode, reversed(entries)) if event is not None],
        inbox_size=int(size),
        inbox_since=int(text(oldest[0][0]).partition("-")[0]) if oldest else None,
        lease=_lease(state, inner, lease),
        job=None if isinstance(answers[1], Exception) else text(job) if job else "missing",
        job_position=position,
        queue_length=length,
        workers=None if names is None else (yield from read_workers(context, sorted(text(name) for name in names))),
        suspended=None if suspended is None else bool(suspended),
        memory_full=_is_full(memory),
    )


def read_workers(context: Context, keys: list[str]) -> Operation[list[WorkerEvidence]]:
    """The workers by their keys in RQ, each with whether its lease is live, and its free slots."""
    names = [key.removeprefix(WORKER_PREFIX) for key in keys]
    commands = [("GET", context.keys.worker(name)) for name in names]
    answers = yield Batch([*commands, *(("HGET", key, FREE_SLOTS) for key in keys)], apart=True)
    leases, free = answers[: len(names)], answers[len(names) :]
    return [
        WorkerEvidence(name, isinstance(lease, bytes), int(slots) if isinstance(slots, bytes) else None)
        for name, lease, slots in zip(names, leases, free, strict=True)
    ]


def _decode(entry: tuple[bytes, dict[bytes, bytes]]) -> Event | None:
    """An entry of the stream; None for one that cannot be read."""
    try:
        return decode_entry(*next(iter(entry[1].items())))
    except (ValueError, StopIteration):
        return None


def _lease(state: State, inner: Inner, token: Any) -> str | None:
    if not (state.worker and inner.token):
        return None
    return "held" if token is not None and text(token) == inner.token else "lost"


def milliseconds(time: Any) -> int:
    """TIME's answer: seconds and microseconds."""
    seconds, microseconds = time
    return int(seconds) * 1000 + int(microseconds) // 1000


def _is_full(memory: Any) -> bool | None:
    if not isinstance(memory, dict):
        return None
    return bool(memory.get("maxmemory")) and memory["used_memory"] >= memory["maxmemory"]
