"""The sessions of one follower: whose hints wait, which are behind, which have been silent. Pure.

Owns what is read next and how much may wait for a slow consumer. The rules of one session are the reader's
(subscription.py); the IO is the followers' (async_follower.py, sync_follower.py).
"""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final, Generic, TypeAlias

import redis

from agentrq.client.follow_items import LAST, CursorReset, Notice, SessionDelivered, SessionGone, SessionUnreadable
from agentrq.client.outages import OutagePatience
from agentrq.client.owner_watch import OwnerWatch, fetch_places, find_removal, is_gone
from agentrq.client.redis_requests import Batch, Context, Operation
from agentrq.client.subscription import (
    ABSENT_PAUSE_S,
    CHECK_AGAIN_S,
    MAX_WAITING_BYTES,
    E,
    EventDecoder,
    Reader,
    cursor_of,
)
from agentrq.client.text_requests import ask_for_texts
from agentrq.connection import is_outage
from agentrq.errors import AgentRQError, SessionNotFound
from agentrq.wire.ids import ORIGIN, Cursor, check_session_id
from agentrq.wire.script_calls import text

log = logging.getLogger("agentrq.client.follow")

READ_AT_ONCE: Final = 64
"""Sessions that one read of streams asks for."""
CHECKS_AT_ONCE: Final = 400
"""Silent sessions that are checked in one second: the more are followed, the longer one waits for its check."""
CHECK_EVERY_S: Final = 1.0
EVENTS_AT_ONCE: Final = 1000
"""About how many decoded events may wait for the consumer."""


class FollowedSession(Reader[E]):
    """The reader of one session among many: what would end a reader of its own becomes a notice."""

    first_page = 20
    page_bytes = 64 << 10

    def __init__(
        self, context: Context, session_id: str, after: str | Cursor | None, decoder: EventDecoder[E], *, deltas: bool
    ) -> None:
        super().__init__(context.keys, check_session_id(session_id), after, decoder, deltas=deltas)
        self.watch = OwnerWatch(context, session_id)
        self.alone = False
        """It is read by itself, as Redis refused a read of several."""
        self.heard_at = time.monotonic()
        self._given = after is not None
        self._reset: CursorReset | None = None

    def from_page(self, answers: Sequence[Any]) -> list[E | Notice]:
        """What a page brings."""
        entries, (status, newest, *_) = answers
        if self._given and status is not None:
            self._given = False
            if self.cursor > cursor_of(newest):
                self._reset, self.cursor, self._anchored = CursorReset("unknown_cursor", None), ORIGIN, False
                return []  # it is behind still: the next page begins at the oldest event
        try:
            events = self.from_stream(answers)
        except SessionNotFound:
            return [SessionGone()]
        found: list[E | Notice] = []
        if self._reset is not None and self.absent_since is None:
            found.append(CursorReset(self._reset.reason, text(entries[0][0]) if entries else None))
            self._reset = None
        found += events
        if self.ended:
            found.append(SessionDelivered())
        return found

    def _skip(self, through: Any) -> None:
        self._reset = CursorReset("trimmed", None)


Found: TypeAlias = tuple[FollowedSession[E], E | Notice]


class SessionHints(Generic[E]):
    """Where the hints of one followed session go."""

    __slots__ = ("_session", "_sessions")

    def __init__(self, sessions: FollowedSessions[E], session: FollowedSession[E]) -> None:
        self._sessions = sessions
        self._session = session

    def put(self, is_status: bool, payload: bytes) -> None:
        """A hint came from the messages or the status channel."""
        self._sessions.put(self._session, is_status, payload)

    def on_subscribed(self) -> None:
        """The session's subscription began, or began again: what was published before may have been missed."""
        self._session.on_missed()
        self._sessions.put_behind(self._session)

    def wake(self) -> None:
        """The connection was closed for good."""
        self._sessions.on_hint()


