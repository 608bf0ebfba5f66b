"""The asyncio client, `AsyncAgentClient` and `AsyncSession`: runs operations, and waits for a reader."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Self

import redis
import redis.asyncio

from agentrq.client import operations, states
from agentrq.client.async_follower import AsyncFollower
from agentrq.client.costs import CostMethods
from agentrq.client.event_pages import EventPage, read_events
from agentrq.client.feed_methods import FeedMethods
from agentrq.client.feed_reader import FeedReader
from agentrq.client.feed_streams import read_entries_async
from agentrq.client.fleet import Fleet
from agentrq.client.follow_items import Cursors
from agentrq.client.follow_methods import FollowMethods
from agentrq.client.history import history
from agentrq.client.limits import LimitMethods, Limits
from agentrq.client.list_methods import ListMethods
from agentrq.client.one_use import OneUseMethods
from agentrq.client.operations import check_applied
from agentrq.client.outages import OutagePatience, closed, timed_out
from agentrq.client.owner_watch import OwnerWatch, check_absent
from agentrq.client.pending_requests import OpenRequest, PendingRequests
from agentrq.client.pubsub_hub import PubSubHub
from agentrq.client.redis_requests import Context, Operation, Pause, Request, T, Wait
from agentrq.client.session_commands import Commands
from agentrq.client.session_list import SessionPage
from agentrq.client.subscription import ABSENT_PAUSE_S, CHECK_AGAIN_S, DECODED, PAGE_BYTES, EventDecoder, Reader
from agentrq.client.text_requests import ask_for_texts, repeat_open_texts
from agentrq.client.waiting_list import WaitingRequest
from agentrq.connection import ANSWER_TIMEOUT_S, connect_async
from agentrq.errors import AgentRQError, CommandRejected, RedisRefused, SessionEnded
from agentrq.redis_errors import from_redis
from agentrq.script_runner import AsyncScriptRunner
from agentrq.wire.commands import Command, check_timeout
from agentrq.wire.events import Event, Message, Receipt
from agentrq.wire.feed import FeedEntry, FeedGap
from agentrq.wire.ids import Cursor, check_session_id
from agentrq.wire.ledger import CostRow
from agentrq.wire.raw_events import RawEvent
from agentrq.wire.script_calls import ScriptCall
from agentrq.wire.state import State

log = logging.getLogger("agentrq.client")


@contextlib.asynccontextmanager
async def _bounded(what: str, timeout: float | None) -> AsyncIterator[None]:
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise timed_out(what, timeout) from None


class AsyncSession(Commands[Coroutine[Any, Any, str], Coroutine[Any, Any, Receipt]]):
    """One session, seen through an `AsyncAgentClient`: `Session`, awaited. Making it does no IO."""

    def __init__(self, client: AsyncAgentClient, session_id: str) -> None:
        self._client = client
        self.id = check_session_id(session_id)

    def __repr__(self) -> str:
        return f"AsyncSession({self.id!r})"

    async def state(self) -> State:
        """Like `Session.state`."""
        return await self._client.run(states.state(self._client.context, self.id))

    async def ask_for_approval(self, callback: Callable[[OpenRequest], Any]) -> State:
        """Like `Session.ask_for_approval`; ``callback`` may be a coroutine function."""
        requests = PendingRequests((await self.state()).cursor)
        async for event in self._follow(None, skips=True):
            for request in requests.see(event):
                answer = callback(request)
                if inspect.isawaitable(answer):
                    answer = await answer
                if answer is not None:
                    with contextlib.suppress(SessionEnded, CommandRejected):
                        await self.answer(request.request_id, answer)
        return await self.state()

    async def stop(self) -> str:
        """Like `Session.stop`."""
        return await self._client.run(operations.stop(self._client.context, self.id))

    async def repeat_open_texts(self) -> None:
        """Like `Session.repeat_open_texts`."""
        await self._client.run(repeat_open_texts(self._client.context, self.id))

    async def remove(self, timeout: float | None = 30.0) -> None:
        """Like `Session.remove`."""
        await self._client.run(operations.remove(self._client.context, self.id, check_timeout(timeout)))

    async def wait(self, timeout: float | None = None) -> State:
        """Like `Session.wait`."""
        timeout = check_timeout(timeout)
        if timeout is not None and timeout <= 0 and (state := await self.state()).ended:
            return state
        async with _bounded(f"Session {self.id}", timeout):
            state = await self.state()
            if not state.ended:
                async for _ in self._follow(state.cursor, skips=True):
                    pass
                state = await self.state()
            return state

    def events(self, after: str | Cursor | None = None, *, deltas: bool = False) -> AsyncIterator[Event]:
        """Like `Session.events`."""
        return self._follow(after, deltas=deltas)

    async def messages(self, after: str | Cursor | None = None, *, deltas: bool = False) -> AsyncIterator[Message]:
        """Like `Session.messages`."""
        async with contextlib.aclosing(self._follow(after, deltas=deltas)) as events:
            async for event in events:
                if isinstance(event, Message):
                    yield event

    async def page(self, after: str | Cursor | None = None, limit: int = 500, max_bytes: int = PAGE_BYTES) -> EventPage:
        """Like `Session.page`."""
        return await self._client.run(read_events(self._client.context, self.id, after, limit, max_bytes))

    async def history(self, before: str | Cursor | None = None, limit: int = 100) -> list[Event]:
        """Like `Session.history`."""
        return await self._client.run(history(self._client.context, self.id, before, limit))

    async def receipt(self, command_id: str) -> Receipt | None:
        """Like `Session.receipt`."""
        return await self._client.run(operations.receipt(self._client.context, self.id, command_id))

    async def _send(self, command: Command, wait: bool, timeout: float | None) -> str | Receipt:
        context = self._client.context
        if not wait:
            return await self._client.run(operations.send(context, self.id, command))
        async with _bounded(f"The receipt of {command.command_id}", timeout):
            before, known = await self._client.run(operations.send_awaited(context, self.id, command))
            if known is not None:
                return check_applied(known)
            reader = Reader(context.keys, self.id, before, DECODED, skips=True)
            async for event in self._client.read_events(reader):
                if isinstance(event, Receipt) and event.command_id == command.command_id:
                    return check_applied(event)
                if reader.skipped:
                    reader.skipped = False
                    known = await self._client.run(operations.receipt(context, self.id, command.command_id))
                    if known is not None:
                        return check_applied(known)
        raise AgentRQError(f"Session {self.id} ended without a receipt for {command.command_id}")

    def _follow(
        self, after: str | Cursor | None, *, deltas: bool = False, skips: bool = False
    ) -> AsyncGenerator[Event, None]:
        return self._client.read_events(
            Reader(self._client.context.keys, self.id, after, DECODED, deltas=deltas, skips=skips)
        )


class AsyncAgentClient(
    ListMethods[
        Coroutine[Any, Any, SessionPage], Coroutine[Any, Any, list[WaitingRequest]], Coroutine[Any, Any, Fleet]
    ],
    FollowMethods[AsyncFollower[Event], AsyncFollower[RawEvent]],
    FeedMethods[AsyncGenerator[FeedEntry | FeedGap, None]],
    CostMethods[Coroutine[Any, Any, list[CostRow]]],
    LimitMethods[Coroutine[Any, Any, None], Coroutine[Any, Any, dict[str, Limits]]],
    OneUseMethods[Coroutine[Any, Any, bool]],
):
    """The asyncio client, for one event loop. Make it by `from_url`; close it, or use it as an async context manager.

    Its methods are those of `AgentClient`, awaited. One connection carries the subscriptions of all its readers.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        live: redis.asyncio.Redis,
        context: Context | None = None,
        *,
        url: str | None = None,
        hub: PubSubHub | None = None,
    ) -> None:
        """``client`` runs commands, ``live`` subscriptions; ``url`` is named in errors, its password masked.

        ``hub``: the one subscription of all readers, made of ``live`` if it is None.
        """
        self._url = url
        self.context = context or Context.from_environment()
        self._redis = client
        self._live = live
        self._hub = hub or PubSubHub(live, self.context.keys)
        self._scripts = AsyncScriptRunner(client)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Like `AgentClient.from_url`."""
        return cls(connect_async(url), connect_async(url, blocking=True), url=url)

    async def start(self, provider: str, prompt: str, session_id: str | None = None, **options: Any) -> AsyncSession:
        """Like `AgentClient.start`."""
        sid = await self.run(operations.start(self.context, provider, prompt, session_id, options))
        return AsyncSession(self, sid)

    def session(self, session_id: str) -> AsyncSession:
        """Like `AgentClient.session`."""
        return AsyncSession(self, session_id)

    async def states(self) -> list[State]:
        """Like `AgentClient.states`."""
        return await self.run(states.states(self.context))

    def _follower(self, sessions: Cursors, decoder: EventDecoder[Any], deltas: bool, until_closed: bool) -> Any:
        return AsyncFollower(self, self._hub, sessions, decoder, deltas=deltas, until_closed=until_closed)

    def _read_feed(self, reader: FeedReader, follow: bool) -> AsyncGenerator[FeedEntry | FeedGap, None]:
        return read_entries_async(self, reader, follow)

    async def check_open(self) -> None:
        """Raises `AgentRQError` once the client was closed."""
        if self._hub.closed:
            await self._redis.aclose()  # a read that was under way may have connected again
            raise closed()

    async def aclose(self) -> None:
        """Close the connections. Whoever still follows a session gets an `AgentRQError`."""
        await self._hub.aclose()
        await self._redis.aclose()
        await self._live.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def run(self, operation: Operation[T]) -> T:
        """Run one operation to its end. Raises `RedisUnavailable`, `RedisRefused`, and what the operation does."""
        answer: Any = None
        while True:
            try:
                request = operation.send(answer)
            except StopIteration as finished:
                result: T = finished.value
                return result
            try:
                answer = await self._perform(request)
            except (redis.RedisError, OSError) as error:
                raise from_redis(error, self._url) from error

    async def _perform(self, request: Request) -> Any:
        if isinstance(request, Pause):
            await asyncio.sleep(request.seconds)
            return None
        # On Python 3.11 the sockets have no timeout of their own (see connection.py).
        limit = asyncio.timeout(ANSWER_TIMEOUT_S + (request.seconds if isinstance(request, Wait) else 0))
        try:
            async with limit:
                if isinstance(request, Wait):
                    return await self._live.execute_command(*request.command)
                if isinstance(request, ScriptCall):
                    return await self._scripts.run(request)
                async with self._redis.pipeline(transaction=request.atomic) as pipeline:
                    for command in request.commands:
                        pipeline.execute_command(*command)
                    return await pipeline.execute(raise_on_error=not request.apart)
        except TimeoutError:
            if not limit.expired():
                raise
            raise redis.TimeoutError(f"Redis did not answer within {ANSWER_TIMEOUT_S:g} s") from None

    async def read_events(self, reader: Reader[Event]) -> AsyncGenerator[Event, None]:
        """Run a reader: replay, then live."""
        patience, watch = OutagePatience(reader.shrink), OwnerWatch(self.context, reader.session_id)
        inbox, silent = None, False
        async with contextlib.AsyncExitStack() as subscription:
            while not reader.ended:
                await self.check_open()
                events: list[Event] = []
                try:
                    if reader.behind:
                        events = await self._read_stream(reader, watch if silent else None)
                        silent = False
                        patience.over()
                        if reader.absent_since is not None:
                            await self.run(check_absent(self.context, reader))
                            await asyncio.sleep(ABSENT_PAUSE_S)
                    elif inbox is None:
                        inbox = await subscription.enter_async_context(self._hub.subscribed(reader.session_id))
                    else:
                        silent = not await inbox.wait(CHECK_AGAIN_S)
                        reader.behind = silent
                        events = inbox.take(reader)
                    if reader.wants_texts:
                        await self.run(ask_for_texts([reader]))
                except (redis.RedisError, OSError, AgentRQError) as error:
                    cause = error.__cause__ if isinstance(error, AgentRQError) else error
                    if not isinstance(cause, redis.RedisError | OSError):
                        raise
                    delay = patience.delay(cause)
                    if delay is None:
                        raise from_redis(cause, self._url) from cause
                    await asyncio.sleep(delay)
                for event in events:
                    yield event

    async def _read_stream(self, reader: Reader[Event], watch: OwnerWatch | None) -> list[Event]:
        if watch is not None:
            try:
                await self.run(watch.check())
            except RedisRefused as error:  # of a user who may only read, or Redis takes no writes: see OwnerWatch
                log.debug("session %s: cannot find out whether it has an owner: %s", reader.session_id, error)
        return reader.from_stream(await self._perform(reader.page()))
