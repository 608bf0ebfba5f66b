"""Bytes to lines. Owns: where a line ends, blank lines, the limit of a line. Does NOT own: reading, decoding, JSON.

A line ends at ``\\n`` and nowhere else: agents put raw U+2028, U+2029 and U+0085 inside their lines, and a trailing
``\\r`` is white space to JSON. Cost is linear in the bytes fed, whatever the length of the lines and the chunks.
"""

from dataclasses import dataclass
from io import BytesIO

_SMALL = 512
"""Pieces below this many bytes are gathered, so that a byte at a time does not cost 40 bytes a byte."""

_GATHER = 512
"""How many small pieces are gathered at a time."""


@dataclass(frozen=True, slots=True)
class LineTooLong:
    """Stands in the place of a line over the limit; ``bytes`` is the line's full length without its newline."""

    bytes: int


class LineFramer:
    """Cuts one byte stream into lines of at most ``max_line`` bytes, newline not counted.

    Retained between calls: at most 1.1 x ``max_line`` + 384 KiB, for any chunking; of a line already over the limit,
    nothing but its length. While a line of several chunks is put together its pieces and the line exist at once.
    """

    __slots__ = ("_loose", "_max_line", "_pieces", "_size")

    def __init__(self, max_line: int) -> None:
        if max_line < 1:
            raise ValueError(f"max_line must be at least 1, not {max_line}")
        self._max_line = max_line
        self._pieces: list[bytes] = []  # of the unfinished line; empty once it is over the limit
        self._size = 0  # bytes of the unfinished line, kept or not
        self._loose = 0  # small pieces since the last gathering

    def feed(self, chunk: bytes) -> list[bytes | LineTooLong]:
        """The lines that ``chunk`` completes, in order, without newlines; lines of white space only are left out."""
        # BytesIO looks for newlines with memchr, bytes.split byte by byte: three to four times as slow.
        lines = BytesIO(chunk).readlines()
        tail = b"" if chunk.endswith(b"\n") or not lines else lines.pop()
        if not lines:
            if tail:
                self._keep(tail)
            return []
        lines = [line[:-1] for line in lines]
        too_long = None
        if self._size:
            first = self._take(lines[0])
            if isinstance(first, LineTooLong):
                too_long, first = first, b""
            lines[0] = first
        if tail:
            self._keep(tail)
        if len(chunk) > self._max_line:
            # Only such a chunk can hold a whole line over the limit; the first line has been measured in any case.
            found = [line if len(line) <= self._max_line else LineTooLong(len(line)) for line in lines]
            out = [line for line in found if isinstance(line, LineTooLong) or (line and not line.isspace())]
        else:
            out = [line for line in lines if line and not line.isspace()]
        if too_long is not None:
            out.insert(0, too_long)
        return out

    def close(self) -> list[bytes | LineTooLong]:
        """The last line, if the stream ended without its newline. The framer is empty afterwards."""
        if not self._size:
            return []
        line = self._take(b"")
        return [line] if isinstance(line, LineTooLong) or not line.isspace() else []

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max_line:
            self._pieces.clear()
            self._loose = 0
            return
        self._pieces.append(piece)
        if len(piece) < _SMALL:
            self._loose += 1
            if self._loose == _GATHER:
                # What was gathered before lies outside this slice, so no byte is copied here more than once.
                self._pieces[-_GATHER:] = [b"".join(self._pieces[-_GATHER:])]
                self._loose = 0

    def _take(self, end: bytes) -> bytes | LineTooLong:
        size = self._size + len(end)
        line: bytes | LineTooLong
        if size > self._max_line:
            line = LineTooLong(size)
        else:
            self._pieces.append(end)
            line = b"".join(self._pieces)
        self._pieces.clear()
        self._size = self._loose = 0
        return line
