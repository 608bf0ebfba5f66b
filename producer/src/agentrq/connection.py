"""Makes every Redis client. Owns their retries, timeouts and health checks, and how a URL is shown.

redis-py's own defaults depend on how a client is made (``from_url`` retries 0 times, the constructor 10 times), and
its 5 s timeout of every socket breaks longer blocking reads.
URLs: ``redis://``, ``rediss://``, ``unix://`` as redis-py reads them, and
``sentinel://[user:password@]host:port,host:port/SERVICE[/DB]`` (port default 26379) for a Sentinel's master.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis
import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelConnectionPool
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

OUTAGE: tuple[type[Exception], ...] = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.TryAgainError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.NoScriptError,
    OSError,
)
"""Errors of a Redis that is away, restarting, failing over or full: trying again may help. (`BusyLoadingError` is a
ConnectionError, `MasterDownError` a ClusterDownError; a script that was flushed meanwhile is loaded again.)"""

RETRIES = 3
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 20.0
HEALTH_CHECK_S = 20
MAX_CONNECTIONS = 64
MAX_FOLLOWING = 1024
"""Sessions that threads follow at once by one synchronous client: each has a connection."""
_NOT_BY_URL = ("decode_responses", "encoding", "encoding_errors", "retry", "retry_on_error")

T = TypeVar("T", redis.Redis, redis.asyncio.Redis)


class BadUrl(ValueError):
    """A Redis URL that cannot be read; the message says why, without the password."""


def is_outage(error: BaseException) -> bool:
    """True if trying again later may help: no connection, loading, failing over, read-only, out of memory."""
    if isinstance(error, OUTAGE):
        return True
    # redis-py removes the code from the message if it has a class for it, and puts the command before it in pipelines.
    message = str(error).rpartition("caused error: ")[2]
    return isinstance(error, redis.ResponseError) and message.startswith(
        ("NOREPLICAS", "MISCONF", "UNBLOCKED", "BUSY ")
    )


def masked(url: str) -> str:
    """The URL as it may be shown: its password as ``***``, in the address and in the query."""
    if "://" not in url:  # not a URL; what was meant as one may begin anywhere
        return re.sub(r".*@", "***@", url) if "@" in url else _without_password(url)
    # Greedy up to the last @: a password that was not quoted may hold any character.
    shown = re.sub(r"(://[^:@/]*):.*@", r"\1:***@", url)
    if "@" not in url:
        shown = _without_password(shown)
    return re.sub(r"([?&]password=)[^&]*", r"\1***", shown)


def _without_password(url: str) -> str:
    """Mask what stands in the place of a port and is not a number: perhaps a password without its host. (Not IPv6.)"""
    return re.sub(r"(://|\[[\da-fA-F:.]*\])|:(?!\d*(?:[/?,]|$))[^?]*", lambda found: found[1] or ":***", url)


def hide_arguments(url: str) -> bool:
    """Overwrite ``url`` among this process's own arguments by its `masked` form, where it holds a password: every user
    of the machine may read those (``ps``). False where nothing was hidden: no password, or no Linux.

    It has been readable from the program's start until now, some tenths of a second.
    """
    secret, shown = url.encode("utf-8", "surrogateescape"), masked(url).encode("utf-8", "surrogateescape")
    if secret == shown or sys.platform != "linux":
        return False
    import ctypes  # noqa: PLC0415 - for this alone

    with open("/proc/self/cmdline", "rb") as file:
        arguments = file.read()
    with open("/proc/self/stat", "rb") as file:
        begin, end = (int(field) for field in file.read().rpartition(b")")[2].split()[45:47])  # proc_pid_stat(5)
    hidden = arguments.replace(secret, shown.ljust(len(secret), b"*")[: len(secret)])
    if hidden == arguments or len(hidden) != end - begin:
        return False
    ctypes.memmove(begin, hidden, len(hidden))
    return True


def _common(blocking: bool, asynchronous: bool) -> dict[str, Any]:
    if not asynchronous:
        # Blocking reads wait no longer than this, or bring a timeout of their own (pub/sub). It bounds what redis-py
        # reads by itself, the handshake of a connection for one: a network may stand still there too.
        answer: float | None = CONNECT_TIMEOUT_S if blocking else ANSWER_TIMEOUT_S
    else:
        # Python 3.11's wait_for may swallow a cancellation while a socket timeout is set: there the callers' own
        # timeouts bound a call. A blocking read bounds itself.
        answer = None if blocking or sys.version_info < (3, 12) else ANSWER_TIMEOUT_S
    return {
        "socket_timeout": answer,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "health_check_interval": 0 if blocking else HEALTH_CHECK_S,
    }


def _parts_of_sentinel(url: str) -> tuple[list[tuple[str, int]], str, dict[str, Any]]:
    match = re.fullmatch(r"sentinel://(?:([^@/]*)@)?([^/@]+)/([^/?]+)(?:/(\d+))?", url)
    if not match:
        raise BadUrl(f"{masked(url)}: use sentinel://[user:password@]host:port,host:port/SERVICE[/DB]")
    login, hosts, service, db = match.groups()
    addresses = []
    for host in hosts.split(","):
        parts = urlsplit(f"//{host}")
        addresses.append((parts.hostname or "", parts.port or 26379))
    options: dict[str, Any] = {"db": int(db or 0)}
    if login:
        user, colon, password = login.partition(":")
        if user:
            options["username"] = unquote(user)
        if colon:
            options["password"] = unquote(password)
    return addresses, service, options


def _guarded(url: str, make: Callable[[], T]) -> T:
    try:
        query = parse_qs(urlsplit(url).query)
        if refused := [name for name in _NOT_BY_URL if name in query]:
            raise BadUrl(f"{masked(url)}: {refused[0]} cannot be set by the URL")
        client = make()
        # Tried here, or redis-py would stumble over it only when it connects.
        pool = client.connection_pool
        pool.connection_kwargs.get("host", "").encode("idna")
        if not url.startswith("sentinel://"):
            pool.connection_class(**pool.connection_kwargs)
        return client
    except BadUrl:
        raise
    except (ValueError, TypeError, KeyError) as error:
        # redis-py's text may quote a part of the URL, and that part may be of the password.
        hidden = "@" in url or masked(url) != url
        text = ", e.g. redis://USER:PASSWORD@HOST:6379/0" if hidden else f": {error}"
        raise BadUrl(f"{masked(url)} is not a valid Redis URL{text}") from None


class _Packing:
    """Has an asyncio connection of redis-py pack commands by hiredis, as its synchronous ones do.

    redis-py's own packer, in Python, takes 0.35 us an argument, and a batch of events has hundreds.
    """

    def pack_command(self, *args: Any) -> Any:
        """As redis-py's; the first argument may be several words."""
        try:
            return [hiredis.pack_command((*args[0].encode().split(), *args[1:]))]
        except (TypeError, AttributeError):
            return super().pack_command(*args)  # type: ignore[misc]


