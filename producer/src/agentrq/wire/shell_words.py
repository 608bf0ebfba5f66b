"""Splits a command line into words, as `shlex.split` has them, in time that grows with its length only. Pure."""

from __future__ import annotations

import re
from typing import Final

# As shlex.split, whose time grows with the square of a word's length.
_WORD: Final = re.compile(r"""(?:[^ \t\r\n'"\\]++|'[^']*+'|"(?:[^"\\]++|\\.)*+"|\\.)++""", re.DOTALL)
_PIECE: Final = re.compile(r"""'([^']*+)'|"((?:[^"\\]++|\\.)*+)"|\\(.)|([^'"\\]++)""", re.DOTALL)
_SPACE: Final = re.compile(r"[ \t\r\n]*+")
_ESCAPED: Final = re.compile(r"""\\(["\\])""")


def split_words(text: str, most: int) -> list[str]:
    """The first ``most`` words, as `shlex.split` has them; none where a quote is not closed."""
    found: list[str] = []
    at = _end(_SPACE, text, 0)
    while at < len(text) and len(found) < most:
        end = _end(_WORD, text, at)
        if end == at:
            return []
        found.append("".join(map(_unquoted, _PIECE.finditer(text, at, end))))
        at = _end(_SPACE, text, end)
    return found


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()


def _unquoted(piece: re.Match[str]) -> str:
    single, double, escaped, bare = piece.groups()
    return _ESCAPED.sub(r"\1", double) if double else single or escaped or bare or ""
