"""The Python client: `AgentClient` and `AsyncAgentClient`, two thin shells over operations.py and subscription.py.

Owns the running of operations on a Redis client and the waiting of a reader; no rule of the product.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Final, Literal, Self, overload

import redis
import redis.asyncio

from agentrq import operations
from agentrq.asking import OpenRequests, Request
from agentrq.connection import ANSWER_TIMEOUT_S, connect, connect_async, is_outage
from agentrq.errors import AgentRQError, CommandRejected, SessionEnded
from agentrq.live import BACKOFF_S, Hub
from agentrq.operations import Batch, Context, Operation, OwnerWatch, T
from agentrq.subscription import LOOK_AGAIN_S, Mailbox, Reader
from agentrq.wire import scripts, steps
from agentrq.wire.commands import Command, PromptMode
from agentrq.wire.ids import Cursor, check_session_id, new_id
from agentrq.wire.messages import Event, Message, Receipt
from agentrq.wire.state import State
from agentrq.wire.steps import Step

OUTAGE_S: Final = 600.0
"""How long a reader that has begun tries to reach Redis again before it raises, in seconds."""


def _prompt(text: str, mode: PromptMode, command_id: str | None) -> Command:
    return Command(command_id=command_id or new_id(), command="prompt", timestamp=steps.now_ms(), text=text, mode=mode)


def _answer(request_id: str, answer: Any, command_id: str | None) -> Command:
    return Command(
        command_id=command_id or new_id(),
        command="answer",
        timestamp=steps.now_ms(),
        request_id=request_id,
        answer=answer,
    )


def _setting(command: Literal["set_model", "set_permission_mode"], value: str, command_id: str | None) -> Command:
    return Command(command_id=command_id or new_id(), command=command, timestamp=steps.now_ms(), text=value)


def _interrupt(command_id: str | None) -> Command:
    return Command(command_id=command_id or new_id(), command="interrupt", timestamp=steps.now_ms())


def _applied(receipt: Receipt) -> Receipt:
    if receipt.outcome != "applied":
        raise CommandRejected(receipt.session_id, receipt.command_id, receipt.outcome, receipt.reason)
    return receipt


def _timed_out(what: str, timeout: float | None) -> TimeoutError:
    return TimeoutError(f"{what} took longer than {timeout} s")


class Session:
    """One session, seen through an `AgentClient`. Making it does no IO."""

    def __init__(self, client: AgentClient, session_id: str) -> None:
        self._client = client
        self.id = check_session_id(session_id)

    def __repr__(self) -> str:
        return f"Session({self.id!r})"

    def state(self) -> State:
        """The state as it is now. Raises `SessionNotFound`."""
        return self._client.run(operations.state(self._client.context, self.id))

    @overload
    def prompt(
        self, text: str, mode: PromptMode = ..., wait: Literal[False] = ..., *, command_id: str | None = ...
    ) -> str: ...
    @overload
    def prompt(
        self,
        text: str,
        mode: PromptMode = ...,
        *,
        wait: Literal[True],
        command_id: str | None = ...,
        timeout: float | None = ...,
    ) -> Receipt: ...
    def prompt(
        self,
        text: str,
        mode: PromptMode = "queue",
        wait: bool = False,
        *,
        command_id: str | None = None,
        timeout: float | None = None,
    ) -> str | Receipt:
        """Send a prompt; answers the command's id, or with ``wait`` its receipt.

        ``command_id`` is an idempotency key: the same id sent again is the same command. ``timeout`` (seconds)
        bounds the wait. Raises `SessionNotFound`, `SessionEnded`, `InboxFull`, `InvalidOption`, and waiting
        `CommandRejected` or `TimeoutError`.
        """
        return self._send(_prompt(text, mode, command_id), wait, timeout)

    def answer(
        self, request_id: str, answer: Any, wait: bool = False, *, command_id: str | None = None,
        timeout: float | None = None,
    ) -> str | Receipt:  # fmt: skip
        """Answer an approval request or a question: ``"allow"``, ``"deny"`` or an object; else as `prompt`."""
        return self._send(_answer(request_id, answer, command_id), wait, timeout)

    def interrupt(
        self, wait: bool = False, *, command_id: str | None = None, timeout: float | None = None
    ) -> str | Receipt:
        """End the turn under way, keep the session; else as `prompt`."""
        return self._send(_interrupt(command_id), wait, timeout)

    def set_model(self, model: str, wait: bool = False, *, command_id: str | None = None,
                  timeout: float | None = None) -> str | Receipt:  # fmt: skip
        """Have the next turns use another model, where the provider can; else as `prompt`."""
        return self._send(_setting("set_model", model, command_id), wait, timeout)

    def set_permission_mode(self, mode: str, wait: bool = False, *, command_id: str | None = None,
                            timeout: float | None = None) -> str | Receipt:  # fmt: skip
        """Change the permission mode from now on, where the provider can; else as `prompt`."""
        return self._send(_setting("set_permission_mode", mode, command_id), wait, timeout)

    def ask_for_approval(self, callback: Callable[[Request], Any]) -> State:
        """Answer the agent's requests by a function, until the session has ended; answers its state.

        ``callback`` gets each `ApprovalRequest` or `Question` that is open, once, and returns the answer (see
        `answer`), or None to leave it to somebody else. Who answered first wins: a late answer is no error.
        """
        requests = OpenRequests(self.state().cursor)
        for event in self._follow(None, None):
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
            self.wait(timeout)
            self._client.run(operations.remove(self._client.context, self.id))

    def wait(self, timeout: float | None = None) -> State:
        """Wait for the session's end; answers its state. Raises `TimeoutError` after ``timeout`` seconds."""
        for _ in self._follow(self.state().cursor, timeout):
            pass
        return self.state()

    def events(self, after: str | Cursor | None = None, *, deltas: bool = False) -> Iterator[Event]:
        """Every event after a cursor (default: from the oldest kept), then live, until the session has ended.

        With ``deltas`` also the live-only `text_delta` and `thinking_delta` messages. Raises `SessionNotFound`,
        `StreamTrimmed`, ValueError for a bad cursor; reconnects by itself.
        """
        return self._follow(after, None, deltas=deltas)

    def messages(self, after: str | Cursor | None = None, *, deltas: bool = False) -> Iterator[Message]:
        """The messages among `events`."""
        return (event for event in self._follow(after, None, deltas=deltas) if isinstance(event, Message))

    def _send(self, command: Command, wait: bool, timeout: float | None) -> str | Receipt:
        if not wait:
            return self._client.run(operations.send(self._client.context, self.id, command))
        before = self.state().cursor
        self._client.run(operations.send(self._client.context, self.id, command))
        known = self._client.run(operations.receipt(self._client.context, self.id, command.command_id))
        if known is not None:
            return _applied(known)
        for event in self._follow(before, timeout):
            if isinstance(event, Receipt) and event.command_id == command.command_id:
                return _applied(event)
        raise AgentRQError(f"Session {self.id} ended without a receipt for {command.command_id}")

    def _follow(self, after: str | Cursor | None, timeout: float | None, *, deltas: bool = False) -> Iterator[Event]:
        reader = Reader(self._client.context.keys, self.id, after, deltas=deltas)
        return self._client.follow(reader, timeout)


