"""Turns what redis-py raises into agentrq's own errors. Owns which error is which, and their texts; does no IO.

What is raised is of both trees: a `RedisUnavailable` is redis-py's ConnectionError or TimeoutError as well.
"""

from __future__ import annotations

from typing import Final

import redis
from redis.exceptions import AuthorizationError, BusyLoadingError, NoPermissionError, OutOfMemoryError, ReadOnlyError

from agentrq.connection import is_outage, masked
from agentrq.errors import AgentRQError, RedisOutOfMemory, RedisRefused, RedisUnavailable

_LOGIN: Final = (redis.AuthenticationError, AuthorizationError)
_OF_REDIS_PY: Final = (
    *_LOGIN, BusyLoadingError, redis.ConnectionError, redis.TimeoutError,
    OutOfMemoryError, ReadOnlyError, NoPermissionError, redis.ResponseError,
)  # fmt: skip
"""redis-py's classes that ours are mixed with, the narrower before the wider."""
_MIXED: Final[dict[tuple[type[AgentRQError], type[Exception]], type[AgentRQError]]] = {}


def from_redis(error: Exception, url: str | None = None) -> AgentRQError:
    """The error of agentrq for one of redis-py or of a socket; ``url`` is named in it, its password masked."""
    server = f"Redis at {masked(url)}" if url else "Redis"
    said = str(error).partition(" : <redis.")[0]  # a Sentinel's error goes on with the repr of each client
    kind, text = _classify(error, said)
    of_redis_py = next((known for known in _OF_REDIS_PY if isinstance(error, known)), None)
    if of_redis_py is not None:
        made = type(kind.__name__, (kind, of_redis_py), {"__module__": kind.__module__})
        kind = _MIXED.setdefault((kind, of_redis_py), made)
    return kind(f"{server} {text}")


def _classify(error: Exception, said: str) -> tuple[type[AgentRQError], str]:
    if isinstance(error, OutOfMemoryError):
        return RedisOutOfMemory, f"has no memory left, remove sessions or raise its maxmemory: {said}"
    if isinstance(error, _LOGIN):
        return RedisRefused, f"refuses the login: {said}"
    if isinstance(error, ReadOnlyError) or said.startswith(("NOREPLICAS", "MISCONF")):
        return RedisRefused, f"takes no writes at present: {said}"
    if is_outage(error):
        return RedisUnavailable, f"is not reachable: {said}"
    return RedisRefused, f"refuses: {said}"
