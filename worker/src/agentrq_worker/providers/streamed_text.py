"""Texts and thoughts that come in pieces: each piece live, then the whole once. Pure.

Owns the pieces of one block and its offsets. Does not own when a block begins or ends (each parser's matter).
"""

from __future__ import annotations

from typing import Any

from agentrq.wire.messages import Text, TextDelta, Thinking, ThinkingDelta
from agentrq_worker.providers.draft_message import DraftMessage

LARGEST = 1 << 20
"""Characters after which a block should be ended: an agent that never pauses must not fill the memory."""


class Block:
    """One text or thought, from its first piece to its whole."""

    __slots__ = ("_pieces", "block_id", "parent", "size", "thought")

    def __init__(self, block_id: str, thought: bool = False, parent: str | None = None) -> None:
        self.block_id = block_id
        self.thought = thought
        self.parent = parent
        self.size = 0
        """Characters so far."""
        self._pieces: list[str] = []

    def piece(self, text: str) -> DraftMessage:
        """The delta of one more piece."""
        offset = self.size
        self.size += len(text)
        self._pieces.append(text)
        if self.thought:
            return DraftMessage(
                "thinking_delta", ThinkingDelta(text=text, block_id=self.block_id, offset=offset), self.parent
            )
        return DraftMessage("text_delta", TextDelta(text=text, block_id=self.block_id, offset=offset), self.parent)

    def whole(self, text: Any = None) -> DraftMessage:
        """The whole: ``text`` (also as `msgspec.Raw`) where the agent says it itself, else all pieces."""
        words = "".join(self._pieces) if text is None else text
        if self.thought:
            return DraftMessage("thinking", Thinking(text=words, block_id=self.block_id), self.parent)
        return DraftMessage("text", Text(text=words, block_id=self.block_id), self.parent)
