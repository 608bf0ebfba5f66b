"""Tells which of the lines that aider prints are aider's own, and which are the model's.

Aider's chat history file is the evidence: what aider says itself is written there before it is printed, each line as
``> LINE`` with two blanks at its end (aider/io.py); the model's answer is printed first and written as it is. Owns the
comparison of both. Does not own what aider's own lines mean (the worker's parser).
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import NamedTuple

_QUOTE = "> "
_BREAK = "  "
_REMEMBERED = 10_000
"""Lines kept of either side until the other side has them, too."""


class _Written(NamedTuple):
    """A line of the history: as it is, which is how an answer is printed, and as aider prints a line of its own."""

    line: str
    own: str


class ChatHistory:
    """The part of a chat history file that one run of aider writes. Both sides have their lines in the same order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_to = path.stat().st_size if path.exists() else 0
        self._partial = b""
        self._written: deque[_Written] = deque(maxlen=_REMEMBERED)  # not printed yet
        self._printed: deque[str] = deque(maxlen=_REMEMBERED)  # not written yet

    def is_own(self, printed: str) -> bool:
        """Whether aider says this line itself. Without evidence it is the model's."""
        line = printed.strip()
        if not line:
            return False
        self._read_on()
        for at, written in enumerate(self._written):
            if line in written:
                for _ in range(at + 1):
                    self._written.popleft()
                return line == written.own
        self._printed.append(line)
        return False

    def _read_on(self) -> None:
        try:
            if self._path.stat().st_size == self._read_to:
                return
            with self._path.open("rb") as file:
                file.seek(self._read_to)
                data = file.read()
        except OSError:
            return
        self._read_to += len(data)
        *lines, self._partial = (self._partial + data).split(b"\n")
        for raw in lines:
            self._add(raw.decode("utf-8", "replace"))

    def _add(self, raw: str) -> None:
        line = raw.strip()
        if line in self._printed:  # the copy of an answer that was printed before
            while self._printed.popleft() != line:
                pass
        elif line:
            is_own = raw.startswith(_QUOTE) and raw.endswith(_BREAK)
            self._written.append(_Written(line, raw.removeprefix(_QUOTE).strip() if is_own else ""))
