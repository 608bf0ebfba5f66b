"""An RQ job as agentrq's queues know it: data only.

Owns what is never done with a job here: its callbacks are not imported, its webhooks are sent in the background, and
one that is too large, packed or not, is not read. Does not own a job's status (job_records.py) nor what it asks for
(job_payload.py).
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

import msgspec
import redis
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus

from agentrq.rq_commands import SERIALIZER
from agentrq.wire.commands import MAX_PROMPT_BYTES
from agentrq_worker.rq import scripts

log = logging.getLogger(__name__)

LARGEST: Final = 4 * MAX_PROMPT_BYTES
"""Bytes of a job's hash, names and values, and of each of its packed values once it is unpacked."""
LARGEST_OTHER: Final = 1 << 20
"""Bytes of any field but those that hold what a job is called with, or how it failed."""
MOST_FIELDS: Final = 1000
CALLBACK_FIELDS: Final = ("success_callback_name", "failure_callback_name", "stopped_callback_name")
_PIECE: Final = 4 << 20
_WEBHOOKS: Final = ThreadPoolExecutor(4, "webhook")
_READ_JOB: Final = scripts.load("read_job")


class TooLarge(ValueError):
    """A job's hash is larger than any job of agentrq's."""


def read_job(connection: redis.Redis, key: str) -> dict[bytes, bytes]:
    """A job's hash, {} where there is none. Raises `TooLarge`, and ValueError for what no end could be written with."""
    answer: Any = connection.eval(_READ_JOB, 1, key, str(MOST_FIELDS), str(LARGEST), str(LARGEST_OTHER))
    if not isinstance(answer, list):
        raise TooLarge(f"has {answer.decode('utf-8', 'replace')}")
    found = dict(zip(answer[::2], answer[1::2], strict=True))
    for name in (b"data", b"exc_info"):  # RQ unpacks them, whatever they grow to
        if _is_too_large(found.get(name, b"")):
            raise TooLarge(f"its {name.decode()} unpacks to more than {LARGEST} bytes")
    try:
        msgspec.json.decode(found.get(b"dependency_ids", b"[]"), type=list[str])
    except msgspec.MsgspecError as error:  # RQ would find it when the job's end is to be written, and not write it
        raise ValueError(f"its dependency_ids: {error}") from None
    return found


def read_data(connection: redis.Redis, key: str) -> bytes:
    """What a job that cannot be read asks for; nothing where that is too large to be kept, or no hash."""
    if connection.type(key) != b"hash" or connection.hstrlen(key, "data") > LARGEST:
        return b""
    found: Any = connection.hget(key, "data")
    data = bytes(found or b"")
    if _is_too_large(data):
        return b""
    try:
        return zlib.decompress(data)
    except zlib.error:  # by hand, not packed
        return data


def _is_too_large(packed: bytes) -> bool:
    """Whether it unpacks to more than a job may have; holds a piece of it at a time."""
    unpacking, size = zlib.decompressobj(), 0
    try:
        while packed and not unpacking.eof and size <= LARGEST:
            size += len(unpacking.decompress(packed, _PIECE))
            packed = unpacking.unconsumed_tail
    except zlib.error:  # RQ takes it as it is
        return False
    return size > LARGEST


class SessionJob(Job):
    """A job whose callbacks do not exist and whose webhooks are sent by threads of their own."""

    def refresh(self) -> None:
        """As RQ's. Raises NoSuchJobError, `TooLarge`, and whatever RQ's reading of a malformed hash does."""
        found: Mapping[bytes, bytes] = read_job(self.connection, self.key)
        if not found:
            raise NoSuchJobError(f"No such job: {self.key}")
        self.restore(found)

    @classmethod
    def fetch_many(cls, job_ids: Iterable[str], connection: redis.Redis, serializer: Any = None) -> list[Job | None]:
        """As RQ's, each as bounded as `refresh`."""
        found: list[Job | None] = []
        for job_id in job_ids:
            try:
                found.append(cls.fetch(job_id, connection, serializer))
            except NoSuchJobError:
                found.append(None)
        return found

    @property
    def success_callback(self) -> None:
        """Never: RQ would import it."""

    @property
    def failure_callback(self) -> None:
        """Never: RQ would import it."""

    @property
    def stopped_callback(self) -> None:
        """Never: RQ would import it."""

    @property
    def callbacks(self) -> list[str]:
        """The names of the callbacks that will not be run."""
        fields = self.to_dict(include_meta=False, include_result=False)
        return [fields[name] for name in CALLBACK_FIELDS if fields.get(name)]

    def send_webhooks(self, status: str | JobStatus, *, exc_string: str | None = None) -> None:
        """Send them in the background: an endpoint that does not answer costs 10 s, RQ's one thread must not wait."""
        if self.webhooks:
            _WEBHOOKS.submit(super().send_webhooks, status, exc_string=exc_string)


def fetch_job(connection: redis.Redis, job_id: str) -> SessionJob | None:
    """The job, or None: there is none, or it cannot be read. Raises what an outage raises."""
    try:
        found: Any = SessionJob.fetch(job_id, connection, SERIALIZER)
    except NoSuchJobError:
        return None
    except (redis.ConnectionError, redis.TimeoutError):
        raise
    except Exception as error:  # noqa: BLE001 - a job hash may hold anything, RQ's reading of it raise anything
        log.error("job %s cannot be read: %.500r", job_id, error)
        return None
    return cast(SessionJob, found)
