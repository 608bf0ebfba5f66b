"""Asks the person at the terminal for answers, by key, while the session goes on being shown.

Owns the keyboard and the order in which requests are shown. Does not own what a key means (prompt_form.py), how events
look (terminal_renderer.py) nor which requests are open (`agentrq.client.pending_requests`).
"""

from __future__ import annotations

import codecs
import contextlib
import getpass
import os
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Generator, Iterable, Iterator
from queue import SimpleQueue
from typing import Any, Final

from agentrq.cli.output import put
from agentrq.cli.prompt_form import Form
from agentrq.cli.terminal_renderer import TerminalView
from agentrq.client import Session
from agentrq.client.pending_requests import OpenRequest, PendingRequests
from agentrq.errors import AgentRQError
from agentrq.wire.events import Event, Message, Receipt
from agentrq.wire.ids import Cursor
from agentrq.wire.messages import ApprovalResolved

IGNORE_KEYS_S: Final = 0.7
"""After somebody else answered the request on screen, keys are ignored for so many seconds: they were meant for it."""
_PROMPT: Final = " " * 11 + "› "


def is_interactive() -> bool:
    """Whether stdin and stdout are a terminal, and this process is in its foreground."""
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:  # not our controlling terminal: nobody can put us in the background
        return True


@contextlib.contextmanager
def answer_by_key(
    session: Session, after: Cursor | None, events: Iterator[Event], view: TerminalView
) -> Iterator[Iterator[Event]]:
    """Gives the same events; between them, open requests are shown to the person and answered by key."""
    prompter = RequestPrompter(session, view)
    if after is not None:  # what is open may have been asked before
        prompter.read_until(after)
    feed = _Feed(events)
    view.by_key = True
    interleaved = _interleave(prompter, feed)
    try:
        yield interleaved
    finally:
        interleaved.close()
        feed.close()
        prompter.close()


def _interleave(prompter: RequestPrompter, feed: _Feed) -> Generator[Event, None, None]:
    prompter.show_next()
    while True:
        stdin = [sys.stdin.fileno()] if prompter.reads_keys else []
        ready, _, _ = select.select([feed.fileno, *stdin], [], [])
        if feed.fileno not in ready:
            try:
                prompter.take_keys(os.read(stdin[0], 1024))
            except OSError:  # EIO: the terminal has gone
                prompter.take_keys(b"")
            continue
        event = feed.take()
        if event is None:
            return
        if prompter.is_typing and isinstance(event, Message) and event.cursor is None:
            continue  # pieces of a text would tear the line that is being typed; it comes whole as well
        prompter.leave_line()
        yield event
        prompter.note_event(event)


