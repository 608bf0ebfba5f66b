"""How much of each text under way a reader has, so that its pieces follow each other without gap or overlap. Pure.

Owns the rules of docs/reference/events.md on deltas for one reader. Does not own when the missing is asked for
(subscription.py).
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from agentrq.wire.messages import TextDelta, ThinkingDelta

MOST_OPEN: Final = 256
"""Blocks of one session that a reader keeps count of; more are begun only by agents that never end one."""
MOST_CLOSED: Final = 64
"""Ended blocks that are remembered: their pieces may still wait among the hints."""


class TextBlocks:
    """The blocks of one session, as one reader has them."""

    __slots__ = ("_closed", "_have", "missing")

    def __init__(self) -> None:
        self._have: dict[str, int] = {}
        """Characters that were handed on, by block."""
        self._closed: deque[Any] = deque(maxlen=MOST_CLOSED)
        self.missing = False
        """Whether a piece came whose beginning did not; whoever has handled that sets it to False again."""

    def close(self, block_id: Any) -> None:
        """A block has ended: its whole text came, or it was abandoned."""
        self._have.pop(block_id, None)
        self._closed.append(block_id)

    def close_all(self) -> None:
        """The session goes on in a new epoch: none of its blocks does."""
        for block_id in list(self._have):
            self.close(block_id)

    def is_late(self, delta: TextDelta | ThinkingDelta) -> bool:
        """Whether a delta's block has ended."""
        return delta.block_id in self._closed

    def take(self, delta: TextDelta | ThinkingDelta) -> TextDelta | ThinkingDelta | None:
        """What this delta, of a block that has not ended, adds to what there is; None for nothing."""
        have = self._have.get(delta.block_id, 0)
        if delta.abandoned:
            self.close(delta.block_id)
            return delta if have else None
        if delta.offset > have:
            self.missing = True
            return None
        if delta.offset + len(delta.text) <= have:
            return None
        if len(self._have) >= MOST_OPEN and not have:
            del self._have[next(iter(self._have))]
        self._have[delta.block_id] = delta.offset + len(delta.text)
        if delta.offset == have:
            return delta
        return type(delta)(delta.text[have - delta.offset :], delta.block_id, have)
