"""Who speaks in Claude Code's output: the main agent, or one sub-agent.

Owns the link of a whole block to the live pieces it came in, and the repeats of a block within its message.
"""

from __future__ import annotations

from msgspec import UNSET, Raw, UnsetType

from agentrq_worker.providers.json_line import whole

_SHORT = 4096  # bytes; up to here a text is kept (with its line) to be compared, beyond it its hash
_NO_BLOCK = -1


class StreamBlocks:
    """One speaker: the message it speaks, and where the live pieces of its current block stand."""

    __slots__ = ("_block_id", "_index", "_message", "_said", "_streamed", "offset")

    def __init__(self) -> None:
        self.offset = 0
        """Characters of the current block that came so far."""
        self._message: str | None = None  # the message of the last whole frame
        self._said: list[tuple[str, Raw | int]] = []  # that message's texts and thoughts
        self._streamed: str | None = None  # the message that comes in pieces
        self._index: int | float | None = _NO_BLOCK
        self._block_id = ""

    def whole(self, message: str | None, kind: str, text: Raw, position: int, count: int) -> str | UnsetType | None:
        """The id that a whole block's pieces had; absent if there were none; None if the message has said it before."""
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
        return UNSET if message != self._streamed else self._whole_block(message, position, count)

    def end_turn(self) -> None:
        """A message's id means nothing beyond its turn."""
        self._message = None
        self._said.clear()

    def begin(self, message: str) -> None:
        """A message begins to come in pieces."""
        self._streamed = message
        self._index = _NO_BLOCK

    def block(self, message: str | None, index: int | float | None) -> str:
        """The id of the block that a piece belongs to; empty if its message is not known.

        ``message`` is the one the piece itself names, if it does (CLI 2.1.330): its beginning may have been lost.
        """
        if message is not None and message != self._streamed:
            self.begin(message)
        if self._streamed is None:
            return ""
        if index != self._index:
            self._index = index
            self._block_id = f"{self._streamed}:{whole(index)}"
            self.offset = 0
        return self._block_id

    def _whole_block(self, message: str, position: int, count: int) -> str | UnsetType:
        """The id that a whole block's pieces had; absent if it did not come in pieces.

        The CLI gives one block a frame, before the next block's first piece; then the position says nothing.
        """
        if count > 1:
            return f"{message}:{position}"
        if self._index == _NO_BLOCK:
            return UNSET
        self._index = _NO_BLOCK
        return self._block_id