def _packing(pool: Any) -> Any:
    """Makes the connections of an asyncio pool encode commands with hiredis."""
    made = pool.connection_class
    pool.connection_class = type(made.__name__, (_Packing, made), {})
    return pool


class _MasterPool(SentinelConnectionPool):
    """Connections to a master. Closing them closes those to the Sentinels too, which redis-py leaves open."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                sentinel.connection_pool.disconnect()


class _AsyncMasterPool(AsyncSentinelConnectionPool):
    """Like `_MasterPool`."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.connection_pool.disconnect()


def connect(url: str, *, blocking: bool = False, retries: int = RETRIES) -> redis.Redis:
    """A synchronous client (bytes in, bytes out).

    ``blocking``: for reads that wait, up to `CONNECT_TIMEOUT_S` or a timeout of their own. ``retries``: how often a
    call is repeated whose connection broke.
    Raises `BadUrl`; connects only when first used.
    """
    # A call that was not answered in time is not repeated: its caller has waited long enough.
    retry = Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), retries, (redis.ConnectionError,))

    def make() -> redis.Redis:
        if url.startswith("sentinel://"):
            addresses, service, login = _parts_of_sentinel(url)
            sentinel = Sentinel(addresses, sentinel_kwargs={"socket_timeout": CONNECT_TIMEOUT_S})
            client: redis.Redis = sentinel.master_for(
                service, connection_pool_class=_MasterPool, retry=retry, **login, **_common(blocking, False)
            )
            return client
        pool = redis.BlockingConnectionPool.from_url(
            url, max_connections=MAX_FOLLOWING if blocking else MAX_CONNECTIONS, retry=retry, **_common(blocking, False)
        )
        return redis.Redis.from_pool(pool)

    return _guarded(url, make)


def connect_async(
    url: str, *, blocking: bool = False, retries: int = RETRIES, connections: int = MAX_CONNECTIONS
) -> redis.asyncio.Redis:
    """The asyncio twin of `connect`. Callers bound what they await: no socket timeout does if ``blocking``.

    ``connections``: at most so many at once; calls beyond them wait.
    """
    retry = AsyncRetry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), retries)

    def make() -> redis.asyncio.Redis:
        if url.startswith("sentinel://"):
            addresses, service, login = _parts_of_sentinel(url)
            sentinel = AsyncSentinel(addresses, sentinel_kwargs={"socket_timeout": CONNECT_TIMEOUT_S})
            client: redis.asyncio.Redis = sentinel.master_for(
                service, connection_pool_class=_AsyncMasterPool, retry=retry, **login, **_common(blocking, True)
            )
            _packing(client.connection_pool)
            return client
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url, max_connections=connections, retry=retry, **_common(blocking, True)
        )
        return redis.asyncio.Redis.from_pool(_packing(pool))

    return _guarded(url, make)
