"""RQ's cron for agentrq's functions: the same scheduler with jobs in JSON, where RQ's own always pickles.

Owns only the serializer; schedules, histories and locks are RQ's (``rq.cron``, RQ 3.0).
"""

from __future__ import annotations

from typing import Any

from redis import Redis
from rq import Queue
from rq.cron import CronJob, CronScheduler
from rq.job import Job

from agentrq.rq_commands import SERIALIZER


class JSONCronJob(CronJob):
    """A cron job whose jobs carry JSON."""

    def enqueue(self, connection: Redis) -> Job:
        """Enqueue one job and record it in the cron job's history."""
        if self.func is None:
            raise ValueError("This cron job has no function to enqueue")
        queue = Queue(self.queue_name, connection=connection, serializer=SERIALIZER)
        queue.redis_server_version = (7, 0, 0)  # spares RQ the INFO by which it asks the server
        job = queue.enqueue(self.func, args=self.args, kwargs=self.kwargs, **self.job_options)
        connection.zadd(self.job_history_key, {job.id: (job.enqueued_at or job.created_at).timestamp()})
        return job


class JSONCronScheduler(CronScheduler):
    """``CronScheduler`` whose registered functions are enqueued as JSON; `register` and `start` as in RQ."""

    def register(self, *args: Any, **kwargs: Any) -> CronJob:
        """Like `CronScheduler.register`."""
        job = super().register(*args, **kwargs)
        job.__class__ = JSONCronJob  # it has no state of its own: only `enqueue` differs
        return job
