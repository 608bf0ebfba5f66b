"""The synchronous client, `AgentClient` and `Session`: runs operations, and waits for a reader."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import redis

from agentrq.client import operations
from agentrq.client.operations import Batch, Context, Operation, OwnerWatch, T
from agentrq.client.outages import REMOVE_AGAIN_S, OutagePatience, applied, bounded, closed, timed_out
from agentrq.client.pending_requests import PendingRequests, Request
from agentrq.client.session_commands import Commands
from agentrq.client.subscription import LOOK_AGAIN_S, Mailbox, Reader
from agentrq.connection import connect
from agentrq.errors import AgentRQError, SessionEnded
from agentrq.script_runner import ScriptRunner
from agentrq.wire.commands import Command
from agentrq.wire.ids import Cursor, check_session_id
from agentrq.wire.messages import Event, Message, Receipt
from agentrq.wire.script_calls import ScriptCall
from agentrq.wire.state import State


class Session(Commands[str, Receipt]):
    """One session, seen through an `AgentClient`. Making it does no IO."""

    def __init__(self, client: AgentClient, session_id: str) -> None:
        self._client = client
        self.id = check_session_id(session_id)

    def __repr__(self) -> str:
        return f"Session({self.id!r})"

    def state(self) -> State:
        """The state as it is now. Raises `SessionNotFound`."""
        return self._client.run(operations.state(self._client.context, self.id))

    def ask_for_approval(self, callback: Callable[[Request], Any]) -> State:
        """Answer the agent's requests by a function, until the session has ended; answers its state.

        ``callback`` gets each `ApprovalRequest` or `Question` that is open, once, and returns the answer (see
        `answer`), or None to leave it to somebody else. Who answered first wins: a late answer is no error.
        """
        requests = PendingRequests(self.state().cursor)
        for event in self._follow(None, None, skips=True):
            for request in requests.see(event):
                answer = callback(request)
                if answer is not None:
                    with contextlib.suppress(SessionEnded):
                        self.answer(request.request_id, answer)
        return self.state()

    def stop(self) -> str:
        """Stop the session, whoever owns it; an ended one stays as it is. Raises `SessionNotFound`."""
        return self._client.run(operations.stop(self._client.context, self.id))

    def remove(self, timeout: float = 30.0) -> None:
        """Delete the session at once; a live one is stopped first, which may take ``timeout`` seconds."""
        if not self._client.run(operations.remove(self._client.context, self.id)):
            self.stop()
            # Asked again and again: who may remove need not be allowed to follow.
            deadline, pause = time.monotonic() + timeout, REMOVE_AGAIN_S
            while not self._client.run(operations.remove(self._client.context, self.id)):
                if time.monotonic() + pause > deadline:
                    raise timed_out(f"Session {self.id}", timeout)
                time.sleep(pause)
                pause = min(2 * pause, LOOK_AGAIN_S)

    def wait(self, timeout: float | None = None) -> State:
        """Wait for the session's end; answers its state. Raises `TimeoutError` after ``timeout`` seconds.

        A Redis that stands still is noticed later: a call waits up to `agentrq.connection.ANSWER_TIMEOUT_S` for it.
        """
        with bounded(f"Session {self.id}", timeout) as deadline:
            state = self.state()
            if state.ended:
                return state
            for _ in self._follow(state.cursor, deadline, skips=True):
                pass
            return self.state()

    def events(self, after: str | Cursor | None = None, *, deltas: bool = False) -> Iterator[Event]:
        """Every event after the cursor ``after`` (default: from the oldest kept), then live, until the session ends.

        With ``deltas`` also the live-only `text_delta` and `thinking_delta` messages. Raises `SessionNotFound`,
        `StreamTrimmed`, ValueError for a bad cursor; reconnects by itself.
        """
        return self._follow(after, None, deltas=deltas)

    def messages(self, after: str | Cursor | None = None, *, deltas: bool = False) -> Iterator[Message]:
        """The messages among `events`; ``after`` and ``deltas`` are the same."""
        return (event for event in self._follow(after, None, deltas=deltas) if isinstance(event, Message))

    def _send(self, command: Command, wait: bool, timeout: float | None) -> str | Receipt:
        if not wait:
            return self._client.run(operations.send(self._client.context, self.id, command))
        with bounded(f"The receipt of {command.command_id}", timeout) as deadline:
            before, known = self._client.run(operations.send_awaited(self._client.context, self.id, command))
            if known is not None:
                return applied(known)
            reader = Reader(self._client.context.keys, self.id, before, skips=True)
            for event in self._client.follow(reader, deadline):
                if isinstance(event, Receipt) and event.command_id == command.command_id:
                    return applied(event)
                if reader.skipped:
                    reader.skipped = False
                    known = self._client.run(operations.receipt(self._client.context, self.id, command.command_id))
                    if known is not None:
                        return applied(known)
        raise AgentRQError(f"Session {self.id} ended without a receipt for {command.command_id}")

    def _follow(
        self, after: str | Cursor | None, deadline: float | None, *, deltas: bool = False, skips: bool = False
    ) -> Iterator[Event]:
        reader = Reader(self._client.context.keys, self.id, after, deltas=deltas, skips=skips)
        return self._client.follow(reader, deadline)


class AgentClient:
    """The synchronous client. Thread-safe as far as a redis-py client is; close it or use it as a context manager."""

    def __init__(self, client: redis.Redis, live: redis.Redis, context: Context | None = None) -> None:
        self.context = context or Context.from_environment()
        self._redis = client
        self._live = live
        self._closed = False
        self._scripts = ScriptRunner(client)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """A client for the Redis at ``url`` (its forms: `agentrq.connection`). Connects when first used.

        Raises ValueError for a URL that cannot be read.
        """
        return cls(connect(url), connect(url, blocking=True, retries=0))  # a reader tries again by itself

    def start(self, provider: str, prompt: str, session_id: str | None = None, **options: Any) -> Session:
        """Start a session of ``provider`` with its first ``prompt``; it is `queued` when this returns.

        ``session_id`` is the caller's choice, by default a UUIDv7. ``options`` are the start options
        (`agentrq.wire.commands.Options`). Raises `SessionExists`, `InvalidSessionId`, `InvalidOption`.
        """
        return Session(self, self.run(operations.start(self.context, provider, prompt, session_id, options)))

    def session(self, session_id: str) -> Session:
        """A handle for the session ``session_id``, whether it exists or not: no IO. Raises `InvalidSessionId`."""
        return Session(self, session_id)

    def sessions(self) -> list[Session]:
        """All sessions that are kept, the oldest start first."""
        return [Session(self, state.session_id) for state in self.states()]

    def states(self) -> list[State]:
        """The states of all sessions that are kept, the oldest start first."""
        return self.run(operations.states(self.context))

    def close(self) -> None:
        """Close the connections; who still follows a session gets an `AgentRQError`."""
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
        """Run one operation to its end."""
        answer: Any = None
        while True:
            try:
                request = operation.send(answer)
            except StopIteration as finished:
                result: T = finished.value
                return result
            answer = self._perform(request)

    def _perform(self, request: ScriptCall[Any] | Batch) -> Any:
        if isinstance(request, ScriptCall):
            return self._scripts.run(request)
        with self._redis.pipeline(transaction=request.atomic) as pipeline:
            for command in request.commands:
                pipeline.execute_command(*command)
            return pipeline.execute(raise_on_error=not request.apart)

    def follow(self, reader: Reader, deadline: float | None) -> Iterator[Event]:
        """Run a reader: replay, then live. Raises `TimeoutError` at ``deadline`` (monotonic)."""
        away, watch = OutagePatience(reader), OwnerWatch(self.context, reader.session_id)
        keys, mailbox, pubsub, silent = self.context.keys, Mailbox(), None, False
        try:
            while not reader.ended:
                self._check_open()
                left = LOOK_AGAIN_S if deadline is None else min(LOOK_AGAIN_S, deadline - time.monotonic())
                if left <= 0:
                    raise TimeoutError
                events: list[Event] = []
                try:
                    if reader.behind:
                        if silent:
                            with contextlib.suppress(redis.exceptions.NoPermissionError):  # for those who may
                                self.run(watch.check())
                        events = reader.from_stream(self._perform(reader.page()))
                        if silent and events and pubsub is not None:  # its hints should have been heard
                            pubsub.close()
                            pubsub = None
                        silent = False
                        away.over(heard=pubsub is not None)
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
                except Exception as error:
                    self._check_open()  # closed by another thread: redis-py then fails in many ways
                    if not isinstance(error, redis.RedisError | OSError):
                        raise
                    delay = away.wait(error, deadline)
                    if pubsub is not None:
                        pubsub.close()
                        pubsub = None
                    reader.behind = True
                    time.sleep(delay if deadline is None else min(delay, max(0.0, deadline - time.monotonic())))
                yield from events
        finally:
            if pubsub is not None:
                pubsub.close()

    def _check_open(self) -> None:
        if self._closed:
            self.close()  # what was under way may have connected again
            raise closed()


def _listen(pubsub: Any, mailbox: Mailbox, wait: float) -> None:
    """Wait for a hint, then take all that came with it."""
    status: dict[bytes, bool] = {}
    message = pubsub.get_message(timeout=wait)
    while message is not None:
        if message["type"] == "subscribe":
            mailbox.acknowledged()
        elif message["type"] == "message":
            channel = message["channel"]
            if channel not in status:
                status[channel] = channel.endswith(b":status")
            mailbox.put(status[channel], message["data"])
        if mailbox.behind:
            return
        message = pubsub.get_message(timeout=0)
