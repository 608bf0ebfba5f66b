"""Sets and reads the limits of tenants: the operations, and the methods of both clients.

Owns their shape. They are held by open_session (limits.lua).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final, Generic, TypeVar

import msgspec

from agentrq.client.redis_requests import Batch, Context, Operation
from agentrq.errors import InvalidOption
from agentrq.wire.codec import encode
from agentrq.wire.commands import check_payer
from agentrq.wire.script_calls import text

Nothing = TypeVar("Nothing")
"""None, at once or to be awaited."""
Table = TypeVar("Table")
"""Limits by tenant, at once or to be awaited."""

OTHERS: Final = "*"
"""In a tenant's place: all tenants that have no limits of their own."""


class Limits(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True, kw_only=True):
    """What a tenant may have at once. None: no limit."""

    sessions: int | None = None
    """Sessions that have not ended."""
    queued: int | None = None
    """Those of them that wait for a worker."""
    starts_per_minute: int | None = None
    """Starts in any 60 seconds."""


class LimitMethods(ABC, Generic[Nothing, Table]):
    """The limits of tenants. `AgentClient` calls these directly, `AsyncAgentClient` awaits them."""

    context: Context

    @abstractmethod
    def run(self, operation: Operation[Any]) -> Any:
        """Run one operation: what it answers, at once or to be awaited."""

    def set_limits(
        self,
        tenant: str,
        *,
        sessions: int | None = None,
        queued: int | None = None,
        starts_per_minute: int | None = None,
    ) -> Nothing:
        """Set all limits of a ``tenant``, ``"*"`` for all without their own; with none given they are removed.

        ``sessions``: how many may be there that have not ended; ``queued``: how many of them may wait for a worker;
        ``starts_per_minute``: how many may start in any 60 seconds. None: no limit. They hold for starts from now on,
        whichever client they come from. Raises `InvalidOption`.
        """
        limits = Limits(sessions=sessions, queued=queued, starts_per_minute=starts_per_minute)
        done: Nothing = self.run(set_limits(self.context, tenant, limits))
        return done

    def limits(self) -> Table:
        """All limits that are set: tenant (or ``"*"``) → `Limits`."""
        table: Table = self.run(get_limits(self.context))
        return table


def set_limits(context: Context, tenant: str, limits: Limits) -> Operation[None]:
    """Set the limits of a tenant, or remove them where there are none."""
    if tenant != OTHERS:
        check_payer("tenant", tenant)
    for name in limits.__struct_fields__:
        value: Any = getattr(limits, name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53):
            raise InvalidOption(name, f"Expected a whole number from 0, got {value!r}"[:200])
    if limits == Limits():
        yield Batch([("HDEL", context.keys.limits, tenant)])
    else:
        yield Batch([("HSET", context.keys.limits, tenant, encode(limits))])


def get_limits(context: Context) -> Operation[dict[str, Limits]]:
    """All limits, by tenant; those that cannot be read are left out, as open_session does."""
    (found,) = yield Batch([("HGETALL", context.keys.limits)])
    limits: dict[str, Limits] = {}
    for name, value in sorted(found.items()):
        try:
            limits[text(name)] = _decode(value)
        except msgspec.MsgspecError:
            continue
    return limits


_decode: Final = msgspec.json.Decoder(Limits).decode
