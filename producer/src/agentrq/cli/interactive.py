"""Requests put to whoever sits at the terminal and answered by key, while the session goes on being shown.

Owns the keyboard, the order in which requests are put and what a key means (`Form`). Does not own how events look
(terminal_renderer.py) nor which requests are open (`agentrq.client.pending_requests`).
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

import redis

from agentrq.cli.output import put
from agentrq.cli.prompt_form import Form
from agentrq.cli.terminal_renderer import TerminalView
from agentrq.client import Session
from agentrq.client.pending_requests import PendingRequests, Request
from agentrq.errors import AgentRQError
from agentrq.wire.ids import Cursor
from agentrq.wire.messages import ApprovalResolved, Event, Message, Receipt

DEAF_S: Final = 0.7
"""So long no key counts for a request that took the place of one which somebody else answered: it was not meant."""
_PROMPT: Final = " " * 11 + "› "


def somebody_there() -> bool:
    """Whether a person sits at both ends, and this process is the one that he types to."""
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:  # no terminal of this session's: nobody can put it in the background
        return True


@contextlib.contextmanager
def attended(
    session: Session, after: Cursor | None, events: Iterator[Event], view: TerminalView
) -> Iterator[Iterator[Event]]:
    """The same events, to be shown as they come; in between, open requests are put to the person and answered."""
    desk = Desk(session, view)
    if after is not None:  # what is open may have been asked before
        desk.catch_up(after)
    feed = _Feed(events)
    view.by_key = True
    served = _serve(desk, feed)
    try:
        yield served
    finally:
        served.close()
        feed.close()
        desk.close()


def _serve(desk: Desk, feed: _Feed) -> Generator[Event, None, None]:
    desk.put_next()
    while True:
        stdin = [sys.stdin.fileno()] if desk.listens else []
        ready, _, _ = select.select([feed.fileno, *stdin], [], [])
        if feed.fileno not in ready:
            try:
                desk.keys(os.read(stdin[0], 1024))
            except OSError:  # EIO: the terminal has gone
                desk.keys(b"")
            continue
        event = feed.take()
        if event is None:
            return
        if desk.types and isinstance(event, Message) and event.cursor is None:
            continue  # pieces of a text would tear the line that is being typed; it comes whole as well
        desk.make_room()
        yield event
        desk.see(event)


class _Feed:
    """Events read on a thread of their own, so that keys are heard meanwhile; readable where one waits."""

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


class Desk:
    """The requests of one session in front of one person: the first is put, the others wait."""

    def __init__(self, session: Session, view: TerminalView) -> None:
        self._session = session
        self._view = view
        self._requests = PendingRequests(session.state().cursor)
        self._waiting: list[Request] = []
        self._sent: dict[str, Request] = {}
        """What was answered here and has no receipt yet, by command id."""
        self._form: Form | None = None
        self._line = False
        """The cursor stands in a line of ours."""
        self._deaf_until = 0.0
        self._keys = codecs.getincrementaldecoder("utf-8")("replace")
        self._cooked: list[Any] | None = None
        """The terminal's own mode, while ours is set."""

    @property
    def listens(self) -> bool:
        """Whether keys are for us."""
        return self._form is not None

    @property
    def types(self) -> bool:
        """Whether a line is being typed."""
        return self._line

    def catch_up(self, after: Cursor) -> None:
        """See the events that will not be shown."""
        for event in self._session.events():
            self._waiting += self._requests.see(event)
            if event.cursor is not None and Cursor.parse(event.cursor) >= after:
                return

    def make_room(self) -> None:
        """Something is going to be shown: leave the line that is being typed."""
        if self._line:
            self._line = False
            put("\n")

    def see(self, event: Event) -> None:
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
        self.put_next()
        if self._form is not None and self._form.typed:
            self._echo(self._form.shown)

    def put_next(self) -> None:
        """Put the first request that waits, unless one is put."""
        if self._form is None and self._waiting:
            self._form = Form(self._waiting.pop(0), _who())
            self._take_keyboard()
            self._ask()

    def keys(self, data: bytes) -> None:
        """What was typed."""
        if not data:  # the terminal has gone
            self._form = None
        text = self._keys.decode(data)
        if time.monotonic() < self._deaf_until or (len(text) > 1 and text.startswith("\x1b")):
            return  # an arrow or function key comes as a sequence
        for key in text:
            form = self._form
            if form is None:
                return  # whatever follows was not typed for what is put next
            self._echo(form.press(key))
            if form.left:
                self.make_room()
                self._view.note("Left to others.")
                self._after(form)
            elif form.answer is not None:
                self.make_room()
                self._send(form)
            elif form.asks_anew:
                self.make_room()
                self._ask()

    def close(self) -> None:
        """Give the keyboard back."""
        self.make_room()
        self._form = None
        self._give_back()

    def _ask(self) -> None:
        assert self._form is not None
        for line in self._form.hint():
            self._view.note(line, "bold")

    def _echo(self, text: str) -> None:
        """Show what was typed, in a line of ours."""
        if text and not self._line:
            self._view.close()
            put(_PROMPT)
            self._line = True
        put(text)

    def _send(self, form: Form) -> None:
        try:
            command_id = str(self._session.answer(form.request.request_id, form.answer))
        except (AgentRQError, redis.RedisError, OSError) as error:
            self._view.note(f"Not sent: {error}")
            self._waiting.insert(0, form.request)
        else:
            self._sent[command_id] = form.request
        self._after(form)

    def _after(self, form: Form) -> None:
        """A form is done with: put the next request, or give the keyboard back."""
        if self._form is form:
            self._form = None
        self.put_next()
        if self._form is None:
            self._give_back()

    def _resolved(self, resolved: ApprovalResolved) -> None:
        if self._forget(resolved.request_id):
            self._view.note(f"Not asked any more: {resolved.decision} by {resolved.by}.")
            self._deaf_until = time.monotonic() + DEAF_S
            if not self._waiting:
                self._give_back()

    def _forget(self, request_id: str) -> bool:
        """Drop a request wherever it stands; True if it was the one that is put, or answered here in vain."""
        in_vain = [command_id for command_id, request in self._sent.items() if request.request_id == request_id]
        for command_id in in_vain:
            del self._sent[command_id]
        self._waiting = [request for request in self._waiting if request.request_id != request_id]
        if self._form is not None and self._form.request.request_id == request_id:
            self._form = None
            return True
        return bool(in_vain)

    def _take_keyboard(self) -> None:
        """Keys come one by one and unseen; what was typed before the request was shown is dropped."""
        descriptor = sys.stdin.fileno()
        if self._cooked is None:
            self._cooked = termios.tcgetattr(descriptor)
            tty.setcbreak(descriptor, termios.TCSAFLUSH)
        else:
            termios.tcflush(descriptor, termios.TCIFLUSH)

    def _give_back(self) -> None:
        if self._cooked is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._cooked)
            self._cooked = None


def _who() -> str:
    """Who answers, as others are told."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return f"uid {os.getuid()}"
