"""Follows one session: replay, then live, each event once and in order. Pure: bytes in, events out.

The stream is the truth and the channels are hints. A reader subscribes; it reads the stream from its cursor each time
a subscription was acknowledged, a hole showed or nothing came for a while, and drops what it has already. The IO is
the clients' (sync_client.py, asyncio_client.py).
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from agentrq.client.redis_requests import Batch
from agentrq.client.text_blocks import TextBlocks
from agentrq.client.text_requests import texts_command
from agentrq.errors import SessionNotFound, StreamTrimmed
from agentrq.wire.codec import decode_entry, decode_messages, decode_status_payload
from agentrq.wire.events import Event, Message, StatusEvent, make_message
from agentrq.wire.ids import NEWEST_POSSIBLE, ORIGIN, Cursor
from agentrq.wire.keys import Keys
from agentrq.wire.messages import UNKNOWN, Text, TextDelta, Thinking, ThinkingDelta
from agentrq.wire.raw_events import RawEvent, raw_entry, raw_messages, raw_of, raw_status_payload
from agentrq.wire.script_calls import text
from agentrq.wire.status import ENDED

log = logging.getLogger("agentrq.client.subscription")

PAGE_BYTES: Final = 1 << 20
"""About how much one read of the stream brings: pages grow and shrink towards it."""
MAX_PAGE: Final = 2000
ASK_AGAIN_S: Final = 1.0
"""A reader that misses pieces of a text asks for it at most this often, in seconds."""
CHECK_AGAIN_S: Final = 5.0
"""How long a reader waits for a hint before it reads the stream and the state itself, in seconds."""
ABSENT_PAUSE_S: Final = 0.25
"""How long a reader waits before it reads a session again whose state is gone, in seconds."""
MAX_WAITING_BYTES: Final = 4 << 20
"""Hints a slow reader lets wait; past that they are dropped and it reads the stream instead."""


_MALFORMED: Final = (msgspec.MsgspecError, ValueError, RecursionError)


def cursor_of(value: Any) -> Cursor:
    """A cursor of the state hash; `ORIGIN` where it is absent or not a cursor."""
    try:
        return Cursor.parse(text(value))
    except ValueError:
        return ORIGIN


def check_cursor(after: object) -> Cursor | None:
    """The cursor that a caller gave, None for none. Raises ValueError for anything else."""
    if after is None or isinstance(after, Cursor):
        return after
    if not isinstance(after, str):
        raise ValueError(f"Expected a cursor (EPOCH-SEQ), got {after!r}")
    return Cursor.parse(after)


E = TypeVar("E", bound=Event | RawEvent)
"""How a reader gives its events: decoded, or as their bytes."""


PAGE_STATE: Final = ("status", "cursor", "trimmedThrough", "nonce", "worker")
"""What a page has of the state."""


class EventDecoder(NamedTuple, Generic[E]):
    """What turns bytes into a reader's events. Each raises one of `_MALFORMED` for what is not an event."""

    entry: Callable[[bytes, bytes], E | None]
    messages: Callable[[bytes], Sequence[E]]
    status: Callable[[bytes], E]
    made: Callable[[Message], E]


def _same(message: Message) -> Event:
    return message


DECODED: Final[EventDecoder[Event]] = EventDecoder(decode_entry, decode_messages, decode_status_payload, _same)
RAW: Final[EventDecoder[RawEvent]] = EventDecoder(raw_entry, raw_messages, raw_status_payload, raw_of)
_TEXTS: Final = {kind.type_name for kind in (Text, Thinking, TextDelta, ThinkingDelta)}


def _text_of(event: Event | RawEvent) -> Text | Thinking | TextDelta | ThinkingDelta | None:
    """The content of a text, whole or a piece; None for every other event."""
    if isinstance(event, RawEvent):
        if event.type not in _TEXTS:
            return None
        event = event.decode()
    content = event.content if isinstance(event, Message) else None
    return content if isinstance(content, Text | Thinking | TextDelta | ThinkingDelta) else None


def _is_end(event: Event | RawEvent) -> bool:
    if isinstance(event, RawEvent):
        event = event.decode() if event.kind == "status" else event  # statuses are rare
    return isinstance(event, StatusEvent) and event.status in ENDED


