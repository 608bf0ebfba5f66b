"""Reads what no single worker knows: a queue's length and age, its workers and their free slots, Redis's memory.

Owns which keys are read. Does not own sessions (session_list.py, waiting_list.py). Changes nothing.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Any, Final, NamedTuple

from agentrq.client.evidence import milliseconds
from agentrq.client.redis_requests import Batch, Context, Operation
from agentrq.rq_commands import (
    FREE_SLOTS,
    SUSPENDED,
    WORKER_DRAINING,
    WORKER_PREFIX,
    WORKER_SLOTS,
    WORKER_VERSION,
    job_key,
    workers_key,
)
from agentrq.wire.keys import control_queue
from agentrq.wire.script_calls import text

_FIELDS: Final = ("hostname", "pid", WORKER_SLOTS, FREE_SLOTS, WORKER_DRAINING, WORKER_VERSION)
"""Of RQ's hash of a worker."""


class FleetWorker(NamedTuple):
    """A worker that RQ lists for the queue. What it does not say, or an older one does not know of, is None."""

    name: str
    lease_ms: int | None
    """Milliseconds until its lease runs out if it is not renewed; None: it has none, its worker is lost or gone."""
    host: str | None
    """The name of its machine."""
    pid: int | None
    slots: int | None
    """Sessions that it may host at once."""
    free: int | None
    """Sessions that it would take now; 0 while it is draining."""
    draining: bool
    """It ends: turns finish, then its sessions are handed over."""
    version: str | None
    """The version of agentrq-worker that it runs."""

    @property
    def alive(self) -> bool:
        """Whether its lease is live."""
        return self.lease_ms is not None


class Fleet(NamedTuple):
    """What was read at one moment. ``now`` in ms since the epoch, by Redis's clock."""

    now: int
    queue: str
    """The queue of starts."""
    queue_length: int
    """Starts that wait in it."""
    commands_length: int
    """Commands that wait in the queue of the other commands."""
    oldest_ms: int | None
    """When the start that is first in the queue was created, by Redis's clock; of a foreign job by its client's."""
    workers: list[FleetWorker]
    """Those that RQ lists for the queue, by name; some may be gone."""
    suspended: bool
    """Whether RQ is suspended: no worker takes a job."""
    used_memory: int | None
    """Bytes that Redis uses; None where this Redis user may not read it."""
    max_memory: int | None
    """Bytes that it may use; 0: no bound."""


def read_fleet(context: Context) -> Operation[Fleet]:
    """What is known now of the queue of starts and of who serves it."""
    queue_key = f"rq:queue:{context.queue}"
    answers = yield Batch(
        [
            ("TIME",),
            ("LLEN", queue_key),
            ("LINDEX", queue_key, 0),
            ("SMEMBERS", workers_key(context.queue)),
            ("EXISTS", SUSPENDED),
            ("LLEN", f"rq:queue:{control_queue(context.queue)}"),
        ]
    )
    now, length, first, names, suspended, commands = answers
    (memory,) = yield Batch([("INFO", "memory")], apart=True)
    known = memory if isinstance(memory, dict) else {}
    return Fleet(
        now=milliseconds(now),
        queue=context.queue,
        queue_length=int(length),
        commands_length=int(commands),
        oldest_ms=None if first is None else (yield from _created(context, text(first))),
        workers=(yield from _read_workers(context, sorted(text(name) for name in names))),
        suspended=bool(suspended),
        used_memory=_number(known.get("used_memory")),
        max_memory=_number(known.get("maxmemory")),
    )


def _read_workers(context: Context, keys: list[str]) -> Operation[list[FleetWorker]]:
    names = [key.removeprefix(WORKER_PREFIX) for key in keys]
    leases = yield Batch([("PTTL", context.keys.worker(name)) for name in names], apart=True)
    records = yield Batch([("HMGET", key, *_FIELDS) for key in keys], apart=True)
    return [_worker(*found) for found in zip(names, leases, records, strict=True)]


def _worker(name: str, lease: Any, record: Any) -> FleetWorker:
    told = [None] * len(_FIELDS) if isinstance(record, Exception) else record
    host, pid, slots, free, draining, version = told
    return FleetWorker(
        name=name,
        lease_ms=lease if isinstance(lease, int) and lease >= 0 else None,
        host=None if host is None else text(host),
        pid=_number(pid),
        slots=_number(slots),
        free=_number(free),
        draining=draining == b"1",
        version=None if version is None else text(version),
    )


def _created(context: Context, job_id: str) -> Operation[int | None]:
    """When a queued start was created; None where neither its session nor its job says."""
    created, queued = yield Batch(
        [("HGET", context.keys.state(job_id), "createdAt"), ("HGET", job_key(job_id), "created_at")], apart=True
    )
    return _number(created) or _moment(queued)


def _number(value: Any) -> int | None:
    with contextlib.suppress(TypeError, ValueError):
        return int(value)
    return None


def _moment(value: Any) -> int | None:
    """RQ's text of a time, as ms since the epoch."""
    with contextlib.suppress(TypeError, ValueError, AttributeError):
        return round(datetime.fromisoformat(value.decode()).timestamp() * 1000)
    return None
