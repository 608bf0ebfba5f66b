"""Numbers one session's events and queues them for the publisher.

Owns the events' places (epoch and sequence), their JSON, and what is written again when Redis lost some of them. Does
not own statuses (session/machine.py), what waits (stream/buffer.py) nor the writing (publisher.py).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from msgspec import UNSET, Raw

from agentrq.wire import script_calls
from agentrq.wire.codec import encode, encode_without_cursor, encoder
from agentrq.wire.events import Receipt, StatusEvent
from agentrq.wire.feed import feed_members
from agentrq.wire.ids import Cursor
from agentrq.wire.keys import Keys
from agentrq.wire.message_feed import members_of
from agentrq.wire.messages import LIVE_ONLY, Error, Text
from agentrq.wire.owner_calls import WriteTarget
from agentrq.wire.status import Reason, Status
from agentrq_worker import logs
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.redis_clock import RedisClock
from agentrq_worker.stream.buffer import EventBuffer
from agentrq_worker.stream.buffer_budget import BufferBudget
from agentrq_worker.stream.entry import Entry
from agentrq_worker.stream.message_redactor import MessageRedactor
from agentrq_worker.stream.open_texts import OpenTexts, forget

log = logging.getLogger(__name__)

KEPT_S: Final = 10.0
KEPT_BYTES: Final = 256 * 1024
"""Written events stay here for a while, should Redis come back without them (AOF everysec may lose 1 to 2 s)."""
_TOOLS: Final = frozenset({"tool_call", "tool_result"})
ANSWERED_KEPT: Final = 2000
"""Commands of one session whose receipts can be written again: twice what an inbox holds."""


class Answered(NamedTuple):
    """What the receipt of a command said, and its place."""

    seq: int
    command: str
    outcome: str
    reason: str | None


class EventLog:
    """One session's events; ``wake`` tells the publisher that there are some."""

    __slots__ = (  # more attributes than Python keeps beside the object: a third of the lookups' cost
        "_clock", "_commit_callbacks", "_cursor", "_deltas", "_drained", "_end", "_has_ended", "_head",
        "_last_status", "_live", "_open", "_open_texts", "_recent", "_recent_bytes", "_seq", "_wake",
        "answered", "claim", "ended", "epoch", "has_read", "lost", "missing_in_redis", "on_lost",
        "on_repaired", "redactor", "runs", "session_id", "state", "target", "unknown_to_redis", "waiting",
        "written", "written_at",
    )  # fmt: skip

    def __init__(
        self,
        keys: Keys,
        session_id: str,
        cursor: Cursor,
        state: dict[str, Any],
        shares: BufferBudget,
        wake: Callable[[EventLog], None],
        clock: RedisClock,
    ) -> None:
        self.session_id = session_id
        self.epoch = cursor.epoch
        self.claim = str(state["claim"])
        """The fence of its writes: it belongs to one claim of one session, unlike epoch and token."""
        self.target = WriteTarget(
            session_id, self.epoch, self.claim, script_calls.session_keys(keys, session_id),
            keys.messages_channel(session_id), keys.status_channel(session_id),
        )  # fmt: skip
        self.runs = False
        """Whether the session's last status that was written is ``running``, and its messages could be written so."""
        self.waiting = EventBuffer(shares)
        self.written = cursor.seq
        self.has_read: Callable[[], None] = lambda: None
        """Called when the lines of one read of the runner's stdout have been added."""
        self.lost: str | None = None
        """Why nothing more can be written (``fenced``, ``closed``, …); None while events are accepted."""
        self.on_lost: Callable[[str], None] = lambda _: None
        self.ended = False
        self._has_ended = False
        """Whether the end was in Redis once: if Redis lost it, the publisher writes it again."""
        self.on_repaired: Callable[[], None] = lambda: None
        """Called once all that a repair wrote again is in Redis: an older inbox may hold answered commands."""
        self.answered: dict[str, Answered] = {}
        """What this owner's receipts said, by command id: the newest `ANSWERED_KEPT`."""
        self.written_at = time.monotonic()
        self.unknown_to_redis = False
        """Redis came back without this session, or with an older one: it is restored before the next write."""
        self.missing_in_redis = False
        """Redis came back without its state, so that it may have been removed as well."""
        self.state = state
        """The state's fields, as far as they are known here: a restored session gets them."""
        self._clock = clock
        self.redactor: MessageRedactor | None = None
        """Takes secrets out of what the runner says; None where there are none."""
        self._commit_callbacks: list[tuple[int, Callable[[], None]]] = []
        self._wake = wake
        self._seq = cursor.seq
        self._deltas = 0
        self._open_texts = OpenTexts()
        self._open = True
        """False once nothing is accepted any more: the end has been added, or nothing can be written."""
        self._drained: asyncio.Event | None = None  # made when somebody waits: an event takes 0.8 KiB
        self._recent: deque[tuple[float, Entry]] = deque()
        self._recent_bytes = 0
        self._last_status: Entry | None = None
        self._end: Entry | None = None
        self._head = f'","sessionId":"{session_id}","id":"{self.epoch}-'.encode()
        self._cursor = f'{{"cursor":"{self.epoch}-'.encode()
        self._live = f'{{"sessionId":"{session_id}","id":"{self.epoch}-d'.encode()

    @property
    def next_cursor(self) -> str:
        """The cursor that the next event gets."""
        return f"{self.epoch}-{self._seq + 1}"

    @property
    def on_full(self) -> Callable[[bool], None]:
        """Called with True when the runner should not be read for now, with False when it may be again."""
        return self.waiting.on_full

    @on_full.setter
    def on_full(self, call: Callable[[bool], None]) -> None:
        self.waiting.on_full = call

    @property
    def ends_in_short(self) -> bool:
        """Whether its end waits behind few events (4 MiB at most): written even when Redis's memory is full."""
        return not self._open and self.lost is None and self.waiting.is_short()

    def now_ms(self) -> int:
        """Milliseconds since the epoch by Redis's clock, which all workers compare times by."""
        return self._clock.now_ms()

    # -- the session's events

    def add_message(
        self,
        kind: str,
        content: Any,
        parent_id: str | None = None,
        fields: dict[str, Any] | None = None,
        *,
        feed: list[bytes] | None = None,
        atomic_with_next: bool = False,
    ) -> None:
        """Add a message: ``content`` a struct, a JSON value or `msgspec.Raw`; ``atomic_with_next`` as in `Entry`.

        ``feed``: what the feed is told besides what it is told of the message itself (see `Run`).
        """
        self._open_texts.see(kind, content)
        if self.redactor is not None:
            content = self.redactor.content(kind, content)
        feed = [*(feed or ()), *members_of(content)]
        self._add("m", self._json(kind, content, parent_id), fields, feed=feed, atomic_with_next=atomic_with_next)

    def add_messages(self, drafts: Iterable[DraftMessage]) -> bool:
        """Add messages of one moment that change nothing in the state; deltas are published, not kept.

        True if tool calls or results are among them.
        """
        # Nearly all that a worker reads comes through here: what can be computed once for all drafts is.
        if not self._open:
            return False
        if self.redactor is not None:
            drafts = self.redactor.drafts(map(self._open_texts.saw, drafts))
        kind, middle = "", b""
        parent_id: str | None = None
        join, seq, deltas, head, encode_clean = b"".join, self._seq, self._deltas, self._live, encoder.encode
        live, tools, first, jsons = False, False, seq + 1, list[bytes]()
        open_texts, block = self._open_texts, None
        grow: Callable[[Any], None] = forget
        for draft in drafts:
            if draft.type != kind or draft.parent_id != parent_id:  # most are like the one before
                kind, parent_id = draft.type, draft.parent_id
                middle = _middle(kind, parent_id, self._clock.now_ms())
                tools = tools or kind in _TOOLS
                if (kind in LIVE_ONLY) is not live:
                    self._queue_messages(live, first, jsons)
                    live, first, jsons = not live, seq + 1, []
            if live:
                deltas += 1
                delta: Any = draft.content
                if delta.block_id != block:
                    block, grow = delta.block_id, open_texts.begin(draft)
                grow(delta.text)
                if delta.abandoned:
                    open_texts.end(block)
                try:
                    piece = encode_clean(draft.content)
                except UnicodeEncodeError:
                    piece = encode(draft.content)  # the function around it costs as much as what it calls
                jsons.append(join((head, b"%d" % deltas, middle, piece, b"}")))
            else:
                seq += 1
                place = b"%d" % seq
                content: Any = draft.content
                text: Any = content.text if type(content) is Text else None
                if type(text) is Raw and content.block_id is UNSET:
                    # The same bytes as encode's, without the copies of its growing buffer.
                    jsons.append(join((self._cursor, place, self._head, place, middle, b'{"text":', text, b"}}")))
                else:
                    if open_texts:
                        open_texts.see(kind, content)
                    jsons.append(join((self._cursor, place, self._head, place, middle, encode(content), b"}")))
        self._seq, self._deltas = seq, deltas
        self._queue_messages(live, first, jsons)
        self._wake(self)
        return tools

    def repeat_open_texts(self) -> None:
        """Publish each text under way once more, as one delta; not while events wait for a slow Redis."""
        if not self._open or not self.waiting.is_short():
            return
        jsons = []
        for draft in self._open_texts.drafts():
            self._deltas += 1
            middle = _middle(draft.type, draft.parent_id, self._clock.now_ms())
            jsons.append(b"".join((self._live, b"%d" % self._deltas, middle, encode(draft.content), b"}")))
        self._queue_messages(True, self._seq + 1, jsons)
        if jsons:
            self._wake(self)

    def _queue_messages(self, live: bool, first: int, jsons: list[bytes]) -> None:
        if jsons:
            if live:
                self.waiting.add_messages("d", first - 1, jsons)
            else:
                self.waiting.add_messages("m", first, jsons)

    def add_status(self, status: Status, fields: dict[str, Any] | None = None, feed: list[bytes] | None = None) -> None:
        """Add a status that does not end the session; ``feed`` as for a message."""
        event = StatusEvent(f"{self.epoch}-{self._next()}", self.session_id, status, self.now_ms())
        feed = [*(feed or ()), feed_members("status", status=status)]
        self._add("s", encode(event), fields={"status": status} | (fields or {}), feed=feed)

    def add_receipt(
        self,
        command_id: str,
        command: str,
        outcome: str,
        reason: str | None,
        inbox_entry: bytes,
        fields: dict[str, Any] | None = None,
    ) -> None:
        """Add a receipt; its write removes the command from the inbox."""
        cursor, timestamp = f"{self.epoch}-{self._next()}", self.now_ms()
        event = Receipt(cursor, self.session_id, command_id, command, outcome, timestamp, reason)
        self._add("r", encode(event), fields, inbox_entry, command_id)
        self.answered[command_id] = Answered(self._seq, command, outcome, reason)
        if len(self.answered) > ANSWERED_KEPT:
            del self.answered[next(iter(self.answered))]

    def repeat_receipt(self, command_id: str, inbox_entry: bytes) -> bool:
        """Add a command's receipt again if it is written: an older inbox has the command still.

        False where this owner has not answered the command.
        """
        if (said := self.answered.get(command_id)) is None:
            return False
        if self._open and said.seq <= self.written:
            self.add_receipt(command_id, said.command, said.outcome, said.reason, inbox_entry)
        return True

    def add_end(
        self,
        status: Status,
        reason: Reason,
        error: str | None,
        fields: dict[str, Any] | None = None,
        feed: list[bytes] | None = None,
    ) -> None:
        """Add the end; the script places it behind the receipts of the commands that are left in the inbox.

        ``feed``: what the feed is told before it.
        """
        state: dict[str, Any] = {"status": status, "reason": reason} | (fields or {})
        tail: str | None = state.get("stderrTail")
        if self.redactor is not None:
            error = None if error is None else self.redactor.text(error)
            tail = None if tail is None else self.redactor.text(tail)
        if tail is not None:
            state["stderrTail"] = tail
        event = StatusEvent("", self.session_id, status, self.now_ms(), error, reason, tail)
        if error is not None:
            state["error"] = error
        self._next()
        self._add("e", encode_without_cursor(event), state, feed=feed)
        self._open = False

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call once everything added so far is in Redis, at once if it is; never, if it cannot be written."""
        if self.lost is None and self.written >= self._seq:
            call()
        else:
            self._commit_callbacks.append((self._seq, call))

    async def flush(self) -> None:
        """Wait until everything added is in Redis, or cannot be written any more."""
        while self.waiting and self.lost is None and not self.ended:
            self._drained = self._drained or asyncio.Event()
            self._drained.clear()
            await self._drained.wait()

    # -- what the publisher does

    def confirm(self, entries: list[Entry], now: float) -> None:
        """Note that these entries, the first of the buffer, are in the stream since ``now`` (monotonic)."""
        self.written_at = now
        self.waiting.drop(len(entries))
        for entry in entries:
            if entry.kind != "d":
                self._recent.append((self.written_at, entry))
                self._recent_bytes += entry.cost
                self.written = entry.last
            if entry.kind == "s":
                self._last_status = entry
                self.runs = entry.fields is not None and entry.fields.get("status") == Status.RUNNING
            if entry.kind == "e":
                self.ended = self._has_ended = True
                self._end = entry
            elif entry.fields:
                self.state |= entry.fields
        while len(self._recent) > 1 and self._recent_bytes > KEPT_BYTES:
            self._recent_bytes -= self._recent.popleft()[1].cost
        if self._recent and self._recent[0][0] < now - KEPT_S:
            self.forget(now - KEPT_S)
        while self._commit_callbacks and self._commit_callbacks[0][0] <= self.written:
            self._commit_callbacks.pop(0)[1]()
        if not self.waiting:
            self._tell_drained()

    def _tell_drained(self) -> None:
        if self._drained is not None:
            self._drained.set()

    def forget(self, before: float) -> None:
        """Drop the events that were written before a moment (monotonic)."""
        while self._recent and self._recent[0][0] < before:
            self._recent_bytes -= self._recent.popleft()[1].cost

    def repair(self, place: Cursor) -> None:
        """Redis has nothing after ``place``: write again what is still here, and declare the rest lost."""
        stands = place.seq if place.epoch == self.epoch else 0
        # The first may be a run of which the stream has a part: the script skips what the stream has.
        kept = [entry for _, entry in self._recent if entry.last > stands]
        waiting = self.waiting.first_seq() or self._seq + 1
        status = self._last_status  # it may be waiting itself, if this is not the first repair
        if status is not None and stands < status.seq < (kept[0].seq if kept else waiting):
            kept.insert(0, status)
        if self.ended and self._end is not None and stands < self._end.seq and self._end not in kept:
            kept.append(self._end)
        again: list[Entry] = []
        lost, expected, begin = 0, stands + 1, f"{place.epoch}-{place.seq + 1}"
        for seq, entry in [*((entry.seq, entry) for entry in kept), (waiting, None)]:
            if seq > expected:
                lost += seq - expected
                again.append(self._stand_in(begin, seq - 1))
            if entry is not None:
                again.append(entry)
                expected = entry.last + 1
            begin = f"{self.epoch}-{expected}"
        self._recent.clear()
        self._recent_bytes = 0
        self.ended = False
        self.written = min(self.written, stands)
        self.waiting.put_back(again)
        self.after_commit(self.on_repaired)
        repeated = sum(len(entry.jsons) for entry in kept)
        log.warning("session %s: Redis lost events after %s, %d written again, %d declared lost",
                    self.session_id, place, repeated, lost,
                    extra=logs.event("redis_lost_events", repeated=repeated, lost=lost))  # fmt: skip
        self._wake(self)

    def mark_lost(self, why: str) -> None:
        """Stop writing this session, for a reason such as ``fenced``."""
        if self.lost is None and not self.ended:
            self.lost = why
            self.close()
            self.on_lost(why)

    def close(self) -> None:
        """Drop what waits; the publisher goes on checking for a while that Redis has the end of an ended session."""
        if self.lost is not None or not self._has_ended:
            self.lost = self.lost or "closed"
            self._open = False
            self.waiting.clear()
        self._tell_drained()

    def _json(self, kind: str, content: Any, parent_id: str | None) -> bytes:
        self._seq += 1
        return self._json_at(self._seq, kind, content, parent_id)

    def _json_at(self, seq: int, kind: str, content: Any, parent_id: str | None = None) -> bytes:
        place = b"%d" % seq
        return b"".join(
            (
                self._cursor,
                place,
                self._head,
                place,
                _middle(kind, parent_id, self._clock.now_ms()),
                encode(content),
                b"}",
            )
        )

    def _stand_in(self, begin: str, seq: int) -> Entry:
        """A message at the place of a hole's last event that stands for the whole hole; it repairs the state, too."""
        end = f"{self.epoch}-{seq}"
        error = Error(f"Events {begin} to {end} were lost by Redis", "history_lost", from_=begin, to=end)
        json = self._json_at(seq, "error", error)
        return Entry("g", seq, [json], size=len(json), fields=dict(self.state))

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    def _add(
        self,
        kind: str,
        json: bytes,
        fields: dict[str, Any] | None = None,
        inbox_entry: bytes = b"",
        command_id: str = "",
        *,
        feed: list[bytes] | None = None,
        atomic_with_next: bool = False,
    ) -> None:
        if self._open:
            self.waiting.add(
                Entry(kind, self._seq, [json], inbox_entry, command_id, feed, len(json), fields, atomic_with_next)
            )
            self._wake(self)


@functools.lru_cache(maxsize=64)  # many sessions say things of one type within a millisecond
def _middle(kind: str, parent_id: str | None, now_ms: int) -> bytes:
    """The JSON between a message's id and its content."""
    parent = b"" if parent_id is None else b',"parentId":' + encode(parent_id)
    return b'","type":"%b"%b,"timestamp":%d,"content":' % (kind.encode(), parent, now_ms)
