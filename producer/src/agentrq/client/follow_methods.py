"""The method of both clients that follows many sessions. Owns its signature and defaults; not how a follower works."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, Literal, TypeVar, overload

from agentrq.client.follow_items import Cursors
from agentrq.client.subscription import DECODED, RAW, EventDecoder

Decoded = TypeVar("Decoded")
"""A follower of decoded events."""
Raw = TypeVar("Raw")
"""A follower of events as their bytes."""


class FollowMethods(ABC, Generic[Decoded, Raw]):
    """`AgentClient.follow` gives a `Follower`, `AsyncAgentClient.follow` an `AsyncFollower`."""

    @abstractmethod
    def _follower(self, sessions: Cursors, decoder: EventDecoder[Any], deltas: bool, until_closed: bool) -> Any:
        """The follower itself."""

    @overload
    def follow(
        self, sessions: Cursors, *, deltas: bool = ..., raw: Literal[False] = ..., until_closed: bool = ...
    ) -> Decoded: ...
    @overload
    def follow(self, sessions: Cursors, *, deltas: bool = ..., raw: Literal[True], until_closed: bool = ...) -> Raw: ...
    def follow(
        self, sessions: Cursors, *, deltas: bool = False, raw: bool = False, until_closed: bool = False
    ) -> Decoded | Raw:
        """Follow many sessions by one subscription and one reading connection, thousands if need be.

        ``sessions``: session id → the cursor after which its events are wanted (None: from the oldest kept). Iterate
        over what it returns for pairs of a session id and an event; `Follower.add` and `Follower.remove` change the
        sessions meanwhile. Each session's events come once, in order, through any reconnect. What befalls one session
        comes as a notice in an event's place, and the others go on: `SessionDelivered`, `SessionGone`, `CursorReset`,
        `SessionUnreadable`.

        ``deltas``: as of `Session.events`. ``raw``: each event as a `RawEvent`, with the JSON that crossed Redis.
        ``until_closed``: go on when no session is left, for those that are still to be added. However slow the
        consumer is, at most 4 MiB wait for it; what is over that is read from Redis when it is wanted.
        Raises `InvalidSessionId`, ValueError for a bad cursor; while iterating `RedisUnavailable` where Redis is away
        at the beginning, or for ten minutes.
        """
        made: Decoded | Raw = self._follower(sessions, RAW if raw else DECODED, deltas, until_closed)
        return made