class AgentClient:
    """The synchronous client. Thread-safe as far as a redis-py client is; close it or use it as a context manager."""

    def __init__(self, client: redis.Redis, live: redis.Redis, context: Context | None = None) -> None:
        self.context = context or Context.from_environment()
        self._redis = client
        self._live = live
        self._scripts = {name: client.register_script(source) for name, source in scripts.SOURCES.items()}

    @classmethod
    def from_url(cls, url: str) -> Self:
        """A client for a Redis URL (see `agentrq.connection`). Connects when first used; raises ValueError."""
        return cls(connect(url), connect(url, blocking=True))

    def start(self, provider: str, prompt: str, session_id: str | None = None, **options: Any) -> Session:
        """Start a session; the options are those of `agentrq.wire.commands.Options`.

        Raises `SessionExists`, `InvalidSessionId`, `InvalidOption`.
        """
        return Session(self, self.run(operations.start(self.context, provider, prompt, session_id, options)))

    def session(self, session_id: str) -> Session:
        """A session by its id; no IO. Raises `InvalidSessionId`."""
        return Session(self, session_id)

    def sessions(self) -> list[Session]:
        """All sessions that are kept, the oldest start first."""
        return [Session(self, state.session_id) for state in self.states()]

    def states(self) -> list[State]:
        """The states of all sessions that are kept, the oldest start first."""
        return self.run(operations.states(self.context))

    def close(self) -> None:
        """Close the connections."""
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

    def _perform(self, request: Step | Batch) -> Any:
        if isinstance(request, Step):
            return self._scripts[request.script](keys=list(request.keys), args=list(request.args))
        with self._redis.pipeline(transaction=request.atomic) as pipeline:
            for command in request.commands:
                pipeline.execute_command(*command)
            return pipeline.execute()

    def follow(self, reader: Reader, timeout: float | None) -> Iterator[Event]:
        """Run a reader: replay, then live. ``timeout`` in seconds bounds the whole."""
        deadline = None if timeout is None else time.monotonic() + timeout
        mailbox = Mailbox()
        pubsub = None
        failures, away_since = 0, None
        began = False
        watch = OwnerWatch(self.context, reader.session_id)
        try:
            while True:
                try:
                    while reader.behind and not reader.ended:
                        (events,) = (reader.from_stream(self._perform(reader.page())),)
                        began, failures, away_since = True, 0, None
                        yield from events
                    if reader.ended:
                        return
                    if pubsub is None:
                        pubsub = self._live.pubsub()
                        pubsub.subscribe(
                            self.context.keys.messages_channel(reader.session_id),
                            self.context.keys.status_channel(reader.session_id),
                        )
                    wait = LOOK_AGAIN_S if deadline is None else min(LOOK_AGAIN_S, deadline - time.monotonic())
                    if wait <= 0:
                        raise _timed_out(f"Session {reader.session_id}", timeout)
                    self._listen(pubsub, mailbox, wait)
                    if not mailbox:
                        self.run(watch.check())
                        reader.behind = True
                    yield from mailbox.take(reader)
                except (redis.RedisError, OSError) as error:
                    if not began or not is_outage(error) or (deadline and time.monotonic() >= deadline):
                        raise
                    away_since = away_since or time.monotonic()
                    if time.monotonic() - away_since > OUTAGE_S:
                        raise
                    if pubsub is not None:
                        pubsub.close()
                        pubsub = None
                    reader.behind = True
                    time.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                    failures += 1
        finally:
            if pubsub is not None:
                pubsub.close()

    def _listen(self, pubsub: Any, mailbox: Mailbox, wait: float) -> None:
        """Wait for a hint, then take all that came with it."""
        status = {}
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


