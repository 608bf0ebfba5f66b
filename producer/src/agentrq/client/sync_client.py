"""The synchronous client, `AgentClient` and `Session`: runs operations, and waits for a reader."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import redis

from agentrq.client import operations, states
from agentrq.client.costs import CostMethods
from agentrq.client.event_pages import EventPage, read_events
from agentrq.client.feed_methods import FeedMethods
from agentrq.client.feed_reader import FeedReader
from agentrq.client.feed_streams import read_entries
from agentrq.client.fleet import Fleet
from agentrq.client.follow_items import Cursors
from agentrq.client.follow_methods import FollowMethods
from agentrq.client.history import history
from agentrq.client.limits import LimitMethods, Limits
from agentrq.client.list_methods import ListMethods
from agentrq.client.one_use import OneUseMethods
from agentrq.client.operations import check_applied
from agentrq.client.outages import OutagePatience, bounded, closed
from agentrq.client.owner_watch import OwnerWatch, check_absent
from agentrq.client.pending_requests import OpenRequest, PendingRequests
from agentrq.client.redis_requests import Context, Operation, Pause, Request, T, Wait
from agentrq.client.session_commands import Commands
from agentrq.client.session_list import SessionPage
from agentrq.client.subscription import (
    ABSENT_PAUSE_S,
    CHECK_AGAIN_S,
    DECODED,
    PAGE_BYTES,
    EventDecoder,
    Mailbox,
    Reader,
)
from agentrq.client.sync_follower import Follower
from agentrq.client.text_requests import ask_for_texts, repeat_open_texts
from agentrq.client.waiting_list import WaitingRequest
from agentrq.connection import connect
from agentrq.errors import AgentRQError, CommandRejected, RedisRefused, SessionEnded
from agentrq.redis_errors import from_redis
from agentrq.script_runner import ScriptRunner
from agentrq.wire.commands import Command, check_timeout
from agentrq.wire.events import Event, Message, Receipt
from agentrq.wire.feed import FeedEntry, FeedGap
from agentrq.wire.ids import Cursor, check_session_id
from agentrq.wire.ledger import CostRow
from agentrq.wire.raw_events import RawEvent
from agentrq.wire.script_calls import ScriptCall
from agentrq.wire.state import State

log = logging.getLogger("agentrq.client")


class Session(Commands[str, Receipt]):
    """One session, seen through an `AgentClient`. Making it does no IO. ``id`` (str) is the session's id.

    Any number of handles may exist, in any process; all they share is Redis.
    """

    def __init__(self, client: AgentClient, session_id: str) -> None:
        self._client = client
        self.id = check_session_id(session_id)

    def __repr__(self) -> str:
        return f"Session({self.id!r})"

    def state(self) -> State:
        """The session's state now. Its ``worker_lost`` tells that its worker is gone. Raises `SessionNotFound`."""
        return self._client.run(states.state(self._client.context, self.id))

    def ask_for_approval(self, callback: Callable[[OpenRequest], Any]) -> State:
        """Answer the agent's requests by a function, until the session has ended; returns its last state.

        ``callback`` gets each `ApprovalRequest` or `Question` that is open, once, and returns the answer (see
        `answer`), or None to leave it to somebody else. The first answer wins; a late one is no error here.
        """
        requests = PendingRequests(self.state().cursor)
        for event in self._follow(None, None, skips=True):
            for request in requests.see(event):
                answer = callback(request)
                if answer is not None:
                    with contextlib.suppress(SessionEnded, CommandRejected):
                        self.answer(request.request_id, answer)
        return self.state()

    def stop(self) -> str:
        """Stop the session, whoever owns it; returns the command's id. A session that has ended stays as it is.

        A live owner ends the agent and then writes the end (see `wait`); without a live owner the end is written at
        once. Works while Redis has no memory left. Raises `SessionNotFound`.
        """
        return self._client.run(operations.stop(self._client.context, self.id))

    def repeat_open_texts(self) -> None:
        """Have the session's worker publish its texts under way once more, to all who follow it live; see `events`.

        A reader with ``deltas`` does so by itself; this is for programs that pass deltas on to readers of their own.
        Raises `SessionNotFound`; `RedisRefused` for a user who may only read.
        """
        self._client.run(repeat_open_texts(self._client.context, self.id))

    def remove(self, timeout: float | None = 30.0) -> None:
        """Delete the session: its state, events and commands, and its RQ job.

        A live session is stopped first; ``timeout`` is how many seconds that may take (None: no bound), after which
        `TimeoutError` is raised and the session stays. Raises `SessionNotFound`.
        """
        self._client.run(operations.remove(self._client.context, self.id, check_timeout(timeout)))

    def wait(self, timeout: float | None = None) -> State:
        """Wait for the session's end; returns its state.

        Raises `TimeoutError` after ``timeout`` seconds (None: no bound; 0 or less: only look), `SessionNotFound`.
        A Redis that stands still is noticed later: a call waits up to `agentrq.connection.ANSWER_TIMEOUT_S` for it.
        """
        timeout = check_timeout(timeout)
        with bounded(f"Session {self.id}", timeout) as deadline:
            state = self.state()
            if state.ended:
                return state
            for _ in self._follow(state.cursor, deadline, skips=True):
                pass
            return self.state()

    def events(self, after: str | Cursor | None = None, *, deltas: bool = False) -> Iterator[Event]:
        """Every event after a cursor, then live ones as they come, until the session has ended.

        ``after``: the ``cursor`` of the last event you have (default None: begin at the oldest event kept).
        ``deltas``: also yield the live-only `text_delta` and `thinking_delta` messages, which have no cursor. The
        pieces of a block begin at offset 0 and follow each other, also where a reader joins in its middle.
        Each event comes once, in order, through any reconnect. Raises `SessionNotFound`; `StreamTrimmed` where events
        after the cursor are no longer kept; ValueError for a bad cursor; `RedisUnavailable` where Redis is away at the
        beginning, or for ten minutes.
        """
        return self._follow(after, None, deltas=deltas)

    def messages(self, after: str | Cursor | None = None, *, deltas: bool = False) -> Iterator[Message]:
        """The messages among `events`; ``after``, ``deltas`` and the errors are the same."""
        return (event for event in self._follow(after, None, deltas=deltas) if isinstance(event, Message))

    def page(self, after: str | Cursor | None = None, limit: int = 500, max_bytes: int = PAGE_BYTES) -> EventPage:
        """The events after a cursor that are there now, as the JSON that crossed Redis; waits for none.

        ``after``: the last event you have (default None: from the oldest kept). ``limit``: how many at most, 1 to 1000.
        ``max_bytes``: about how many bytes of them, at most.
        Raises `SessionNotFound`, `InvalidOption`; ValueError for a bad cursor.
        """
        return self._client.run(read_events(self._client.context, self.id, after, limit, max_bytes))

    def history(self, before: str | Cursor | None = None, limit: int = 100) -> list[Event]:
        """The last events before a cursor, oldest first: a page to show above what is shown already.

        ``before``: the ``cursor`` of the first event you have (default None: the newest events of all).
        ``limit``: how many at most, 1 to 1000. Fewer come only at the beginning of what is kept.
        Raises `SessionNotFound`, `InvalidOption`; ValueError for a bad cursor.
        """
        return self._client.run(history(self._client.context, self.id, before, limit))

    def receipt(self, command_id: str) -> Receipt | None:
        """The receipt of a command of this session; None while there is none, or where the id is not known.

        ``command_id``: as it was sent, or as sending it returned it.
        Raises `AgentRQError` where the receipt is no longer kept.
        """
        return self._client.run(operations.receipt(self._client.context, self.id, command_id))

    def _send(self, command: Command, wait: bool, timeout: float | None) -> str | Receipt:
        client = self._client
        if not wait:
            return client.run(operations.send(client.context, self.id, command))
        with bounded(f"The receipt of {command.command_id}", timeout) as deadline:
            before, known = client.run(operations.send_awaited(client.context, self.id, command))
            if known is not None:
                return check_applied(known)
            reader = Reader(client.context.keys, self.id, before, DECODED, skips=True)
            for event in client.read_events(reader, deadline):
                if isinstance(event, Receipt) and event.command_id == command.command_id:
                    return check_applied(event)
                if reader.skipped:
                    reader.skipped = False
                    known = client.run(operations.receipt(client.context, self.id, command.command_id))
                    if known is not None:
                        return check_applied(known)
        raise AgentRQError(f"Session {self.id} ended without a receipt for {command.command_id}")

    def _follow(
        self, after: str | Cursor | None, deadline: float | None, *, deltas: bool = False, skips: bool = False
    ) -> Iterator[Event]:
        reader = Reader(self._client.context.keys, self.id, after, DECODED, deltas=deltas, skips=skips)
        return self._client.read_events(reader, deadline)


