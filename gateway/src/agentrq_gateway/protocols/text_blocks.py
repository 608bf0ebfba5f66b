"""Texts that come in pieces, live, and then whole: what of them is still to be sent. Pure; both protocols use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple


class BlockStep(NamedTuple):
    """One thing to send about a block: it opens, ``text`` of it comes, or it closes (``abandoned``: given up).

    ``sent``: after it, the characters sent of each block that is open.
    """

    kind: Literal["open", "text", "close"]
    block: str
    sent: Mapping[str, int]
    text: str = ""
    abandoned: bool = False


class TextBlocks:
    """The blocks of one response, by name.

    ``sent``: characters that the reader has of blocks, from before. ``most``: characters of one step.
    """

    def __init__(self, sent: Mapping[str, int] | None = None, most: int | None = None) -> None:
        self._most = most
        self._had = dict(sent or {})
        self._open: dict[str, list[str]] = {}
        self._length: dict[str, int] = {}
        self._closed: set[str] = set()

    @property
    def open(self) -> dict[str, int]:
        """Characters sent of each block that is open."""
        return self._had | self._length

    def reopen(self, block: str) -> list[BlockStep]:
        """Open again a block of which the reader has a part."""
        return self._opened(block)

    def piece(self, block: str, offset: int, text: str, abandoned: bool) -> list[BlockStep]:
        """A live piece. What the reader has is dropped; after a hole nothing is sent until it is filled."""
        if block in self._closed:
            return []
        if abandoned:
            return self._close(block, abandoned=True) if block in self._open else []
        had = self._length.get(block, self._had.get(block, 0))
        if offset > had or offset + len(text) <= had:
            return []
        return [*self._opened(block), *self._sent(block, text[had - offset :])]

    def whole(self, block: str, text: str) -> list[BlockStep]:
        """The whole text: what is missing of it, and its end."""
        if block in self._closed:
            block = f"{block}~{len(self._closed)}"  # an id that the agent uses again
        skipped = self._had.get(block, 0)
        streamed = "".join(self._open.get(block, ()))
        steps = self._opened(block)
        if len(text) < skipped or not text.startswith(streamed, skipped):  # secrets were taken out of the whole
            return [*steps, *self._close(block, abandoned=True), *self.whole(f"{block}~", text)]
        return [*steps, *self._sent(block, text[skipped + len(streamed) :]), *self._close(block)]

    def close_all(self) -> list[BlockStep]:
        """Close what is still open at the end of a response."""
        return [step for block in list(self._open) for step in self._close(block, abandoned=True)]

    def _opened(self, block: str) -> list[BlockStep]:
        if block in self._open or block in self._closed:
            return []
        self._open[block] = []
        self._length[block] = self._had.get(block, 0)
        return [BlockStep("open", block, self.open)]

    def _sent(self, block: str, text: str) -> list[BlockStep]:
        steps: list[BlockStep] = []
        size = self._most or len(text) or 1
        for at in range(0, len(text), size):
            piece = text[at : at + size]
            self._open[block].append(piece)
            self._length[block] += len(piece)
            steps.append(BlockStep("text", block, self.open, piece))
        return steps

    def _close(self, block: str, abandoned: bool = False) -> list[BlockStep]:
        self._open.pop(block, None)
        self._length.pop(block, None)
        self._had.pop(block, None)
        self._closed.add(block)
        return [BlockStep("close", block, self.open, abandoned=abandoned)]
