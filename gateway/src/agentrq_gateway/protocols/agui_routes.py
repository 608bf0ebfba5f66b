"""AG-UI 1.0 over HTTP: a thread is a session, a run its answer to one message. Owns the paths and headers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

from starlette.responses import Response

from agentrq import Event, State
from agentrq.wire.codec import encode
from agentrq.wire.ids import Cursor, check_session_id, new_id
from agentrq_gateway.calls import Call
from agentrq_gateway.endpoints import Endpoint, Parameter
from agentrq_gateway.errors import ApiError
from agentrq_gateway.protocols.agui_request import read_ids, read_input
from agentrq_gateway.protocols.agui_stream import AgUiEvent, AgUiStream, Frame, Place, to_messages
from agentrq_gateway.protocols.posted import InvalidPost
from agentrq_gateway.protocols.run import Run
from agentrq_gateway.protocols.session_runs import PAGE, find_rest, find_state, read_run, refuse, send_post
from agentrq_gateway.protocols.sse import to_frame
from agentrq_gateway.session_starts import KEY_MARK

MAX_SNAPSHOT: Final = 4 * 1024 * 1024
"""Bytes of a conversation's snapshot: of a longer one the last messages. The client gives up at 10 Mi characters."""


async def run_agent(call: Call) -> Response:
    """POST /agui."""
    body = await call.body(dict[str, Any])
    try:
        thread_id, run_id = read_ids(body)
        session_id = check_session_id(thread_id)
        state = await find_state(call, session_id)
        requests = {} if state is None else {request.id: request.kind for request in state.requests}
        posted = read_input(body, requests)
    except InvalidPost as error:
        raise refuse(error) from None
    sent = await send_post(call, session_id, posted, state)
    if sent.repeated:
        return await _connect(call, await call.state(session_id), run_id)
    nothing_sent = posted.prompt is None and not sent.place.answers
    run = Run(sent.place)
    stream = AgUiStream(run, session_id, run_id, Place(sent.place.after, {}))
    return _stream(call, run, stream, stream.begin(), state if nothing_sent else None)


async def connect_thread(call: Call) -> Response:
    """GET /agui/{session_id}/connect."""
    header = call.request.headers.get("last-event-id") or call.query("after")
    run_id = call.query("runId") or new_id()
    state = await call.state()
    if header is None:
        return await _connect(call, state, run_id)
    try:
        had = Place.parse(header)
    except ValueError:
        said = "Last-Event-ID: expected the id of a frame of this thread"
        raise ApiError(400, "malformed_cursor", said, field="Last-Event-ID") from None
    run = Run(await find_rest(call, state, had.cursor))
    stream = AgUiStream(run, state.session_id, run_id, had)
    return _stream(call, run, stream, stream.begin(), state)


async def _connect(call: Call, state: State, run_id: str) -> Response:
    """The conversation so far, and what is under way."""
    present = Cursor.parse(state.cursor)
    run = Run(await find_rest(call, state, present))
    async with call.within_redis_timeout():
        snapshot = await _read_snapshot(call, state)
    stream = AgUiStream(run, state.session_id, run_id, Place(present, {}))
    return _stream(call, run, stream, stream.begin(snapshot), state)


async def _read_snapshot(call: Call, state: State) -> list[AgUiEvent]:
    session = call.client.session(state.session_id)
    newest = Cursor.parse(state.cursor)
    before = Cursor(newest.epoch, newest.seq + 1)
    messages: list[AgUiEvent] = []
    size = 0
    while size < MAX_SNAPSHOT:
        page: list[Event] = await session.history(before, PAGE)
        made = to_messages(page)
        size += len(encode(made))
        messages = made + messages
        if len(page) < PAGE:
            break
        before = Cursor.parse(page[0].cursor or "0-0")
    for message in messages:
        if message["id"] == state.session_id and KEY_MARK in state.metadata:
            message["id"] = state.metadata[KEY_MARK]  # the first message, as its client calls it
    while size > MAX_SNAPSHOT and len(messages) > 1:
        size -= len(encode(messages.pop(0)))
    return messages


def _stream(call: Call, run: Run, stream: AgUiStream, opening: list[Frame], present: State | None) -> Response:
    session = call.client.session(run.place.session_id)
    frames = read_run(session, run, stream, live=True, present=present)
    return call.stream(_to_frames(opening, frames), cut_short=True)


async def _to_frames(opening: list[Frame], frames: AsyncGenerator[Frame, None]) -> AsyncGenerator[bytes, None]:
    yield b"".join(to_frame(*frame) for frame in opening)
    async for frame in frames:
        yield to_frame(*frame)


_EVENTS: Final[dict[str, Any]] = {"media_type": "text/event-stream"}
ENDPOINTS: Final = (
    Endpoint(
        "POST", "/agui", run_agent, "prompt", "Run an agent (AG-UI 1.0); the thread is the session",
        {200: "The run's events.", 409: "The session has ended, or waits for an answer."},
        body=object, is_command=True, **_EVENTS,
    ),
    Endpoint(
        "GET", "/agui/{session_id}/connect", connect_thread, "read", "A thread's messages, and its run under way",
        {200: "The events after Last-Event-ID; without one a snapshot first."},
        parameters=(
            Parameter("Last-Event-ID", "The id of the last frame that the client has.", place="header"),
            Parameter("after", "As Last-Event-ID, which wins."),
            Parameter("runId", "The run's id for the client."),
        ),
        **_EVENTS,
    ),
)  # fmt: skip