class _Feed:
    """Reads events on a thread, so that keys can be read meanwhile; ``fileno`` is readable when one has come."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.fileno, self._bell = os.pipe()
        self._waiting: SimpleQueue[Event | Exception | None] = SimpleQueue()
        threading.Thread(target=self._read, args=(events,), name="events", daemon=True).start()

    def take(self) -> Event | None:
        """The next event; None after the last. Raises what reading them raised."""
        os.read(self.fileno, 1)
        item = self._waiting.get()
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        """Take nothing more: the thread ends with the next event."""
        os.close(self.fileno)

    def _read(self, events: Iterable[Event]) -> None:
        try:
            with contextlib.suppress(BrokenPipeError):
                try:
                    for event in events:
                        self._put(event)
                    self._put(None)
                except BrokenPipeError:
                    raise
                except Exception as error:  # noqa: BLE001 - raised where the events are shown
                    self._put(error)
        finally:
            os.close(self._bell)

    def _put(self, item: Event | Exception | None) -> None:
        self._waiting.put(item)
        os.write(self._bell, b"x")


class RequestPrompter:
    """Shows the open requests of one session to one person, one at a time; the others wait."""

    def __init__(self, session: Session, view: TerminalView) -> None:
        self._session = session
        self._view = view
        self._requests = PendingRequests(session.state().cursor)
        self._waiting: list[OpenRequest] = []
        self._sent: dict[str, OpenRequest] = {}
        """Requests answered here whose receipt has not come yet, by command id."""
        self._form: Form | None = None
        self._line = False
        """A line of typed text is on the screen."""
        self._ignore_keys_until = 0.0
        self._keys = codecs.getincrementaldecoder("utf-8")("replace")
        self._saved_mode: list[Any] | None = None
        """The terminal's mode before we changed it; None while it is unchanged."""

    @property
    def reads_keys(self) -> bool:
        """Whether a request is shown that keys answer."""
        return self._form is not None

    @property
    def is_typing(self) -> bool:
        """Whether a line is being typed."""
        return self._line

    def read_until(self, after: Cursor) -> None:
        """Read the events up to a cursor, which will not be shown, for requests that are still open."""
        for event in self._session.events():
            self._waiting += self._requests.see(event)
            if event.cursor is not None and Cursor.parse(event.cursor) >= after:
                return

    def leave_line(self) -> None:
        """Leave the line that is being typed, because something else will be shown."""
        if self._line:
            self._line = False
            put("\n")

    def note_event(self, event: Event) -> None:
        """Take note of an event that was shown."""
        for request in self._requests.see(event):
            self._forget(request.request_id)  # asked again by a resumed agent
            self._waiting.append(request)
        if isinstance(event, Message) and isinstance(event.content, ApprovalResolved):
            self._resolved(event.content)
        elif isinstance(event, Receipt) and event.command_id in self._sent:
            request = self._sent.pop(event.command_id)
            if event.outcome == "rejected":
                self._waiting.insert(0, request)
        self.show_next()
        if self._form is not None and self._form.typed:
            self._echo(self._form.shown)

    def show_next(self) -> None:
        """Show the first request that waits, unless one is shown."""
        if self._form is None and self._waiting:
            self._form = Form(self._waiting.pop(0), _user_name())
            self._take_keyboard()
            self._ask()

    def take_keys(self, data: bytes) -> None:
        """Take what was typed."""
        if not data:  # the terminal has gone
            self._form = None
        text = self._keys.decode(data)
        if time.monotonic() < self._ignore_keys_until or (len(text) > 1 and text.startswith("\x1b")):
            return  # an arrow or function key comes as a sequence
        for key in text:
            form = self._form
            if form is None:
                return  # what follows was not typed for the next request
            self._echo(form.press(key))
            if form.left:
                self.leave_line()
                self._view.note("Left to others.")
                self._finish(form)
            elif form.answer is not None:
                self.leave_line()
                self._send(form)
            elif form.asks_anew:
                self.leave_line()
                self._ask()

    def close(self) -> None:
        """Give the terminal its mode back."""
        self.leave_line()
        self._form = None
        self._restore_terminal()

    def _ask(self) -> None:
        assert self._form is not None
        for line in self._form.hint():
            self._view.note(line, "bold")

    def _echo(self, text: str) -> None:
        """Show what was typed, in a line below the events."""
        if text and not self._line:
            self._view.close()
            put(_PROMPT)
            self._line = True
        put(text)

    def _send(self, form: Form) -> None:
        try:
            command_id = str(self._session.answer(form.request.request_id, form.answer))
        except AgentRQError as error:
            self._view.note(f"Not sent: {error}")
            self._waiting.insert(0, form.request)
        else:
            self._sent[command_id] = form.request
        self._finish(form)

    def _finish(self, form: Form) -> None:
        """Close a form; show the next request, or give the terminal its mode back."""
        if self._form is form:
            self._form = None
        self.show_next()
        if self._form is None:
            self._restore_terminal()

    def _resolved(self, resolved: ApprovalResolved) -> None:
        if self._forget(resolved.request_id):
            self._view.note(f"Not asked any more: {resolved.decision} by {resolved.by}.")
            self._ignore_keys_until = time.monotonic() + IGNORE_KEYS_S
            if not self._waiting:
                self._restore_terminal()

    def _forget(self, request_id: str) -> bool:
        """Drop a request wherever it is; True if it was on screen, or answered here too late."""
        too_late = [command_id for command_id, request in self._sent.items() if request.request_id == request_id]
        for command_id in too_late:
            del self._sent[command_id]
        self._waiting = [request for request in self._waiting if request.request_id != request_id]
        if self._form is not None and self._form.request.request_id == request_id:
            self._form = None
            return True
        return bool(too_late)

    def _take_keyboard(self) -> None:
        """Read keys one by one, without echo; drop what was typed before the request was shown."""
        descriptor = sys.stdin.fileno()
        if self._saved_mode is None:
            self._saved_mode = termios.tcgetattr(descriptor)
            tty.setcbreak(descriptor, termios.TCSAFLUSH)
        else:
            termios.tcflush(descriptor, termios.TCIFLUSH)

    def _restore_terminal(self) -> None:
        if self._saved_mode is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._saved_mode)
            self._saved_mode = None


def _user_name() -> str:
    """The name that others see as the one who answered."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return f"uid {os.getuid()}"
