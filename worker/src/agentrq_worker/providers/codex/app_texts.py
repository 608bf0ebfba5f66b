"""The texts and thoughts of `codex app-server` that come in pieces, by the ids of their items. Pure.

Owns the public id of each block: codex may use an item's id again, for another item or for a retry.
"""

from __future__ import annotations

from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.span_ids import SpanIds
from agentrq_worker.providers.streamed_text import Block


class OpenTexts:
    """The blocks of one owner of a session that have not come whole yet."""

    def __init__(self, epoch: int) -> None:
        self._blocks: dict[str, Block] = {}
        self._ids = SpanIds(epoch)

    def __contains__(self, key: str) -> bool:
        return key in self._blocks

    def piece(self, key: str, text: str, thought: bool, parent: str | None) -> DraftMessage:
        """The delta of one more piece of the block ``key``, which may begin with it."""
        block = self._blocks.get(key)
        if block is None:
            block = self._blocks[key] = Block(self._ids.open(key, key), thought, parent)
        return block.piece(text)

    def take(self, key: str) -> str:
        """The public id of the block ``key``, which has come whole; empty without a key."""
        if not key:
            return ""
        self._blocks.pop(key, None)
        return self._ids.close(key) or self._ids.give(key)

    def end(self) -> list[DraftMessage]:
        """The wholes of unfinished blocks, as far as they came."""
        return [block.whole() for block in self._clear() if block.size]

    def abandon(self) -> list[DraftMessage]:
        """The last deltas of unfinished blocks, which codex gave up."""
        return [block.abandon() for block in self._clear() if block.size]

    def _clear(self) -> list[Block]:
        blocks, self._blocks = list(self._blocks.values()), {}
        self._ids.close_all()
        return blocks
