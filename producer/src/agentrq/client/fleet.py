"""Reads what no single worker knows: a queue's length and age, its workers and their free slots, Redis's memory.

Owns which keys are read. Does not own sessions (session_list.py, waiting_list.py). Changes nothing.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Any, NamedTuple

from agentrq.client.evidence import WorkerEvidence, milliseconds, read_workers
from agentrq.client.redis_requests import Batch, Context, Operation
from agentrq.rq_commands import SUSPENDED, job_key, workers_key
from agentrq.wire.script_calls import text


class Fleet(NamedTuple):
    """What was read at one moment. ``now`` in ms since the epoch, by Redis's clock."""

    now: int
    queue: str
    queue_length: int
    oldest_ms: int | None
    """When the start that is first in the queue was created, by Redis's clock; of a foreign job by its client's."""
    workers: list[WorkerEvidence]
    suspended: bool
    used_memory: int
    """Bytes that Redis uses."""
    max_memory: int
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
            ("INFO", "memory"),
        ]
    )
    now, length, first, names, suspended, memory = answers
    return Fleet(
        now=milliseconds(now),
        queue=context.queue,
        queue_length=int(length),
        oldest_ms=None if first is None else (yield from _created(context, text(first))),
        workers=(yield from read_workers(context, sorted(text(name) for name in names))),
        suspended=bool(suspended),
        used_memory=int(memory.get("used_memory", 0)),
        max_memory=int(memory.get("maxmemory", 0)),
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
