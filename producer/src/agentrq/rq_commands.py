"""The Redis commands by which RQ enqueues, cancels or deletes a job, recorded from RQ's own code.

RQ is synchronous. It writes into a pipeline that is never executed; a client then sends the collected commands itself.
So an asyncio client makes the very same job, without a second copy of RQ's format. Owns no connection.
"""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from typing import Any, Final

import redis
from redis.client import Pipeline
from rq import Queue
from rq.job import Job
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.suspension import WORKERS_SUSPENDED
from rq.utils import utcformat
from rq.worker_registration import WORKERS_BY_QUEUE_KEY


class Utf8Json(JSONSerializer):
    """JSON that any reader of RQ's JSON reads, without the escapes by which RQ makes up to three bytes of one."""

    @staticmethod
    def dumps(*args: Any, **kwargs: Any) -> bytes:
        """The JSON of one value."""
        return json.dumps(*args, ensure_ascii=False, **kwargs).encode()


SERIALIZER: Final = Utf8Json
"""Jobs are JSON, never pickle."""

RESULT_TTL_S: Final = 86_400
"""How long RQ keeps the job of an ended session, well or badly ended, in seconds."""

SUSPENDED: Final = WORKERS_SUSPENDED
"""The key that is there while ``rq suspend`` holds all workers."""

WORKER_PREFIX: Final = "rq:worker:"
"""What RQ's key of a worker begins with; its name follows."""
FREE_SLOTS: Final = "agentrq_free"
"""Field of RQ's hash of a worker in which agentrq's workers say how many more sessions they would take."""
WORKER_SLOTS: Final = "agentrq_slots"
"""Another one: how many sessions it may host at once."""
WORKER_DRAINING: Final = "agentrq_draining"
"""Another one: ``1`` once it ends and takes no session any more."""
WORKER_VERSION: Final = "agentrq_version"
"""Another one: the version of agentrq-worker that it runs."""
CLOCK_AHEAD_MS: Final = "agentrq_clock_ahead_ms"
"""Another one: by how many milliseconds its machine's clock is ahead of Redis's."""

RedisCommand = tuple[Any, ...]


@cache
def _recorder() -> redis.Redis:
    """A client for the pipelines that RQ writes into; it never connects."""
    return redis.Redis(host="0.0.0.0", port=1)  # noqa: S104 - no address at all: nothing is ever sent to it


@cache
def _queue(name: str) -> Queue:
    queue = Queue(name, connection=_recorder(), serializer=SERIALIZER)
    queue.redis_server_version = (7, 0, 0)  # spares RQ the INFO by which it asks the server
    return queue


def collected(pipeline: Pipeline) -> list[RedisCommand]:
    """The commands that RQ has put into a pipeline, which is not to be executed."""
    return [command[0] for command in pipeline.command_stack]


def format_time(when: datetime) -> str:
    """A time as RQ writes it into a job's hash."""
    return utcformat(when)


def start_job(
    queue: str, session_id: str, arguments: list[Any], created_at: datetime, *, at_front: bool = False
) -> list[RedisCommand]:
    """What enqueues ``agentrq.start(*arguments)`` with the session id as job id.

    The job may run for ever: a session's time is bounded by its own options.
    """
    rq_queue = _queue(queue)
    with _recorder().pipeline(transaction=False) as pipeline:
        job = rq_queue.create_job(
            "agentrq.start",
            args=arguments,
            job_id=session_id,
            timeout=-1,
            result_ttl=RESULT_TTL_S,
            failure_ttl=RESULT_TTL_S,
            description=f"agentrq.start({session_id}, {arguments[1]})",
        )
        job.created_at = created_at
        rq_queue.enqueue_job(job, pipeline=pipeline, at_front=at_front)
        # The id is free by our own state: an old job of that name, its end and its result, must not shine through.
        # The push last in RQ's order comes first in ours, for all is one step: where it is refused, nothing was done.
        *others, push = collected(pipeline)
        return [*delete_job(queue, session_id), push, *others]


def cancel_job(queue: str, session_id: str) -> list[RedisCommand]:
    """What takes a queued start out of its queue and marks its job ``canceled``, as `Job.cancel` does."""
    rq_queue = _queue(queue)
    job = Job(session_id, connection=_recorder(), serializer=SERIALIZER)
    job.origin = queue
    with _recorder().pipeline(transaction=False) as pipeline:
        rq_queue.remove(job, pipeline=pipeline)
        pipeline.hset(job.key, "status", "canceled")
        pipeline.expire(job.key, RESULT_TTL_S)
        rq_queue.canceled_job_registry.add(job, ttl=RESULT_TTL_S, pipeline=pipeline)
        return collected(pipeline)


def delete_job(queue: str, session_id: str) -> list[RedisCommand]:
    """What forgets the job of a removed session."""
    return [*delete_end(queue, session_id), ("DEL", job_key(session_id))]


def delete_end(queue: str, session_id: str) -> list[RedisCommand]:
    """What forgets how a job ended, and its result."""
    rq_queue = _queue(queue)
    registries = (rq_queue.finished_job_registry, rq_queue.failed_job_registry, rq_queue.canceled_job_registry)
    return [*(("ZREM", each.key, session_id) for each in registries), ("DEL", Result.get_key(session_id))]


def workers_key(queue: str) -> str:
    """The RQ set of the workers that serve a queue, by their keys."""
    return str(WORKERS_BY_QUEUE_KEY % queue)


def job_key(session_id: str) -> str:
    """The RQ hash of a session's job."""
    return str(Job.key_for(session_id))
