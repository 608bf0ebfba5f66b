"""Redis clients for RQ's own calls."""

from __future__ import annotations

from typing import Final

import redis

from agentrq.connection import connect

_SERVER_VERSION: Final = "__rq_redis_server_version"
"""Where RQ keeps the server's version on a connection. Set to 7 (agentrq needs it), RQ sends no INFO; where INFO is
forbidden, RQ would otherwise dequeue by BLPOP, which loses jobs."""


def connect_rq(url: str, *, blocking: bool = False) -> redis.Redis:
    """A client as `agentrq.connection.connect` makes it, without retries of redis-py's own: RQ's callers try again, and
    no call may outlast the worker's end. Raises `agentrq.connection.BadUrl`.
    """
    client = connect(url, blocking=blocking, retries=0)
    setattr(client, _SERVER_VERSION, (7, 0, 0))
    return client