class AsyncSession:
    """One session, seen through an `AsyncAgentClient`: `Session`, awaited. Making it does no IO."""

    def __init__(self, client: AsyncAgentClient, session_id: str) -> None:
        self._client = client
        self.id = check_session_id(session_id)

    def __repr__(self) -> str:
        return f"AsyncSession({self.id!r})"

    async def state(self) -> State:
        """As `Session.state`."""
        return await self._client.run(operations.state(self._client.context, self.id))

    @overload
    async def prompt(
        self, text: str, mode: PromptMode = ..., wait: Literal[False] = ..., *, command_id: str | None = ...
    ) -> str: ...
    @overload
    async def prompt(
        self,
        text: str,
        mode: PromptMode = ...,
        *,
        wait: Literal[True],
        command_id: str | None = ...,
        timeout: float | None = ...,
    ) -> Receipt: ...
    async def prompt(
        self,
        text: str,
        mode: PromptMode = "queue",
        wait: bool = False,
        *,
        command_id: str | None = None,
        timeout: float | None = None,
    ) -> str | Receipt:
        """As `Session.prompt`."""
        return await self._send(_prompt(text, mode, command_id), wait, timeout)

    async def answer(
        self, request_id: str, answer: Any, wait: bool = False, *, command_id: str | None = None,
        timeout: float | None = None,
    ) -> str | Receipt:  # fmt: skip
        """As `Session.answer`."""
        return await self._send(_answer(request_id, answer, command_id), wait, timeout)

    async def interrupt(
        self, wait: bool = False, *, command_id: str | None = None, timeout: float | None = None
    ) -> str | Receipt:
        """As `Session.interrupt`."""
        return await self._send(_interrupt(command_id), wait, timeout)

    async def set_model(self, model: str, wait: bool = False, *, command_id: str | None = None,
                        timeout: float | None = None) -> str | Receipt:  # fmt: skip
        """As `Session.set_model`."""
        return await self._send(_setting("set_model", model, command_id), wait, timeout)

    async def set_permission_mode(self, mode: str, wait: bool = False, *, command_id: str | None = None,
                                  timeout: float | None = None) -> str | Receipt:  # fmt: skip
        """As `Session.set_permission_mode`."""
        return await self._send(_setting("set_permission_mode", mode, command_id), wait, timeout)

    async def ask_for_approval(self, callback: Callable[[Request], Any]) -> State:
        """As `Session.ask_for_approval`; ``callback`` may be a coroutine function."""
        requests = OpenRequests((await self.state()).cursor)
        async for event in self.events():
            for request in requests.see(event):
                answer = callback(request)
                if inspect.isawaitable(answer):
                    answer = await answer
                if answer is not None:
                    with contextlib.suppress(SessionEnded):
                        await self.answer(request.request_id, answer)
        return await self.state()

    async def stop(self) -> str:
        """As `Session.stop`."""
        return await self._client.run(operations.stop(self._client.context, self.id))

    async def remove(self, timeout: float = 30.0) -> None:
        """As `Session.remove`."""
        if not await self._client.run(operations.remove(self._client.context, self.id)):
            await self.stop()
            await self.wait(timeout)
            await self._client.run(operations.remove(self._client.context, self.id))

    async def wait(self, timeout: float | None = None) -> State:
        """As `Session.wait`."""
        cursor = (await self.state()).cursor
        try:
            async with asyncio.timeout(timeout):
                async for _ in self.events(cursor):
                    pass
        except TimeoutError:
            raise _timed_out(f"Session {self.id}", timeout) from None
        return await self.state()

    def events(self, after: str | Cursor | None = None, *, deltas: bool = False) -> AsyncIterator[Event]:
        """As `Session.events`."""
        return self._client.follow(Reader(self._client.context.keys, self.id, after, deltas=deltas))

    async def messages(self, after: str | Cursor | None = None, *, deltas: bool = False) -> AsyncIterator[Message]:
        """As `Session.messages`."""
        async with contextlib.aclosing(self._client.follow(Reader(
            self._client.context.keys, self.id, after, deltas=deltas
        ))) as events:  # fmt: skip
            async for event in events:
                if isinstance(event, Message):
                    yield event

    async def _send(self, command: Command, wait: bool, timeout: float | None) -> str | Receipt:
        context = self._client.context
        if not wait:
            return await self._client.run(operations.send(context, self.id, command))
        before = (await self.state()).cursor
        await self._client.run(operations.send(context, self.id, command))
        known = await self._client.run(operations.receipt(context, self.id, command.command_id))
        if known is not None:
            return _applied(known)
        try:
            async with asyncio.timeout(timeout):
                async for event in self.events(before):
                    if isinstance(event, Receipt) and event.command_id == command.command_id:
                        return _applied(event)
        except TimeoutError:
            raise _timed_out(f"The receipt of {command.command_id}", timeout) from None
        raise AgentRQError(f"Session {self.id} ended without a receipt for {command.command_id}")


