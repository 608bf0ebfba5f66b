"""Shows a session on a terminal: times on the left, wrapped texts beside them, deltas as they come.

Owns layout and colours. Colours are rich's where it is installed; without it, with NO_COLOR or on a dumb terminal
the layout is the same without escape codes. Does not own the words (event_text.py).
"""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from agentrq.cli.event_text import EventText, clock, describe
from agentrq.cli.output import put
from agentrq.cli.sanitize import sanitize_text
from agentrq.wire.events import Event, Message
from agentrq.wire.messages import TYPES, Text, TextDelta, Thinking, ThinkingDelta

Paint: TypeAlias = Callable[[str, str], None]
"""Writes a text in a style."""

_EVENT_MARKS: Final = {"session": "· ", "receipt": "· "}
"""What stands before an event that is not a message; a message's type says it itself (wire/messages.py)."""
_LIVE: Final = {TextDelta: "text", ThinkingDelta: "thinking"}
_WIDTH: Final = 100
"""Texts are wrapped at this many columns at most: longer lines are hard to read."""
_TIME: Final = 9
_INDENT: Final = _TIME + 2
_NARROWEST: Final = 20
_PIECES: Final = re.compile(r"\n|[^\S\n]+|\S+")


def make_painter() -> Paint:
    """A function that writes in colour, if this terminal can and rich is installed; else plainly."""
    if not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in (None, "", "dumb"):
        try:
            from rich.console import Console  # noqa: PLC0415 - optional, and slow to import
            from rich.text import Text as RichText  # noqa: PLC0415
        except ImportError:
            pass
        else:
            console = Console(soft_wrap=True)

            def paint(text: str, style: str) -> None:
                with console.capture() as captured:
                    console.print(RichText(text, style), end="")
                put(captured.get())

            return paint
    return lambda text, _: put(text)


class TerminalView:
    """Shows events; a text that came in deltas is not shown again when it comes whole."""

    deltas = True

    def __init__(self, paint: Paint) -> None:
        self.by_key = False
        """Requests are answered by key at this terminal."""
        self._paint = paint
        self._column = Column(paint)
        self._live: dict[tuple[str, str], int] = {}
        """Blocks that came in pieces: type and id, and how many of their characters were shown."""
        self._open: tuple[str, str] | None = None
        """The block that the current line belongs to."""

    def show(self, event: Event) -> None:
        """Show one event."""
        content = event.content if isinstance(event, Message) else None
        if isinstance(event, Message):
            if isinstance(content, TextDelta | ThinkingDelta):
                self._piece(event, (_LIVE[type(content)], content.block_id), content.text, content.offset)
                return
            if isinstance(content, Text | Thinking) and isinstance(content.block_id, str):
                block = (event.type, content.block_id)
                if block in self._live:
                    self._piece(event, block, content.text, 0)
                    self.close()
                    del self._live[block]
                    return
        self.close()
        said = describe(event, by_key=self.by_key)
        self._begin(event, said)
        self._column.write(sanitize_text(said.body), _style(said))
        self._column.end()

    def close(self) -> None:
        """End the line of a text that is still streaming."""
        if self._open is not None:
            self._open = None
            self._column.end()

    def note(self, hint: str, style: str = "dim") -> None:
        """Show a hint."""
        self.close()
        self._paint(" " * _INDENT, "")
        self._column.start()
        self._column.write(sanitize_text(hint), style)
        self._column.end()

    def _piece(self, message: Message, block: tuple[str, str], text: str, offset: int) -> None:
        """Show the new part of a block; nothing if pieces before it are missing, since the whole text follows."""
        shown = self._live.setdefault(block, 0)
        fresh = text[shown - offset :] if offset <= shown else ""
        if not fresh:
            return
        said = EventText(block[0], fresh)
        if self._open != block:
            self.close()
            self._begin(message, said)
            self._open = block
        self._live[block] = shown + len(fresh)
        self._column.write(sanitize_text(fresh), _style(said))

    def _begin(self, event: Event, said: EventText) -> None:
        self._paint(f"{clock(event.timestamp)} ", "dim")
        kind = TYPES.get(said.kind)
        mark = (kind.mark if kind else _EVENT_MARKS.get(said.kind)) or "  "
        if isinstance(event, Message) and event.parent_id:
            mark = "↳ "
        self._paint(mark, _style(said))
        self._column.start()
        if said.kind not in _EVENT_MARKS and (kind is None or (not kind.mark and kind.style == "dim")):
            self._column.write(f"{sanitize_text(said.kind)}: ", _style(said))


def _style(said: EventText) -> str:
    if said.bad and said.kind != "tool_result":
        return "red"
    kind = TYPES.get(said.kind)
    return kind.style if kind else "dim"


class Column:
    """Wraps and indents texts, which may come in pieces."""

    def __init__(self, paint: Paint) -> None:
        self._paint = paint
        self._at = 0
        self._room = _WIDTH

    def start(self) -> None:
        """Begin at the left edge of the column."""
        self._at = 0
        self._room = max(min(shutil.get_terminal_size().columns - 1, _WIDTH) - _INDENT, _NARROWEST)

    def write(self, text: str, style: str) -> None:
        """Write a sanitized text, or the next piece of one."""
        self._paint("".join(self._wrapped(text.replace("\t", "    "))), style)

    def end(self) -> None:
        """End the line."""
        self._paint("\n", "")

    def _wrapped(self, text: str) -> Iterator[str]:
        newline = "\n" + " " * _INDENT
        for piece in _PIECES.findall(text):
            if piece == "\n":
                self._at = 0
                yield newline
                continue
            wide = cells(piece)
            if self._at and self._at + wide > self._room:
                self._at = 0
                yield newline
                if piece.isspace():
                    continue
            for part in [piece] if wide <= self._room else _hard_wrapped(piece, self._room):
                if self._at:
                    yield newline if self._at + cells(part) > self._room else ""
                yield part
                self._at = (self._at if self._at + cells(part) <= self._room else 0) + cells(part)


def _hard_wrapped(word: str, room: int) -> Iterator[str]:
    start = at = 0
    for place, character in enumerate(word):
        wide = cells(character)
        if at + wide > room:
            yield word[start:place]
            start, at = place, 0
        at += wide
    yield word[start:]


def cells(text: str) -> int:
    """How many terminal columns a text takes: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
