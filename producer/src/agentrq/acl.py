"""What each part of an installation may do in Redis: key patterns, channels and commands, as ACL rules.

Owns the profiles; does no IO. The commands are those that redis-py, RQ 3 and our scripts send (Redis applies the
caller's rules inside a script too). Tests run whole sessions under these profiles.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agentrq.errors import InvalidOption
from agentrq.wire.keys import DEFAULT_PREFIX, DEFAULT_QUEUE, Keys, control_queue

ROLES: Final = ("producer", "worker", "reader", "consumer", "gateway")
"""``producer`` starts, controls and removes sessions; ``reader`` follows them; ``consumer`` does so and keeps its place
in the feed; ``gateway``, a web backend, does all of this.
"""

_NAME: Final = re.compile(r"[^\s*?\[\]\\]+")
_CONNECTION: Final = "hello auth ping select client|setinfo client|setname client|id echo quit"
_SEND: Final = (
    "multi exec evalsha eval script|load script|exists time exists del expire pexpire get hget hgetall hmget hset hdel "
    "hincrby lrem publish rpush sadd scard xadd xlen xrange xtrim xdel zadd zcard zcount zrange zrem zremrangebyscore "
    "zscore"
)
_READ: Final = (
    "multi exec get exists hget hgetall hmget scard xrange xrevrange xread xlen zrange zcard zscore "
    "subscribe unsubscribe"
)
_CONSUME: Final = (
    "evalsha script|load xinfo|groups xinfo|consumers xgroup|create xgroup|setid xgroup|delconsumer xack xautoclaim "
    "xreadgroup set del xadd xdel"
)
"""What a consumer of the feed keeps its place by, `agentrq deliver` too."""
_DIAGNOSE: Final = "time hget lindex llen lpos pttl smembers"
"""What ``agentrq why`` and `client.fleet` read besides: RQ's queue, the workers that serve it, their free slots."""
_WORK: Final = (
    "multi exec discard watch unwatch evalsha eval script|load script|exists client|info client|id client|unblock "
    "info time type exists del expire pexpire persist pttl ttl get set hget hgetall hmget hset hsetnx hdel hexists "
    "hincrby hincrbyfloat hkeys hlen hscan hstrlen blmove lmove llen lindex lpop lpush rpush rpop lpos lrange lrem "
    "publish subscribe unsubscribe sadd srem scard smembers sismember xadd xdel xlen xrange xrevrange xtrim "
    "zadd zcard zcount zpopmin zrange zrangebyscore zrem zremrangebyscore zscore"
)


def profile(role: str, *, user: str | None = None, prefix: str = DEFAULT_PREFIX, queue: str = DEFAULT_QUEUE) -> str:
    """One ``ACL SETUSER`` line for a role; ``user`` defaults to ``<prefix>-<role>``.

    The user has no password: nobody can log in as it before one is set (``ACL SETUSER <user> >…``). Raises KeyError
    for an unknown role, `InvalidOption` for a name with a character that has a meaning in ACL rules.
    """
    for name, value in (("user", user), ("prefix", prefix), ("queue", queue)):
        if value is not None and not _NAME.fullmatch(value):
            raise InvalidOption(name, f"{value!r} has a character that means something in ACL rules")
    words = ["ACL SETUSER", user or f"{prefix}-{role}", "reset on", *_RULES[role](Keys(prefix), queue)]
    return " ".join(words)


def _session(keys: Keys, of: str = "*") -> str:
    return f"{keys.prefix}:{{*}}:{of}"


def _indexes(keys: Keys) -> tuple[str, ...]:
    return keys.live, keys.waiting, keys.indexed, keys.index("*")


def _commands(*lists: str) -> Iterator[str]:
    yield "-@all"
    yield from (f"+{command}" for command in dict.fromkeys(" ".join(lists).split()))


def _sending(keys: Keys, queue: str) -> Iterator[str]:
    yield from (
        f"~{_session(keys)}",
        *(
            f"~{key}"
            for key in (
                keys.sessions,
                *_indexes(keys),
                keys.removed,
                keys.epochs,
                keys.feed,
                keys.ledger("*"),
                keys.prices,
                keys.limits,
                keys.tenant("*"),
                keys.tenant_starts("*"),
            )
        ),
        f"%R~{keys.worker('*')}",
    )
    yield from ("~rq:job:*", "~rq:results:*", "~rq:queues", f"~rq:queue:{queue}", f"~rq:queue:{control_queue(queue)}")
    yield from (f"~rq:{registry}:{queue}" for registry in ("finished", "failed", "canceled"))
    yield from ("%R~rq:workers", "~rq:cron_*")  # RQ's cron is a producer as others are
    yield from (f"&{_session(keys, 'status')}", f"&{keys.wake_channel('*')}")


def _reading(keys: Keys) -> Iterator[str]:
    yield from (f"%R~{key}" for key in (_session(keys), keys.sessions, *_indexes(keys), keys.removed))
    yield from (f"%R~{key}" for key in (keys.feed, keys.feed_trimmed, keys.ledger("*"), keys.prices, keys.limits))
    yield from (f"%R~{keys.worker('*')}", "%R~rq:workers")
    yield "%R~rq:suspended"
    yield from (f"&{_session(keys, 'messages')}", f"&{_session(keys, 'status')}")


def _producer(keys: Keys, queue: str) -> Iterator[str]:
    yield from _sending(keys, queue)
    yield from _commands(_CONNECTION, _SEND)


def _reader(keys: Keys, queue: str) -> Iterator[str]:
    yield from _reading(keys)
    yield from _commands(_CONNECTION, _READ)


def _consumer(keys: Keys, queue: str) -> Iterator[str]:
    yield from (f"~{keys.feed}", f"~{keys.webhook('*', '*')}", *_reading(keys))
    yield from _commands(_CONNECTION, _READ, _CONSUME)


def _gateway(keys: Keys, queue: str) -> Iterator[str]:
    yield from dict.fromkeys([*_sending(keys, queue), *_reading(keys)])
    yield from (f"%R~rq:workers:{queue}", "%R~rq:worker:*", f"~{keys.used}")
    yield from _commands(_CONNECTION, _SEND, _READ, _CONSUME, _DIAGNOSE)


def _worker(keys: Keys, queue: str) -> Iterator[str]:
    yield from (f"~{keys.prefix}:*", "~rq:*", f"&{keys.prefix}:*", "&rq:pubsub:*")
    yield from _commands(_CONNECTION, _WORK)


_RULES: Final = {
    "producer": _producer,
    "worker": _worker,
    "reader": _reader,
    "consumer": _consumer,
    "gateway": _gateway,
}
