"""This process as an RQ worker: its record in Redis, and the commands that RQ sends to it.

RQ's subclass interface is not promised by RQ: ``rq~=3.0`` is pinned, and tests/packaging/test_private_names.py names
what has moved. Does not own which jobs are fetched (fetcher.py) nor what becomes of them (job_handler.py).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import redis
from rq.job import Job
from rq.timeouts import TimerDeathPenalty
from rq.worker import BaseWorker

from agentrq.rq_commands import SERIALIZER
from agentrq.wire.keys import control_queue
from agentrq_worker.rq.job import SessionJob
from agentrq_worker.rq.job_records import EXECUTION_LEASE_S
from agentrq_worker.rq.queue_reader import DEQUEUE_S
from agentrq_worker.settings import Settings

log = logging.getLogger(__name__)

RECONNECT_S: Final = 0.5
"""How long RQ's command thread waits before it connects again."""
QUIET_S: Final = 15.0
"""Connections lost within this time of each other are logged once."""


class RqWorker(BaseWorker):
    """A worker's record in RQ. It runs no jobs itself: `work` is not used."""

    death_penalty_class = TimerDeathPenalty  # SIGALRM belongs to the main thread
    job_class = SessionJob

    def __init__(
        self, settings: Settings, connection: redis.Redis, on_command: Callable[[dict[str, Any]], None]
    ) -> None:
        """Ask Redis for this connection's address. ``on_command`` is called on RQ's command thread.

        Raises `redis.RedisError`, OSError.
        """
        super().__init__(
            [settings.queue, control_queue(settings.queue)],
            name=settings.worker_name,
            connection=connection,
            serializer=SERIALIZER,
        )
        self._on_command = on_command
        self._connection_lost = -math.inf

    @property
    def dequeue_timeout(self) -> int:
        """Seconds a dequeue blocks."""
        return DEQUEUE_S

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """Seconds until RQ takes a silent execution for abandoned."""
        return EXECUTION_LEASE_S

    def procline(self, message: str) -> None:
        """Keep the process title that the operator started."""

    def handle_payload(self, message: Any) -> None:
        """Pass on one command of RQ's; a malformed one costs a log line, not RQ's command thread."""
        try:
            self._on_command(msgspec.json.decode(message["data"], type=dict[str, Any]))
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread has to read the next command
            log.warning("malformed RQ command %.200r: %r", message, error)

    def unsubscribe(self) -> None:
        """End RQ's command thread: stopped before it is unsubscribed, or it would wait for commands once more."""
        thread: Any = self.pubsub_thread
        if thread is not None:
            thread.stop()
        BaseWorker.unsubscribe(self)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        """Let RQ's command thread connect again after any error; RQ ends it on all but `redis.ConnectionError`."""
        if time.monotonic() - self._connection_lost > QUIET_S:
            log.info("RQ's commands: connection lost, connecting again: %s", exc)
        self._connection_lost = time.monotonic()
        time.sleep(RECONNECT_S)
