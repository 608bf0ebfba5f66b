"""Runs on real sessions: sends what was posted, finds where a run begins, and reads its events.

The same for all protocols. Owns the order of things (answers before the prompt, places before commands), so that a
request that is repeated, or cut and gone on with by another gateway, is the same run.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from typing import Final, NamedTuple, Protocol, TypeVar

from agentrq import (
    AgentRQError,
    AsyncSession,
    CommandRejected,
    Event,
    Message,
    SessionExists,
    SessionNotFound,
    State,
    StreamTrimmed,
)
from agentrq.wire.ids import ORIGIN, Cursor
from agentrq.wire.messages import ApprovalResolved, Prompt
from agentrq_gateway.calls import Call
from agentrq_gateway.errors import ApiError, forbidden, not_found
from agentrq_gateway.protocols.posted import InvalidPost, Posted
from agentrq_gateway.protocols.run import Run, RunPlace, find_origin, find_pause
from agentrq_gateway.session_starts import KEY_MARK, start_for_caller

log = logging.getLogger("agentrq.gateway.protocols")

T = TypeVar("T")
PAGE: Final = 200
"""Events that are read backwards at once."""
MAX_BACK: Final = 20_000
"""Events that are looked at to find where a turn began."""


class Sent(NamedTuple):
    """What came of a post: where its run is; ``state`` of before; ``repeated``: it had been posted before."""

    place: RunPlace
    state: State | None
    repeated: bool = False


class Output(Protocol[T]):
    """A machine that makes a run's frames: `UIMessageStream`, `AgUiStream`."""

    def see(self, event: Event) -> list[T]:
        """The frames that an event adds."""

    def settle(self, status: str) -> list[T]:
        """The frames of a run of which, with this status, nothing more comes by itself."""

    def gone(self, message: str) -> list[T]:
        """The frames of a run whose events are not there."""


async def find_state(call: Call, session_id: str) -> State | None:
    """The session's state, if the caller may see it; None where it is not there."""
    try:
        return await call.state(session_id)
    except ApiError as error:
        if error.status != 404:
            raise
        return None


def refuse(error: InvalidPost) -> ApiError:
    """What a caller is told whose request cannot be understood."""
    return ApiError(422, "invalid", str(error), field=error.field)


async def send_post(call: Call, session_id: str, posted: Posted, state: State | None) -> Sent:
    """Carry out what was posted. Raises `ApiError`, and what the client raises."""
    if state is None:
        return await _start(call, session_id, posted)
    if posted.command_id and state.metadata.get(KEY_MARK) == posted.command_id:
        return Sent(RunPlace(session_id, ORIGIN, session_id), state, repeated=True)
    session = call.client.session(session_id)
    if posted.prompt is not None:
        await _answer(call, session, posted)
        return await _prompt(call, session, posted, state)
    async with call.within_redis_timeout():
        place = await _find_continuation(session, state, posted)
    return Sent(place._replace(answers=place.answers + await _answer(call, session, posted)), state)


async def _find_continuation(session: AsyncSession, state: State, posted: Posted) -> RunPlace:
    """What comes after the place where the client's response waited; without one, after all there is."""
    running = is_running(state)
    events = await _back(session, None, find=running)
    origin = find_origin(events, running) or ORIGIN
    turn = [event for event in events if Cursor.parse(event.cursor or "0-0") > origin]
    after = find_pause(session.id, origin, turn, posted.asked) or Cursor.parse(state.cursor)
    return RunPlace(session.id, origin, None, after, await _count_resolved(session, after))


async def _start(call: Call, session_id: str, posted: Posted) -> Sent:
    if posted.prompt is None:
        raise not_found(session_id)
    if not call.grant.allows("start"):
        raise forbidden("This needs the action start")
    provider = posted.provider
    if provider is None:
        allowed = list(call.grant.providers or ())
        if len(allowed) != 1:
            raise ApiError(422, "invalid", "The first message of a chat names its provider", field="provider")
        provider = allowed[0]
    try:
        await start_for_caller(call, provider, posted.prompt, session_id, posted.options, posted.command_id)
    except SessionExists:
        state = await call.state(session_id)  # somebody else's: 404
        if state.metadata.get(KEY_MARK) != posted.command_id:
            raise
    return Sent(RunPlace(session_id, ORIGIN, session_id), None)


async def _answer(call: Call, session: AsyncSession, posted: Posted) -> int:
    """Send the answers; how many were taken. What somebody else has answered meanwhile is passed over."""
    if posted.answers and not call.grant.allows("answer"):
        raise forbidden("This needs the action answer")
    taken = 0
    for each in posted.answers:
        try:
            async with call.within_redis_timeout():
                await session.answer(each.request_id, call.grant.sign(each.answer), command_id=each.command_id)
            taken += 1
        except CommandRejected as error:
            log.debug("session %s: %s", session.id, error)
    return taken


