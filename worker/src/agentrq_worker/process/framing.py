"""Cuts a stream of bytes into lines.

Owns where a line ends, blank lines and the limit of a line. Does not own reading, decoding, or JSON.

A line ends at ``\\n`` and nowhere else: agents put raw U+2028, U+2029 and U+0085 inside their lines, and a trailing
``\\r`` is white space to JSON. Cost is linear in the bytes fed, whatever the length of the lines and the chunks.
"""

from dataclasses import dataclass, field
from io import BytesIO
from typing import Final, TypeAlias

HEAD_BYTES: Final = 4096
_Head: TypeAlias = bytes


@dataclass(frozen=True, slots=True)
class LineTooLong:
    """Stands in the place of a line over the limit; ``bytes`` is the line's full length without its newline."""

    bytes: int
    head: _Head = field(default=b"", compare=False)
    """How the line begins: at most `HEAD_BYTES`."""


class LineFramer:
    """Cuts one byte stream into lines of at most ``max_line`` bytes, newline not counted.

    Retained between calls: at most 1.13 x ``max_line``, for any chunking; of a line already over the limit, nothing
    but its length and its head.
    """

    __slots__ = ("_head", "_line", "_max_line", "_size")

    def __init__(self, max_line: int) -> None:
        if max_line < 1:
            raise ValueError(f"max_line must be at least 1, not {max_line}")
        self._max_line = max_line
        self._line = BytesIO()  # the unfinished line, which it gives away without a copy; empty once over the limit
        self._size = 0  # bytes of the unfinished line, kept or not
        self._head = b""  # of the unfinished line, once it is over the limit

    def feed(self, chunk: bytes) -> list[bytes | LineTooLong]:
        """The lines that ``chunk`` completes, in order, each with its newline; those of white space are left out."""
        if not self._size and 0 <= chunk.find(b"\n") == len(chunk) - 1 <= self._max_line:  # one whole line
            return [] if chunk.isspace() else [chunk]
        # BytesIO finds newlines with memchr; bytes.split goes byte by byte, three to four times as slow.
        lines = BytesIO(chunk).readlines()
        tail = b"" if chunk.endswith(b"\n") or not lines else lines.pop()
        too_long = None
        if lines and self._size:
            first = self._take(lines[0])
            if isinstance(first, LineTooLong):
                too_long, first = first, b"\n"
            lines[0] = first
        if tail:
            self._keep(tail)
        out: list[bytes | LineTooLong]
        if len(chunk) > self._max_line:
            # Only such a chunk can hold a whole line over the limit; the first line has been measured in any case.
            found = [self._measured(line) for line in lines]
            out = [line for line in found if isinstance(line, LineTooLong) or not line.isspace()]
        else:
            out = [line for line in lines if not line.isspace()]
        if too_long is not None:
            out.insert(0, too_long)
        return out

    def close(self) -> list[bytes | LineTooLong]:
        """The last line, if the stream ended without its newline. The framer is empty afterwards."""
        if not self._size:
            return []
        line = self._take(b"")
        return [line] if isinstance(line, LineTooLong) or not line.isspace() else []

    def _measured(self, line: bytes) -> bytes | LineTooLong:
        size = len(line) - line.endswith(b"\n")
        return line if size <= self._max_line else LineTooLong(size, line[:HEAD_BYTES])

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= self._max_line:
            self._line.write(piece)
        elif not self._head:
            self._head = self._begun(piece)
            self._line = BytesIO()

    def _begun(self, piece: bytes) -> bytes:
        """The head of the unfinished line, ``piece`` being what follows what is kept."""
        kept = self._line.getbuffer()[:HEAD_BYTES].tobytes()
        return kept + piece[: HEAD_BYTES - len(kept)]

    def _take(self, end: bytes) -> bytes | LineTooLong:
        size = self._size + len(end) - end.endswith(b"\n")
        line: bytes | LineTooLong
        if size > self._max_line:
            line = LineTooLong(size, self._head or self._begun(end))
        else:
            self._line.write(end)
            line = self._line.getvalue()
        self._line = BytesIO()
        self._size = 0
        self._head = b""
        return line