class AsyncAgentClient:
    """The asyncio client, for one event loop; close it or use it as an asynchronous context manager."""

    def __init__(self, client: redis.asyncio.Redis, live: redis.asyncio.Redis, context: Context | None = None) -> None:
        self.context = context or Context.from_environment()
        self._redis = client
        self._live = live
        self._hub = Hub(live, self.context.keys)
        self._scripts = {name: client.register_script(source) for name, source in scripts.SOURCES.items()}

    @classmethod
    def from_url(cls, url: str) -> Self:
        """As `AgentClient.from_url`."""
        return cls(connect_async(url), connect_async(url, blocking=True))

    async def start(self, provider: str, prompt: str, session_id: str | None = None, **options: Any) -> AsyncSession:
        """As `AgentClient.start`."""
        sid = await self.run(operations.start(self.context, provider, prompt, session_id, options))
        return AsyncSession(self, sid)

    def session(self, session_id: str) -> AsyncSession:
        """As `AgentClient.session`."""
        return AsyncSession(self, session_id)

    async def sessions(self) -> list[AsyncSession]:
        """As `AgentClient.sessions`."""
        return [AsyncSession(self, state.session_id) for state in await self.states()]

    async def states(self) -> list[State]:
        """As `AgentClient.states`."""
        return await self.run(operations.states(self.context))

    async def aclose(self) -> None:
        """Close the connections."""
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
        """Run one operation to its end."""
        answer: Any = None
        while True:
            try:
                request = operation.send(answer)
            except StopIteration as finished:
                result: T = finished.value
                return result
            answer = await self._perform(request)

    async def _perform(self, request: Step | Batch) -> Any:
        # On Python 3.11 the sockets have no timeout of their own (see connection.py).
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            if isinstance(request, Step):
                return await self._scripts[request.script](keys=list(request.keys), args=list(request.args))
            async with self._redis.pipeline(transaction=request.atomic) as pipeline:
                for command in request.commands:
                    pipeline.execute_command(*command)
                return await pipeline.execute()

    async def follow(self, reader: Reader) -> AsyncGenerator[Event, None]:
        """Run a reader: replay, then live."""
        read = functools.partial(self._read_page, reader)
        while reader.behind and not reader.ended:
            for event in await read():
                yield event
        if reader.ended:
            return
        failures, away_since = 0, None
        watch = OwnerWatch(self.context, reader.session_id)
        async with self._hub.subscribed(reader.session_id) as inbox:
            while not reader.ended:
                silent = not await inbox.wait(LOOK_AGAIN_S)
                for event in inbox.take(reader):
                    yield event
                while (reader.behind or silent) and not reader.ended:
                    try:
                        if silent:
                            await self.run(watch.check())
                        events = await read()
                    except (redis.RedisError, OSError) as error:
                        away_since = away_since or time.monotonic()
                        if not is_outage(error) or time.monotonic() - away_since > OUTAGE_S:
                            raise
                        await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                        failures += 1
                        continue
                    failures, away_since, silent = 0, None, False
                    for event in events:
                        yield event

    async def _read_page(self, reader: Reader) -> list[Event]:
        return reader.from_stream(await self._perform(reader.page()))
