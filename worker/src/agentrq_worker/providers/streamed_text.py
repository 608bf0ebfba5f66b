"""Publishes texts and thoughts that come in pieces: each piece live, then the whole once. Pure.

Owns the pieces of one block and its offsets, and the block under way where pieces have no ids. Does not own what ends
a block (each parser's matter).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from agentrq.wire.messages import Text, TextDelta, Thinking, ThinkingDelta
from agentrq_worker.providers.draft_message import DraftMessage

LARGEST = 1 << 20
"""Characters after which a block should be ended: an agent that never pauses must not fill the memory."""


class Block:
    """One text or thought, from its first piece until it is complete."""

    __slots__ = ("_pieces", "block_id", "parent", "size", "thought")

    def __init__(self, block_id: str, thought: bool = False, parent: str | None = None) -> None:
        self.block_id = block_id
        self.thought = thought
        self.parent = parent
        self.size = 0
        """Characters so far."""
        self._pieces: list[str] = []

    def piece(self, text: str) -> DraftMessage:
        """The delta message of the next piece."""
        offset = self.size
        self.size += len(text)
        self._pieces.append(text)
        if self.thought:
            return DraftMessage(
                "thinking_delta", ThinkingDelta(text=text, block_id=self.block_id, offset=offset), self.parent
            )
        return DraftMessage("text_delta", TextDelta(text=text, block_id=self.block_id, offset=offset), self.parent)

    def abandon(self) -> DraftMessage:
        """The last delta of a block that the agent gave up: no complete text follows."""
        if self.thought:
            return DraftMessage("thinking_delta", ThinkingDelta("", self.block_id, self.size, True), self.parent)
        return DraftMessage("text_delta", TextDelta("", self.block_id, self.size, True), self.parent)

    def whole(self, text: Any = None) -> DraftMessage:
        """The complete message: ``text`` (may be `msgspec.Raw`) if the agent repeats it, else all pieces joined."""
        words = "".join(self._pieces) if text is None else text
        if self.thought:
            return DraftMessage("thinking", Thinking(text=words, block_id=self.block_id), self.parent)
        return DraftMessage("text", Text(text=words, block_id=self.block_id), self.parent)


class CurrentText:
    """The text under way of an agent that gives its pieces no ids: one block at a time, ended by what comes next."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._count = 0
        self._block: Block | None = None
        self._speaker: Hashable = None

    @property
    def is_open(self) -> bool:
        """Whether a block has begun and not ended."""
        return self._block is not None

    def add(
        self, text: str, thought: bool = False, parent: str | None = None, message: Hashable = None
    ) -> list[DraftMessage]:
        """One more piece, which may be empty: its delta; before it the whole of a block that this piece ends.

        A piece belongs to the block under way if it is of the same kind, sub-agent and ``message``.
        """
        drafts: list[DraftMessage] = []
        block, speaker = self._block, (thought, parent, message)
        if block is None or speaker != self._speaker or block.size > LARGEST:
            drafts += self.end()
            self._count += 1
            self._speaker = speaker
            block = self._block = Block(f"{self._epoch}.{self._count}", thought, parent)
        if text:
            drafts.append(block.piece(text))
        return drafts

    def end(self) -> list[DraftMessage]:
        """The whole of the block under way; nothing where there is none, or an empty one."""
        block, self._block = self._block, None
        return [block.whole()] if block is not None and block.size else []
