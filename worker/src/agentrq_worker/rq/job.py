"""An RQ job as agentrq's queues know it: data only.

Owns what is never done with a job here: its callbacks are not imported (nothing is, because Redis said so), its
webhooks hold up nobody, and one that is too large, packed or not, is not read. Does not own a job's status
(job_records.py) nor what it asks for (job_handler.py).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec
import redis
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus

from agentrq.wire.commands import MAX_PROMPT_BYTES
from agentrq_worker.rq.fenced_pipeline import SessionIdentity

LARGEST: Final = 4 * MAX_PROMPT_BYTES
"""Bytes of a job's hash, names and values, and of each of its packed values once it is unpacked."""
LARGEST_OTHER: Final = 1 << 20
"""Bytes of any field but those that hold what a job is called with, or how it failed."""
MOST_FIELDS: Final = 1000
_PIECE: Final = 4 << 20
_WEBHOOKS: Final = ThreadPoolExecutor(4, "webhook")
_READ: Final = """
-- KEYS a job's hash; ARGV most fields, most bytes in all, and of any field but data, exc_info and description.
-- Its fields and values, or what of it is too much.
local fields = redis.call('HLEN', KEYS[1])
if fields > tonumber(ARGV[1]) then return fields .. ' fields' end
local size = 0
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  local length = redis.call('HSTRLEN', KEYS[1], name)
  size = size + #name + length
  if length > tonumber(ARGV[3]) and name ~= 'data' and name ~= 'exc_info' and name ~= 'description' then
    return length .. ' bytes in ' .. string.sub(name, 1, 50)
  end
end
if size > tonumber(ARGV[2]) then return size .. ' bytes' end
return redis.call('HGETALL', KEYS[1])
"""


class TooLarge(ValueError):
    """A job's hash is larger than any job of agentrq's."""


def read_job(connection: redis.Redis, key: str) -> dict[bytes, bytes]:
    """A job's hash, {} where there is none. Raises `TooLarge`, and ValueError for what no end could be written with."""
    answer: Any = connection.eval(_READ, 1, key, str(MOST_FIELDS), str(LARGEST), str(LARGEST_OTHER))
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

    whose: SessionIdentity | None = None
    """Only as long as it is this session's, anything is written of it; None: it is none's."""

    def refresh(self) -> None:
        """As RQ's. Raises NoSuchJobError, `TooLarge`, and whatever RQ's reading of a malformed hash does."""
        found: Mapping[bytes, bytes] = read_job(self.connection, self.key)
        if not found:
            raise NoSuchJobError(f"No such job: {self.key}")
        self.restore(found)

    def heartbeat(self, timestamp: Any, ttl: int, pipeline: Any = None, xx: bool = False) -> None:
        """As RQ's in a pipeline; by itself, before a job's end, it would bring back one that was removed."""
        if pipeline is not None:
            super().heartbeat(timestamp, ttl, pipeline, xx)

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
        names = (self._success_callback_name, self._failure_callback_name, self._stopped_callback_name)
        return [name for name in names if name]

    def send_webhooks(self, status: str | JobStatus, *, exc_string: str | None = None) -> None:
        """Send them in the background: an endpoint that does not answer costs 10 s, RQ's one thread must not wait."""
        if self.webhooks:
            _WEBHOOKS.submit(super().send_webhooks, status, exc_string=exc_string)
