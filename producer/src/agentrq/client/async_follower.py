"""Follows many sessions for asyncio: runs the steps of followed_sessions.py, fed by the client's one subscription.

Owns the waiting, and what happens while Redis is away.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Generic, Protocol, Self

from agentrq.client.follow_items import Cursors, Notice
from agentrq.client.followed_sessions import FollowedSession, FollowedSessions, SessionHints
from agentrq.client.outages import OutagePatience, closed
from agentrq.client.pubsub_hub import PubSubHub, WakeUp
from agentrq.client.redis_requests import Context, Operation, T
from agentrq.client.subscription import E, EventDecoder, check_cursor
from agentrq.errors import AgentRQError
from agentrq.wire.ids import Cursor, check_session_id


class _Client(Protocol):
    context: Context

    async def run(self, operation: Operation[T]) -> T:
        """Run one operation to its end."""


class AsyncFollower(Generic[E]):
    """Follows many sessions at once; `AsyncAgentClient.follow` makes it. Like `Follower`, awaited.

    It belongs to one event loop. A wait for an item may be cancelled: nothing is lost, the next goes on.
    """

    def __init__(
        self,
        client: _Client,
        hub: PubSubHub,
        sessions: Cursors,
        decoder: EventDecoder[E],
        *,
        deltas: bool,
        until_closed: bool,
    ) -> None:
        self._client = client
        self._hub = hub
        self._until_closed = until_closed
        self._sessions = FollowedSessions(client.context, decoder, deltas=deltas)
        self._sinks: dict[str, SessionHints[E]] = {}
        self._unattached: dict[str, SessionHints[E]] = {}
        """Of these the subscription has to be asked for."""
        self._wake_up = WakeUp()
        self._sessions.on_hint = self._wake_up.wake  # type: ignore[method-assign] # what `on_hint` is for
        self._patience = OutagePatience(self._sessions.shrink)
        self._closed = False
        for session_id, after in sessions.items():
            self.add(session_id, after)

    @property
    def sessions(self) -> frozenset[str]:
        """The ids of the sessions that are followed now."""
        return self._sessions.ids

    def add(self, session_id: str, after: str | Cursor | None = None) -> None:
        """Like `Follower.add`."""
        cursor = check_cursor(after)
        self.remove(check_session_id(session_id))
        sink = SessionHints(self._sessions, self._sessions.add(session_id, cursor))
        self._sinks[session_id] = self._unattached[session_id] = sink

    def remove(self, session_id: str) -> None:
        """Like `Follower.remove`."""
        self._detach(self._sessions.remove(session_id))
        self._wake_up.wake()  # it may have been the last

    def _detach(self, session: FollowedSession[E] | None) -> None:
        if session is None:
            return
        sid = session.session_id
        sink = self._sinks.pop(sid)
        if self._unattached.pop(sid, None) is None:
            self._hub.detach({sid: sink})

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[str, E | Notice]:
        while True:
            if self._closed:
                raise StopAsyncIteration
            found = self._sessions.pop()
            if found is not None:
                session, item = found
                if not self._sessions.follows(session):  # that was its last
                    self._detach(session)
                return session.session_id, item
            if not self._sessions and not self._until_closed:
                await self.aclose()
            else:
                await self._advance()

    async def _advance(self) -> None:
        if self._hub.closed:
            await self.aclose()
            raise closed()
        if self._unattached:
            sinks, self._unattached = self._unattached, {}
            self._hub.attach(sinks)
        self._sessions.take_hints()
        now = time.monotonic()
        step, pause = self._sessions.next_step(now), self._sessions.wait_s(now)
        try:
            if step is not None:
                await self._client.run(step)
                self._patience.over()
            elif pause > 0:
                await self._wake_up.wait(pause)
            else:
                await asyncio.sleep(0)  # whoever has much to read must not keep the loop for themselves
        except AgentRQError as error:
            delay = self._sessions.delay_after(error, self._patience)
            if delay is None:
                await self.aclose()
                raise
            await asyncio.sleep(delay)

    async def aclose(self) -> None:
        """End it: an iteration that waits ends, the sessions go on. May be called again."""
        self._closed = True
        for session_id in self._sessions.ids:
            self.remove(session_id)
        self._wake_up.wake()
        self._wake_up.close()
        await self._hub.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
