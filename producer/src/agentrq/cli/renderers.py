"""Chooses how a followed session is shown: as JSON, as plain text, or on a terminal."""

from __future__ import annotations

import sys
from typing import Protocol

from agentrq.cli.event_text import clock, describe
from agentrq.cli.output import put, put_json
from agentrq.cli.sanitize import sanitize_text
from agentrq.cli.terminal_renderer import TerminalView, make_painter
from agentrq.wire.events import Event, Message


class View(Protocol):
    """Shows events; ``deltas`` says whether it wants the live-only pieces of texts too."""

    deltas: bool

    def show(self, event: Event) -> None:
        """Show one event."""

    def note(self, hint: str) -> None:
        """Show a hint to a person; programs get none."""

    def close(self) -> None:
        """End a line that is still open."""


class JsonView:
    """Prints each event as one line of JSON."""

    deltas = False

    def show(self, event: Event) -> None:
        """Show one event."""
        put_json(event)

    def note(self, hint: str) -> None:
        """No person reads this."""

    def close(self) -> None:
        """Nothing is open."""


class PlainView:
    """Prints each event as a line ``HH:MM:SS CURSOR KIND TEXT``; further lines of its text are indented."""

    deltas = False

    def show(self, event: Event) -> None:
        """Show one event."""
        said = describe(event)
        first, *more = sanitize_text(said.body).split("\n")
        sub_agent = "↳ " if isinstance(event, Message) and event.parent_id else ""
        head = f"{clock(event.timestamp)} {event.cursor or '-':<6} {sanitize_text(said.kind):<12} {sub_agent}{first}"
        put("".join(f"{line}\n" for line in [head.rstrip(), *(f"    {line}".rstrip() for line in more)]))

    def note(self, hint: str) -> None:
        """No person reads this."""

    def close(self) -> None:
        """Nothing is open."""


def make_view(as_json: bool) -> View:
    """The view that suits stdout: a terminal, a pipe, or JSON if it was asked for."""
    if as_json:
        return JsonView()
    if not sys.stdout.isatty():
        return PlainView()
    return TerminalView(make_painter())
