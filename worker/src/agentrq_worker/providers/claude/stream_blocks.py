"""Follows the blocks of one speaker in Claude Code's output: the main agent, or one sub-agent.

Owns the link of a whole block to the live pieces it came in, the blocks whose whole has not come, and the repeats of a
block within its message.
"""

from __future__ import annotations

from typing import Final

from msgspec import UNSET, Raw, UnsetType

from agentrq.wire.messages import TextDelta, ThinkingDelta
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.json_line import whole

_SHORT = 4096  # bytes; up to here a text is kept (with its line) to be compared, beyond it its hash
_NO_BLOCK: Final = object()


class StreamBlocks:
    """The current message of one speaker, and how far its current block has streamed."""

    __slots__ = ("_index", "_message", "_offset", "_said", "_unfinished", "block_id", "streamed")

    def __init__(self) -> None:
        self.streamed: str | None = None
        """The id of the message that is being streamed."""
        self._message: str | None = None  # the message of the last whole frame
        self._said: list[tuple[str, Raw | int]] = []  # that message's texts and thoughts
        self._index: object = _NO_BLOCK
        self.block_id = ""
        """The id of the block whose pieces come."""
        self._offset = 0  # characters of the current block that came so far
        self._unfinished: dict[str, tuple[bool, int]] = {}  # blocks that came in pieces only: is a thought, characters

    def whole(self, message: str | None, kind: str, text: Raw, position: int, count: int) -> str | UnsetType | None:
        """The id of a complete block's pieces; UNSET if it had none; None if the message has repeated the block."""
        if message is None:
            return UNSET
        said = (kind, text if len(text) < _SHORT else hash(bytes(text)))
        if message != self._message:
            self._message = message
            self._said = [said]
        elif said in self._said:
            return None
        else:
            self._said.append(said)
        return UNSET if message != self.streamed else self._whole_block(message, position, count)

    def end_turn(self, parent: str | None) -> list[DraftMessage]:
        """The turn is over: message ids may be used again. Returns what `abandon` does."""
        self._message = None
        self._said.clear()
        return self.abandon(parent)

    @property
    def is_unfinished(self) -> bool:
        """Whether the whole of a block has not come yet."""
        return bool(self._unfinished)

    def abandon(self, parent: str | None) -> list[DraftMessage]:
        """The last piece of each block whose whole has not come: no whole will follow."""
        self._save_offset()
        drafts = [
            DraftMessage("thinking_delta", ThinkingDelta("", block_id, offset, abandoned=True), parent)
            if is_thought
            else DraftMessage("text_delta", TextDelta("", block_id, offset, abandoned=True), parent)
            for block_id, (is_thought, offset) in self._unfinished.items()
        ]
        self._unfinished.clear()
        return drafts

    def begin(self, message: str, parent: str | None) -> list[DraftMessage]:
        """Begin a streamed message, which ends an earlier unfinished one. Returns what `abandon` does."""
        self.streamed = message
        self._index = _NO_BLOCK
        return self.abandon(parent)

    def begin_block(self, index: int | float | None) -> None:
        """The next pieces are of the block ``index``."""
        self._save_offset()
        self._index = index
        self.block_id = f"{self.streamed}:{whole(index)}"
        self._offset = 0

    def _save_offset(self) -> None:
        begun = self._unfinished.get(self.block_id)
        if begun is not None:
            self._unfinished[self.block_id] = (begun[0], self._offset)

    def piece(self, index: int | float | None, text: str, is_thought: bool) -> int | None:
        """The offset of the next piece, which belongs to `block_id`; None if its message is not known."""
        if index != self._index:
            if self.streamed is None:
                return None
            self.begin_block(index)
        offset = self._offset
        if not offset:
            self._unfinished[self.block_id] = (is_thought, 0)
        self._offset = offset + len(text)
        return offset

    def _whole_block(self, message: str, position: int, count: int) -> str | UnsetType:
        """The id of a complete block's pieces; UNSET if it did not come in pieces.

        The CLI gives one block a frame, before the next block's first piece; then the position says nothing.
        """
        if count > 1:
            block_id = f"{message}:{position}"
        elif self._index is _NO_BLOCK:
            return UNSET
        else:
            self._index = _NO_BLOCK
            block_id = self.block_id
        self._unfinished.pop(block_id, None)
        return block_id
