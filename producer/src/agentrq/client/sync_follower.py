"""Follows many sessions for threads: runs the steps of followed_sessions.py, fed by a subscription of its own.

Owns the waiting, and what happens while Redis is away.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Generic, Protocol, Self

import redis

from agentrq.client.follow_items import Cursors, Notice
from agentrq.client.followed_sessions import FollowedSessions, SessionHints
from agentrq.client.outages import OutagePatience
from agentrq.client.redis_requests import Context, Operation, T
from agentrq.client.subscription import E, EventDecoder, check_cursor
from agentrq.client.sync_hints import SyncHints
from agentrq.errors import AgentRQError
from agentrq.wire.ids import Cursor, check_session_id

HEED_S: Final = 0.25
"""How long a follower may wait before it heeds what another thread asked of it, in seconds."""


class _Client(Protocol):
    context: Context

    def run(self, operation: Operation[T]) -> T:
        """Run one operation to its end."""


class Follower(Generic[E]):
    """Follows many sessions at once; `AgentClient.follow` makes it.

    Iterate over it for pairs of a session id and an event, or a notice in an event's place. Close it, or use it as a
    context manager. One thread iterates; `add`, `remove` and `close` may be called by others too, and are heeded within
    a quarter of a second.
    """

    def __init__(
        self,
        client: _Client,
        live: redis.Redis,
        check_open: Callable[[], None],
        sessions: Cursors,
        decoder: EventDecoder[E],
        *,
        deltas: bool,
        until_closed: bool,
    ) -> None:
        """``check_open`` raises where the client was closed."""
        self._client = client
        self._check_open = check_open
        self._until_closed = until_closed
        self._sessions = FollowedSessions(client.context, decoder, deltas=deltas)
        self._hints = SyncHints(live, client.context.keys)
        self._patience = OutagePatience(self._sessions.shrink)
        self._changes: deque[tuple[str, bool, Cursor | None]] = deque()
        """What was asked for and is not done yet: a session id, whether it is followed from now on, and from where."""
        self._closed = False
        for session_id, after in sessions.items():
            self.add(session_id, after)
        self._make_changes()

    @property
    def sessions(self) -> frozenset[str]:
        """The ids of the sessions that are followed now."""
        return self._sessions.ids

    def add(self, session_id: str, after: str | Cursor | None = None) -> None:
        """Follow this session too, after a cursor (None: from the oldest event kept).

        One that is followed already begins again there. Raises `InvalidSessionId`, ValueError for a bad cursor.
        """
        self._changes.append((check_session_id(session_id), True, check_cursor(after)))

    def remove(self, session_id: str) -> None:
        """Follow this session no longer, if it is followed: nothing more comes of it. The session itself goes on."""
        self._changes.append((session_id, False, None))

    def close(self) -> None:
        """End it: an iteration that waits ends, the sessions go on. May be called again."""
        self._closed = True
        self._hints.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[str, E | Notice]:
        while True:
            self._make_changes()
            found = None if self._closed else self._sessions.pop()
            if found is not None:
                session, item = found
                if not self._sessions.follows(session):  # that was its last
                    self._hints.detach(session.session_id)
                return session.session_id, item
            if self._closed or not (self._sessions or self._until_closed):
                self.close()
                raise StopIteration
            self._advance()

    def _make_changes(self) -> None:
        added: dict[str, SessionHints[E]] = {}
        while self._changes:
            session_id, follow, after = self._changes.popleft()
            added.pop(session_id, None)
            if self._sessions.remove(session_id) is not None:
                self._hints.detach(session_id)
            if follow:
                added[session_id] = SessionHints(self._sessions, self._sessions.add(session_id, after))
        if added:
            self._hints.attach(added)

    def _advance(self) -> None:
        try:
            self._check_open()
            self._hints.hear(0.0)
            self._sessions.take_hints()
            now = time.monotonic()
            step = self._sessions.next_step(now)
            if step is None:
                self._hints.hear(min(HEED_S, self._sessions.wait_s(now)))
            else:
                self._client.run(step)
                self._patience.over()
        except AgentRQError as error:
            self._check_open()
            delay = self._sessions.delay_after(error, self._patience)
            if delay is None:
                self.close()
                raise
            time.sleep(delay)
        except Exception:
            if not self._closed:
                self._check_open()  # closed by another thread: redis-py then fails in many ways
                raise
