"""What tests ask of RQ itself: queues as another backend has them, results, registries with nothing stuck."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import redis
from rq import Queue
from rq.job import Job
from rq.results import Result
from rq.serializers import JSONSerializer

WAIT_S = 60


def backend_queue(raw: redis.Redis, name: str = "agentrq") -> Queue:
    """A queue as a backend without agentrq has it: RQ and JSON."""
    return Queue(name, connection=raw, serializer=JSONSerializer, default_timeout=-1)


def fetch(raw: redis.Redis, job_id: str) -> Job:
    return Job.fetch(job_id, raw, JSONSerializer)


async def result_of(raw: redis.Redis, job_id: str) -> tuple[str, Any]:
    """How a job ended, waited for: its status, and its return value or error."""

    def wait() -> tuple[str, Any]:
        job = fetch(raw, job_id)
        result = job.latest_result(timeout=WAIT_S)
        assert result is not None, f"job {job_id} has no result, it is {job.get_status()}"
        good = result.type is Result.Type.SUCCESSFUL
        return str(fetch(raw, job_id).get_status().value), result.return_value if good else result.exc_string

    return await asyncio.to_thread(wait)


async def eventually(holds: Callable[[], Any], what: str = "it") -> Any:
    """For what Redis and /proc tell no news of: looks again until it holds."""
    async with asyncio.timeout(WAIT_S):
        while not (found := holds()):
            await asyncio.sleep(0.02)
    return found


def stuck(raw: redis.Redis, *queues: str) -> dict[str, Any]:
    """Everything in RQ's keys that a queue at rest does not have; empty when all is well."""
    found: dict[str, Any] = {}
    for queue in queues or ("agentrq", "agentrq-ctl"):
        for key, size in (
            (f"rq:wip:{queue}", raw.zcard(f"rq:wip:{queue}")),
            (f"rq:queue:{queue}", raw.llen(f"rq:queue:{queue}")),
            (f"rq:queue:{queue}:intermediate", raw.llen(f"rq:queue:{queue}:intermediate")),
            (f"rq:deferred:{queue}", raw.zcard(f"rq:deferred:{queue}")),
            (f"rq:scheduled:{queue}", raw.zcard(f"rq:scheduled:{queue}")),
        ):
            if size:
                found[key] = size
    for pattern in ("rq:execution:*", "rq:executions:*", "rq:worker:*:executions", "*:first_seen:*"):
        for key in raw.scan_iter(pattern, count=1000):
            found[key.decode()] = True
    for key in raw.scan_iter("rq:job:*", count=1000):
        if raw.type(key) == b"hash" and raw.hget(key, "status") in (b"started", b"queued"):
            found[key.decode()] = raw.hget(key, "status")
    return found
