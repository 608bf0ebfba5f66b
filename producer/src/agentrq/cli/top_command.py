"""The command ``top``: sessions that have not ended, live, with keys that act on them.

Owns the terminal, the refreshing and what an action does. Does not own what is on the screen (top_screen.py).
"""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Any, Final

import click

from agentrq.cli.exit_codes import OK, USAGE, CommandFailed
from agentrq.cli.interactive import is_interactive
from agentrq.cli.output import put
from agentrq.cli.session_commands import follow_session
from agentrq.cli.shared_options import REDIS, connected
from agentrq.cli.top_screen import Act, TopScreen
from agentrq.client import AgentClient
from agentrq.errors import AgentRQError
from agentrq.wire.status import Status

_LIVE: Final = tuple(status for status in Status if not status.ended)
MOST: Final = 1000
"""Sessions that are shown at most, the newest."""
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # another screen, without a cursor
_KEYS: Final = {"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\x1b": "escape"}


@click.command()
@click.option(
    "--every", type=click.FloatRange(0.1), default=2.0, show_default=True, metavar="SECONDS", help="Refresh so often."
)
@REDIS
def top(every: float, url: str | None) -> int:
    """Show the sessions that have not ended, live: attach to them, answer, interrupt or stop them by key."""
    if not is_interactive():
        raise CommandFailed(USAGE, "agentrq top needs a terminal; for programs there is agentrq list --json")
    with connected(url) as client:
        screen = TopScreen()
        while (act := _watch(client, screen, every)).kind != "quit":
            follow_session(client.session(act.session_id))  # attach; Ctrl-C leads back
    return OK


def _watch(client: AgentClient, screen: TopScreen, every: float) -> Act:
    """Show and obey until a key asks to leave the screen."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with _own_screen() as keyboard:
        while True:
            _refresh(client, screen)
            _draw(screen)
            while select.select([keyboard], [], [], every)[0]:
                for key in _keys(decoder.decode(os.read(keyboard, 1024))):
                    act = screen.press(key)
                    if act is not None and act.kind in ("attach", "quit"):
                        return act
                    if act is not None:
                        screen.message = _perform(client, act)
                        _refresh(client, screen)
                _draw(screen)


def _refresh(client: AgentClient, screen: TopScreen) -> None:
    try:
        screen.update(client.sessions(status=_LIVE, limit=MOST).sessions, client.waiting(), client.fleet())
    except AgentRQError as error:  # Redis is away: what was seen stays on the screen
        screen.message = str(error)


def _perform(client: AgentClient, act: Act) -> str:
    """Do what a key asks for; answers what to say of it."""
    session = client.session(act.session_id)
    try:
        if act.kind == "stop":
            session.stop()
        elif act.kind == "interrupt":
            session.interrupt()
        else:
            session.answer(act.request_id, act.kind)
    except AgentRQError as error:
        return str(error)
    return f"{act.kind} sent to {act.session_id}"


def _keys(text: str) -> Iterator[str]:
    """What was typed, key by key; a sequence of an arrow key is one."""
    while text:
        sequence = next((each for each in _KEYS if len(each) > 1 and text.startswith(each)), text[0])
        yield _KEYS.get(sequence, sequence)
        text = text[len(sequence) :]


def _draw(screen: TopScreen) -> None:
    width, height = shutil.get_terminal_size()
    lines = screen.lines(width, height)
    marked = [f"\x1b[7m{line}\x1b[0m" if line.startswith("> ") else line for line in lines]
    put("\x1b[H" + "\x1b[K\r\n".join(marked) + "\x1b[K\x1b[J")


@contextlib.contextmanager
def _own_screen() -> Iterator[int]:
    """The terminal without echo, on its other screen; as it was afterwards, however the command ends."""
    keyboard = sys.stdin.fileno()
    saved: list[Any] = termios.tcgetattr(keyboard)
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        tty.setraw(keyboard, termios.TCSAFLUSH)
        put(_ENTER)
        yield keyboard
    finally:
        put(_LEAVE)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, saved)
        signal.signal(signal.SIGTERM, before)


def _leave(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)
