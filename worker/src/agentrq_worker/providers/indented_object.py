"""An object that an agent prints over several lines, put together again. Pure.

Owns what such an object looks like: a brace alone, indented members, a brace alone, blank lines between. Any other line
ends the attempt, so that a stray brace costs no line that follows it.
"""

from __future__ import annotations

from typing import Final

MOST_BYTES: Final = 1 << 20
"""The largest object that is put together; a larger one is given up."""


class IndentedObject:
    """The lines so far of one object; it begins with the line `begins_with` recognizes."""

    def __init__(self) -> None:
        self._lines = [b"{"]
        self._bytes = 0
        self.is_whole = False
        """Whether its last line has been added."""

    @staticmethod
    def begins_with(line: bytes) -> bool:
        """Whether such an object may begin with ``line``."""
        return line.strip() == b"{"

    def add(self, line: bytes) -> bool:
        """Adds a line; False where ``line`` does not belong to the object."""
        self._bytes += len(line)
        last, words = line.rstrip() == b"}", line.strip()
        belongs = (last or not words or line[:1].isspace()) and self._bytes <= MOST_BYTES
        if belongs and words:
            self._lines.append(words)
            self.is_whole = last
        return belongs

    @property
    def text(self) -> bytes:
        """The object in one line, as far as it came."""
        return b" ".join(self._lines)