class Reader(Generic[E]):
    """Where one reader of one session is, and which events it gets next.

    ``skips``: it needs no history, so it goes on after what was trimmed, and sets `skipped`.
    """

    first_page: int = 100
    """How many events the first page may have."""
    page_bytes: int = PAGE_BYTES

    def __init__(
        self,
        keys: Keys,
        session_id: str,
        after: str | Cursor | None,
        decoder: EventDecoder[E],
        *,
        deltas: bool = False,
        skips: bool = False,
    ) -> None:
        self.session_id = session_id
        self.cursor = check_cursor(after) or ORIGIN
        self.behind = True
        """The stream has to be read before live events count."""
        self.ended = False
        self.skipped = False
        """Whether events were passed over; whoever has handled that sets it to False again."""
        self.nonce = ""
        """The nonce of the session's start, which tells it from other sessions by its id; '' before the first read."""
        self.absent_since: float | None = None
        """Since when (monotonic) a session that was there has had no state; see owner_watch.py."""
        self._anchored = after is not None
        self._keys = keys
        self._blocks = TextBlocks() if deltas else None
        self._worker = ""
        """The owner by the last page; '' for none."""
        self._texts_wanted = False
        """The texts under way have to be asked for: it joins, or pieces are missing."""
        self._texts_asked_at = -math.inf
        self._may_ask = True
        self._skips = skips
        self._decoder = decoder
        self._page = self.first_page

    def page(self) -> Batch:
        """The commands of the next read: events after the cursor and, of the same moment, the state."""
        start, end = f"({self.cursor}" if self.cursor > ORIGIN else "-", "+"
        if self.cursor == NEWEST_POSSIBLE:
            start, end = "+", "-"  # nothing can come after it, and Redis has no name for that
        return Batch(
            [
                ("XRANGE", self._keys.events(self.session_id), start, end, "COUNT", self._page),
                ("HMGET", self._keys.state(self.session_id), *PAGE_STATE),
            ],
            atomic=True,
        )

    def shrink(self) -> bool:
        """Ask for a smaller page, as one did not come in time. False where it was of one event."""
        less, self._page = self._page > 1, max(1, self._page // 10)
        return less

    def from_stream(self, answers: Sequence[Any]) -> list[E]:
        """The events of a page. Raises `StreamTrimmed` if some before them are gone, `SessionNotFound`."""
        entries, (status, newest, trimmed, nonce, worker) = answers
        if status is None and self.nonce:
            self.absent_since = self.absent_since or time.monotonic()
            return []
        if status is None or (self.nonce and text(nonce or "") != self.nonce):
            raise SessionNotFound(self.session_id)
        self.nonce, self.absent_since, self._worker = text(nonce or ""), None, text(worker or "")
        if self._anchored and cursor_of(trimmed) > self.cursor:
            self._skip(trimmed)
        events: list[E] = []
        size = 0
        for place, fields in entries:
            try:
                ((field, value),) = fields.items()
                event = self._decoder.entry(field, value)
                size += len(value)
            except _MALFORMED as error:
                event = self._unreadable(text(place), fields, error)
            if event is not None:
                events.append(event)
        if entries:
            place = Cursor.parse(entries[-1][0])
            if self._blocks is not None:
                if place.epoch > self.cursor.epoch:
                    self._blocks.close_all()
                self._close_whole(events)
            self.cursor = place
        self._anchored = self._anchored or bool(entries)
        self.behind = len(entries) == self._page
        if size:
            self._page = max(1, min(MAX_PAGE, self._page * 4, len(entries) * self.page_bytes // size))
        self.ended = not self.behind and text(status) in ENDED
        if self.ended and not events and cursor_of(newest) > self.cursor:
            # Page and state are of one moment: what the state speaks of is gone, and no more will come.
            self._skip(newest)
        return events

    def _skip(self, through: Any) -> None:
        if not self._skips:
            raise StreamTrimmed(self.session_id, str(self.cursor), text(through))
        self.skipped = True

    def _unreadable(self, place: str, fields: dict[bytes, bytes], error: Exception) -> E:
        """A placeholder for an event that cannot be read, so that its place does not look like a hole."""
        log.warning("session %s: event %s cannot be decoded: %s", self.session_id, place, error)
        shown = b" ".join(value for pair in fields.items() for value in pair)[:1000].decode("utf-8", "replace")
        return self._decoder.made(make_message(self.session_id, place, UNKNOWN, 0, {"undecodable": shown}, place))

    def from_messages(self, payload: bytes) -> list[E]:
        """What a payload of the messages channel adds; a hole makes the reader `behind`."""
        try:
            return self._fresh(self._decoder.messages(payload))
        except _MALFORMED as error:
            return self._unread(error)

    def from_status(self, payload: bytes) -> list[E]:
        """What a payload of the status channel adds."""
        try:
            events = self._fresh([self._decoder.status(payload)])
        except _MALFORMED as error:
            return self._unread(error)
        if events and _is_end(events[0]):
            self.ended = True
        return events

    def _unread(self, error: Exception) -> list[E]:
        log.warning(
            "session %s: a Pub/Sub payload cannot be decoded, reading the stream instead: %s", self.session_id, error
        )
        self.behind = True
        return []

    def _fresh(self, events: Sequence[E]) -> list[E]:
        fresh: list[E] = []
        if self.behind:
            return fresh
        epoch, seq = self.cursor
        following = f"{epoch}-{seq + 1}"
        for event in events:
            cursor = event.cursor
            if cursor == following:  # nearly always: nothing is parsed
                seq += 1
                following = f"{epoch}-{seq + 1}"
                fresh.append(event)
            elif cursor is None:
                if (piece := self._take_piece(event)) is not None:
                    fresh.append(piece)
            elif Cursor.parse(cursor) > (epoch, seq):
                self.behind = True
                break
        self.cursor = Cursor(epoch, seq)
        if self._blocks is not None:
            self._close_whole(fresh)
        return fresh

    def _close_whole(self, events: Sequence[E]) -> None:
        assert self._blocks is not None
        for event in events:
            if isinstance(whole := _text_of(event), Text | Thinking):
                self._blocks.close(whole.block_id)

    def _take_piece(self, event: E) -> E | None:
        """What a live-only event adds. Given as its bytes it is handed on as it came, unless its block has ended."""
        if self._blocks is None:
            return None
        content = _text_of(event)
        if not isinstance(content, TextDelta | ThinkingDelta):
            return event
        if self._blocks.is_late(content):
            return None
        piece = self._blocks.take(content)
        if self._blocks.missing:
            self._blocks.missing = False
            self._texts_wanted |= time.monotonic() - self._texts_asked_at >= ASK_AGAIN_S
        if isinstance(event, RawEvent) or piece is content:
            return event
        return None if piece is None else msgspec.structs.replace(event, content=piece)

    # -- texts under way

    def on_missed(self) -> None:
        """Hints were missed, or a subscription began: the stream has to be read, and texts may be under way."""
        self.behind = True
        self._texts_wanted = self._blocks is not None

    @property
    def wants_texts(self) -> bool:
        """Whether the worker is to be asked now for the texts under way."""
        return self._texts_wanted and self._may_ask and not self.behind

    def on_refused_texts(self) -> None:
        """Redis refuses to ask the worker: it is not tried again."""
        self._may_ask = False

    def ask_for_texts(self) -> list[tuple[str, str, str]]:
        """The command that asks for them, if a worker has the session."""
        self._texts_wanted, self._texts_asked_at = False, time.monotonic()
        if self.ended or not self._worker:
            return []
        return [texts_command(self._keys, self._worker, self.session_id)]


class Mailbox:
    """Hints that wait for a reader. Bounded: past the bound they are dropped and `behind` is set."""

    def __init__(self) -> None:
        self.behind = False
        self._waiting: deque[tuple[bool, bytes]] = deque()
        self._bytes = 0

    def __bool__(self) -> bool:
        return self.behind or bool(self._waiting)

    def on_subscribed(self) -> None:
        """A subscription began, or began again: what was published before may have been missed."""
        self._drop()

    def put(self, is_status: bool, payload: bytes) -> None:
        """A hint came from the messages or the status channel."""
        if self.behind:
            return  # the stream is going to be read anyway, and has this
        self._waiting.append((is_status, payload))
        self._bytes += len(payload)
        if self._bytes > MAX_WAITING_BYTES:
            self._drop()

    def take(self, reader: Reader[E]) -> list[E]:
        """Give a reader all that waits."""
        waiting, behind = self._waiting, self.behind
        self._waiting, self._bytes, self.behind = deque(), 0, False
        if behind:
            reader.on_missed()
            return []
        events: list[E] = []
        for is_status, payload in waiting:
            events += reader.from_status(payload) if is_status else reader.from_messages(payload)
        return events

    def _drop(self) -> None:
        self.behind = True
        self._waiting.clear()
        self._bytes = 0
