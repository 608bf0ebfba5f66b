"""Names that count once, whoever asks first: for tickets that several processes accept. Owns their key in Redis."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any, Final, Generic, TypeVar

from agentrq.client.redis_requests import Batch, Context, Operation

MARGIN_S: Final = 3600.0
"""How far the clocks of two machines may be apart: a used name is kept for so much longer than it has to be."""

First = TypeVar("First")
"""Whether a name is used for the first time, at once or to be awaited."""


def use(context: Context, name: str, ttl_s: float) -> Operation[bool]:
    """Use a name; answers whether nobody has within ``ttl_s`` seconds."""
    now = time.time()
    _, first, _ = yield Batch(
        [
            ("ZREMRANGEBYSCORE", context.keys.used, "-inf", now),
            ("ZADD", context.keys.used, "NX", now + ttl_s + MARGIN_S, name),
            ("EXPIRE", context.keys.used, int(ttl_s + 2 * MARGIN_S)),
        ],
        atomic=True,
    )
    return bool(first)


class OneUseMethods(ABC, Generic[First]):
    """`AgentClient` answers at once, `AsyncAgentClient` is awaited."""

    context: Context

    @abstractmethod
    def run(self, operation: Operation[Any]) -> Any:
        """Run one operation: what it answers, at once or to be awaited."""

    def use_once(self, name: str, ttl_s: float) -> First:
        """Whether ``name`` is used for the first time in ``ttl_s`` seconds: of all processes that ask, one gets True.

        For tickets of your own that must count once, whichever process of yours they reach.
        """
        first: First = self.run(use(self.context, name, ttl_s))
        return first