async def _prompt(call: Call, session: AsyncSession, posted: Posted, state: State) -> Sent:
    still_open = {request.id for request in state.requests} - {each.request_id for each in posted.answers}
    async with call.within_redis_timeout():
        # The place first: the prompt's event comes after it, or there was a receipt before.
        before = Cursor.parse((await session.state()).cursor)
        receipt = await session.receipt(posted.command_id)
        if receipt is not None:
            origin = await _before_prompt(session, posted.command_id, Cursor.parse(receipt.cursor))
            return Sent(RunPlace(session.id, origin, posted.command_id), state, repeated=True)
        if still_open and posted.mode == "queue":
            said = "The agent waits for an answer: answer it first, or send this with mode interrupt"
            raise ApiError(409, "answer_first", said)
        assert posted.prompt is not None
        await session.prompt(posted.prompt, posted.mode, command_id=posted.command_id)
    return Sent(RunPlace(session.id, before, posted.command_id), state)


async def find_current(call: Call, state: State) -> RunPlace | None:
    """The run of the turn under way, else of the last one that a prompt began; None where there is neither."""
    session = call.client.session(state.session_id)
    async with call.within_redis_timeout():
        origin = await _find_origin(session, state)
        if origin == ORIGIN and not state.num_turns and not is_running(state):
            return None
        answers = await _count_resolved(session, origin)
    return RunPlace(state.session_id, origin, None, origin, answers)


async def find_rest(call: Call, state: State, after: Cursor) -> RunPlace:
    """The run of what comes after a cursor."""
    session = call.client.session(state.session_id)
    async with call.within_redis_timeout():
        found = find_origin(await _back(session, _next(after), find=True), True) or ORIGIN
        answers = await _count_resolved(session, after)
    return RunPlace(state.session_id, found, None, after, answers)


def is_running(state: State) -> bool:
    """Whether a turn is under way, or about to be."""
    return not state.ended and state.status != "idle"


async def _find_origin(session: AsyncSession, state: State) -> Cursor:
    running = is_running(state)
    return find_origin(await _back(session, None, find=running), running) or ORIGIN


async def _back(session: AsyncSession, before: Cursor | None, *, find: bool) -> list[Event]:
    """The events before a cursor, back to where the turn began."""
    events: list[Event] = []
    while len(events) < MAX_BACK:
        page = await session.history(before, PAGE)
        events = page + events
        if len(page) < PAGE or find_origin(page, find) is not None:
            break
        before = Cursor.parse(page[0].cursor or "0-0")
    return events


async def _before_prompt(session: AsyncSession, command_id: str, before: Cursor) -> Cursor:
    """The place before the prompt of a command whose receipt is known: the prompt's event stands before it."""
    for event in reversed(await session.history(_next(before), PAGE)):
        if isinstance(event, Message) and isinstance(event.content, Prompt) and event.content.command_id == command_id:
            cursor = Cursor.parse(event.cursor or "0-0")
            return Cursor(cursor.epoch, max(0, cursor.seq - 1))
    return Cursor(before.epoch, max(0, before.seq - 1))  # it was refused: its receipt is all there is


def _next(cursor: Cursor) -> Cursor | None:
    """What is before it is all up to the cursor; None where Redis has no name for that."""
    return Cursor(cursor.epoch, cursor.seq + 1) if cursor.seq + 1 < 1 << 64 else None


async def _count_resolved(session: AsyncSession, after: Cursor) -> int:
    """Requests that were resolved after a place: a response that is read anew does not wait for them again."""
    found, before = 0, None
    while True:
        page = await session.history(before, PAGE)
        fresh = [event for event in page if Cursor.parse(event.cursor or "0-0") > after]
        found += sum(isinstance(event, Message) and isinstance(event.content, ApprovalResolved) for event in fresh)
        if len(fresh) < PAGE:
            return found
        before = page[0].cursor


async def read_run(
    session: AsyncSession, run: Run, output: Output[T], *, live: bool, present: State | None
) -> AsyncGenerator[T, None]:
    """The frames of a run, until it has ended. ``live``: with the pieces of texts that are being written.

    ``present``: a state of the session in which nothing may be under way: where the run has not ended when all up to
    it was seen, it is settled by its status.
    """
    at = Cursor.parse(present.cursor) if present is not None else None
    place = run.place
    try:
        if present is not None and at is not None and at <= place.origin:
            for frame in output.settle(present.status):
                yield frame
        if run.is_over():
            return
        async for event in session.events(None if place.origin == ORIGIN else place.origin, deltas=live):
            for frame in output.see(event):
                yield frame
            if present is not None and at is not None and event.cursor and Cursor.parse(event.cursor) >= at:
                at = None
                for frame in output.settle(present.status):
                    yield frame
            if run.is_over():
                return
        for frame in output.gone("the session has ended"):
            yield frame
    except (SessionNotFound, StreamTrimmed) as error:
        for frame in output.gone(str(error)):
            yield frame
    except AgentRQError as error:
        # Without its end: the client comes back for the rest.
        log.warning("session %s: a run cannot be read on: %s", session.id, error)