class FollowedSessions(Generic[E]):
    """All sessions of one follower. `next_step` says what to ask of Redis, `pop` what to hand to the consumer."""

    def __init__(self, context: Context, decoder: EventDecoder[E], *, deltas: bool) -> None:
        self._context = context
        self._decoder = decoder
        self._deltas = deltas
        self._sessions: dict[str, FollowedSession[E]] = {}
        self._behind: OrderedDict[FollowedSession[E], None] = OrderedDict()
        """Whose stream has to be read, in this order. Hints of these are dropped: the stream has them."""
        self._reading: list[FollowedSession[E]] = []
        self._texts: dict[FollowedSession[E], None] = {}
        """Whose worker has to be asked for the texts under way."""
        self._absent: deque[FollowedSession[E]] = deque()
        self._absent_due = 0.0
        self._checks: OrderedDict[FollowedSession[E], None] = OrderedDict()
        """All of them, the next to be checked first."""
        self._check_due = time.monotonic() + CHECK_EVERY_S
        self._hints: deque[tuple[FollowedSession[E], bool, bytes]] = deque()
        self._hint_bytes = 0
        self._found: deque[Found[E]] = deque()

    def on_hint(self) -> None:
        """Called whenever something waits; a follower that sleeps replaces it."""

    # -- which they are

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def ids(self) -> frozenset[str]:
        """The ids of the sessions that are followed now."""
        return frozenset(self._sessions)

    def add(self, session_id: str, after: str | Cursor | None) -> FollowedSession[E]:
        """Follow a session from a cursor on; one that is followed already begins again there."""
        session = FollowedSession(self._context, session_id, after, self._decoder, deltas=self._deltas)
        self.remove(session_id)
        self._sessions[session_id] = session
        self._checks[session] = None
        self.put_behind(session)
        return session

    def remove(self, session_id: str) -> FollowedSession[E] | None:
        """Follow a session no longer: nothing that is found of it is handed out. None if it was not followed."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self._behind.pop(session, None)
            del self._checks[session]
        return session

    def follows(self, session: FollowedSession[E]) -> bool:
        """Whether this reader is still the one of its session."""
        return self._sessions.get(session.session_id) is session

    # -- hints

    def put(self, session: FollowedSession[E], is_status: bool, payload: bytes) -> None:
        """Keep a hint until it is taken. Past `MAX_WAITING_BYTES` all are dropped, and their streams read instead."""
        if session in self._behind:
            return
        self._hints.append((session, is_status, payload))
        self._hint_bytes += len(payload)
        if self._hint_bytes > MAX_WAITING_BYTES:
            for each, _, _ in self._hints:
                each.on_missed()
                self.put_behind(each)
            self._hints.clear()
            self._hint_bytes = 0
        self.on_hint()

    def put_behind(self, session: FollowedSession[E]) -> None:
        """A session's stream has to be read."""
        if self.follows(session):
            self._behind[session] = None
            self.on_hint()

    def take_hints(self) -> None:
        """Find what the hints add."""
        while self._hints and len(self._found) < EVENTS_AT_ONCE:
            session, is_status, payload = self._hints.popleft()
            self._hint_bytes -= len(payload)
            if session in self._behind or not self.follows(session):
                continue
            session.heard_at = time.monotonic()
            events = session.from_status(payload) if is_status else session.from_messages(payload)
            self._found.extend((session, event) for event in events)
            if session.ended:
                self._found.append((session, SessionDelivered()))
            elif session.behind:
                self._behind[session] = None
            elif session.wants_texts:
                self._texts[session] = None

    # -- what was found

    def pop(self) -> tuple[FollowedSession[E], E | Notice] | None:
        """The next item for the consumer; None where none is found yet."""
        while self._found:
            session, item = self._found.popleft()
            if self.follows(session):
                if isinstance(item, LAST):
                    self.remove(session.session_id)
                return session, item
        return None

    # -- what Redis is asked

    def wait_s(self, now: float) -> float:
        """How long to wait for a hint, in seconds; 0 where there is something to do."""
        if self._behind or self._reading or self._hints or self._found or self._texts:
            return 0.0
        due = min(self._check_due, self._absent_due) if self._absent else self._check_due
        return max(0.0, due - now)

    def next_step(self, now: float) -> Operation[None] | None:
        """What to ask of Redis now; None where there is nothing. It may be given up at any place."""
        for session in self._reading:  # a read that was given up
            self.put_behind(session)
        self._reading = []
        if self._absent and now >= self._absent_due:
            return self._check_absent(now)
        if now >= self._check_due:
            return self._check_silent(now)
        if self._behind:
            return self._read()
        return self._ask_for_texts() if self._texts else None

    def _read(self) -> Operation[None]:
        first = next(iter(self._behind))
        sessions = [first] if first.alone else [each for each in islice(self._behind, READ_AT_ONCE) if not each.alone]
        for session in sessions:
            del self._behind[session]  # from here on its hints count again: they may be of after the read
            session.behind = True
        self._reading = sessions
        answers = yield Batch([command for session in sessions for command in session.page().commands], atomic=True)
        self._reading = []
        for at, session in enumerate(sessions):
            if self.follows(session):
                items = session.from_page(answers[2 * at : 2 * at + 2])
                self._found.extend((session, item) for item in items)
                session.heard_at = time.monotonic()
                if session.absent_since is not None:
                    self._absent.append(session)
                elif session.behind and not (items and isinstance(items[-1], LAST)):
                    self._behind[session] = None
                elif session.wants_texts:
                    self._texts[session] = None

    def _ask_for_texts(self) -> Operation[None]:
        sessions, self._texts = self._texts, {}
        return ask_for_texts(sessions)

    def _check_absent(self, now: float) -> Operation[None]:
        """Look for those that were there and have no state now: they were removed, or Redis lost them for a while."""
        self._absent_due = now + ABSENT_PAUSE_S
        gone = [self._absent.popleft() for _ in range(min(len(self._absent), READ_AT_ONCE))]
        self._reading = gone
        answers = yield Batch([find_removal(self._context, session) for session in gone], apart=True)
        self._reading = []
        for session, removed in zip(gone, answers, strict=True):
            if self.follows(session) and is_gone(session, removed):
                self._found.append((session, SessionGone()))
            else:
                self.put_behind(session)

    def _check_silent(self, now: float) -> Operation[None]:
        """Look whether silent ones have gone on unheard, or have lost their owner."""
        self._check_due = now + CHECK_EVERY_S
        silent = []
        for _ in range(min(CHECKS_AT_ONCE, math.ceil(len(self._checks) / CHECK_AGAIN_S))):
            session = next(iter(self._checks))
            self._checks.move_to_end(session)
            if now - session.heard_at >= CHECK_AGAIN_S and session.absent_since is None and not session.ended:
                silent.append(session)
        if not silent:
            return
        places = yield from fetch_places(self._context, [session.session_id for session in silent])
        unowned = []
        for session, place in zip(silent, places, strict=True):
            if place is None or session in self._behind:
                continue
            if place.nonce != session.nonce or place.cursor > session.cursor:
                self.put_behind(session)
            elif not place.owned:
                unowned.append(session)
        for session in unowned:
            yield from session.watch.check()

    # -- failures of a step

    def shrink(self) -> bool:
        """Ask for less, as a read did not come in time. False where it was of one event a session."""
        return max([session.shrink() for session in self._reading], default=False)

    def delay_after(self, error: AgentRQError, patience: OutagePatience) -> float | None:
        """Seconds to wait after a step that failed; None if the follower must give up."""
        cause = error.__cause__
        if not isinstance(cause, redis.RedisError | OSError):
            return None
        if is_outage(cause):
            return patience.delay(cause)
        self._refuse(error)
        return 0.0

    def _refuse(self, error: AgentRQError) -> None:
        """A session that Redis refuses alone is followed no longer; several are read one by one."""
        sessions, self._reading = self._reading, []
        for session in sessions:
            if len(sessions) == 1:
                self._found.append((session, SessionUnreadable(error)))
            else:
                session.alone = True
                self.put_behind(session)
        if not sessions:  # a check of a user who may only read, or Redis takes no writes: see OwnerWatch
            log.debug("cannot find out whether silent sessions have an owner: %s", error)