class AgentClient(
    ListMethods[SessionPage, list[WaitingRequest], Fleet],
    FollowMethods[Follower[Event], Follower[RawEvent]],
    FeedMethods[Iterator[FeedEntry | FeedGap]],
    CostMethods[list[CostRow]],
    LimitMethods[None, dict[str, Limits]],
    OneUseMethods[bool],
):
    """The synchronous client. Make it by `from_url`; close it, or use it as a context manager.

    It may be shared by threads. Connections are made when they are first used.
    """

    def __init__(
        self, client: redis.Redis, live: redis.Redis, context: Context | None = None, *, url: str | None = None
    ) -> None:
        """``client`` runs commands, ``live`` subscriptions; ``url`` is named in errors, its password masked."""
        self.context = context or Context.from_environment()
        self._redis = client
        self._live = live
        self._url = url
        self._closed = False
        self._scripts = ScriptRunner(client)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """A client for the Redis at ``url``: ``redis://…``, ``rediss://…``, ``unix://…`` or ``sentinel://…``.

        Names and times come from ``AGENTRQ_PREFIX``, ``AGENTRQ_QUEUE``, ``AGENTRQ_RETENTION_S`` and
        ``AGENTRQ_RECOVERY_TIMEOUT_S``. Does no IO. Raises ValueError for a bad URL, `InvalidOption` for a bad variable.
        """
        return cls(connect(url), connect(url, blocking=True, retries=0), url=url)  # a reader tries again by itself

    def start(self, provider: str, prompt: str, session_id: str | None = None, **options: Any) -> Session:
        """Start a session: ``provider`` by its name at the workers, its first ``prompt`` (up to 8 MiB as JSON).

        ``session_id``: 1 to 64 of ``A-Z a-z 0-9 _ -`` (default: a new UUIDv7). ``options``: those of
        `agentrq.wire.commands.Options`, by name. Returns as soon as Redis has it; a worker takes it from the queue.
        Raises `SessionExists`, `InvalidSessionId`, `InvalidOption`, `RedisUnavailable`, `RedisRefused`.
        """
        return Session(self, self.run(operations.start(self.context, provider, prompt, session_id, options)))

    def session(self, session_id: str) -> Session:
        """A handle for the session ``session_id``, whether it exists or not; no IO. Raises `InvalidSessionId`."""
        return Session(self, session_id)

    def states(self) -> list[State]:
        """The states of all sessions that Redis still has, ended ones included, the oldest first.

        Reads all of them, 500 a round trip: for a page of them call `sessions`. A session whose state cannot be read
        is left out.
        """
        return self.run(states.states(self.context))

    def _follower(self, sessions: Cursors, decoder: EventDecoder[Any], deltas: bool, until_closed: bool) -> Any:
        live, check_open = self._live, self.check_open
        return Follower(self, live, check_open, sessions, decoder, deltas=deltas, until_closed=until_closed)

    def _read_feed(self, reader: FeedReader, follow: bool) -> Iterator[FeedEntry | FeedGap]:
        return read_entries(self, reader, follow)

    def close(self) -> None:
        """Close the connections. Whoever still follows a session, in another thread, gets an `AgentRQError`."""
        self._closed = True
        self._redis.close()
        self._live.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, operation: Operation[T]) -> T:
        """Run one operation to its end. Raises `RedisUnavailable`, `RedisRefused`, and what the operation does."""
        answer: Any = None
        while True:
            try:
                request = operation.send(answer)
            except StopIteration as finished:
                result: T = finished.value
                return result
            try:
                answer = self._perform(request)
            except (redis.RedisError, OSError) as error:
                raise from_redis(error, self._url) from error

    def _perform(self, request: Request) -> Any:
        if isinstance(request, ScriptCall):
            return self._scripts.run(request)
        if isinstance(request, Pause):
            time.sleep(request.seconds)
            return None
        if isinstance(request, Wait):
            return self._live.execute_command(*request.command)
        with self._redis.pipeline(transaction=request.atomic) as pipeline:
            for command in request.commands:
                pipeline.execute_command(*command)
            return pipeline.execute(raise_on_error=not request.apart)

    def read_events(self, reader: Reader[Event], deadline: float | None) -> Iterator[Event]:
        """Run a reader: replay, then live. Raises TimeoutError at ``deadline`` (monotonic)."""
        patience, watch = OutagePatience(reader.shrink), OwnerWatch(self.context, reader.session_id)
        keys, mailbox, pubsub, silent = self.context.keys, Mailbox(), None, False
        try:
            while not reader.ended:
                self.check_open()
                left = CHECK_AGAIN_S if deadline is None else min(CHECK_AGAIN_S, deadline - time.monotonic())
                if left <= 0:
                    raise TimeoutError
                events: list[Event] = []
                try:
                    if reader.behind:
                        events = self._read_stream(reader, watch if silent else None)
                        if silent and events and pubsub is not None:  # its hints should have been heard
                            pubsub.close()
                            pubsub = None
                        silent = False
                        patience.over(subscribed=pubsub is not None)
                        if reader.absent_since is not None:
                            self.run(check_absent(self.context, reader))
                            time.sleep(min(ABSENT_PAUSE_S, left))
                    elif pubsub is None:
                        pubsub = self._live.pubsub()
                        pubsub.subscribe(
                            keys.messages_channel(reader.session_id), keys.status_channel(reader.session_id)
                        )
                    else:
                        _listen(pubsub, mailbox, left)
                        silent = not mailbox
                        reader.behind = silent
                        events = mailbox.take(reader)
                    if reader.wants_texts:
                        self.run(ask_for_texts([reader]))
                except Exception as error:
                    self.check_open()  # closed by another thread: redis-py then fails in many ways
                    cause = error.__cause__ if isinstance(error, AgentRQError) else error
                    if not isinstance(cause, redis.RedisError | OSError):
                        raise
                    delay = patience.delay(cause, deadline)
                    if delay is None:
                        raise from_redis(cause, self._url) from cause
                    if pubsub is not None:
                        pubsub.close()
                        pubsub = None
                    reader.behind = True
                    time.sleep(delay if deadline is None else min(delay, max(0.0, deadline - time.monotonic())))
                yield from events
        finally:
            if pubsub is not None:
                pubsub.close()

    def _read_stream(self, reader: Reader[Event], watch: OwnerWatch | None) -> list[Event]:
        if watch is not None:
            try:
                self.run(watch.check())
            except RedisRefused as error:  # of a user who may only read, or Redis takes no writes: see OwnerWatch
                log.debug("session %s: cannot find out whether it has an owner: %s", reader.session_id, error)
        return reader.from_stream(self._perform(reader.page()))

    def check_open(self) -> None:
        """Raises `AgentRQError` once the client was closed."""
        if self._closed:
            self.close()  # what was under way may have connected again
            raise closed()


def _listen(pubsub: Any, mailbox: Mailbox, wait: float) -> None:
    """Wait for a hint, then take all that came with it."""
    status: dict[bytes, bool] = {}
    message = pubsub.get_message(timeout=wait)
    while message is not None:
        if message["type"] == "subscribe" and message["channel"].endswith(b":status"):  # the other one is before it
            mailbox.on_subscribed()
        elif message["type"] == "message":
            channel = message["channel"]
            if channel not in status:
                status[channel] = channel.endswith(b":status")
            mailbox.put(status[channel], message["data"])
        if mailbox.behind:
            return
        message = pubsub.get_message(timeout=0)
