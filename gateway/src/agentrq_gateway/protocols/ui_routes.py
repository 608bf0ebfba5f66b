"""Vercel AI SDK over HTTP: chats of `DefaultChatTransport` and of `WorkflowChatTransport`, each of them a session.

Owns the paths, headers and parameters that these clients use. A chat's id is its session's.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncGenerator
from typing import Any, Final

from starlette.responses import Response

from agentrq import SessionEnded, State
from agentrq.wire.ids import Cursor, check_session_id, new_id
from agentrq_gateway.calls import Call, json_response
from agentrq_gateway.endpoints import Endpoint, Parameter
from agentrq_gateway.errors import ApiError, not_found
from agentrq_gateway.protocols.posted import InvalidPost
from agentrq_gateway.protocols.run import Run, RunPlace
from agentrq_gateway.protocols.session_runs import (
    find_current,
    find_state,
    is_running,
    read_run,
    refuse,
    send_post,
)
from agentrq_gateway.protocols.sse import DONE, to_frame
from agentrq_gateway.protocols.ui_request import read_post
from agentrq_gateway.protocols.ui_stream import Chunk, UIMessageStream
from agentrq_gateway.request_body import check_is_json, decode, read_bytes

HEADERS: Final = {"x-vercel-ai-ui-message-stream": "v1"}
RUN_ID: Final = "x-workflow-run-id"
TAIL_INDEX: Final = "x-workflow-stream-tail-index"
EXPOSED: Final = (*HEADERS, RUN_ID, TAIL_INDEX)
"""Headers of answers that a page of another origin may read."""
_INDEX: Final = re.compile(r"-?[0-9]{1,8}")


async def post_chat(call: Call) -> Response:
    """POST /ui/{session_id}."""
    return await _post(call, call.session_id, await _read_body(call))


async def post_named_chat(call: Call) -> Response:
    """POST /ui."""
    body = await _read_body(call)
    given = body.get("id", None)
    return await _post(call, new_id() if given is None else check_session_id(given), body)


async def _read_body(call: Call) -> dict[str, Any]:
    """The body: JSON, also where its client says nothing of that (`WorkflowChatTransport` sends it as plain text)."""
    settings = call.services.settings
    kind = call.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("", "text/plain"):
        check_is_json(call.request)
    return decode(await read_bytes(call.request, settings.max_body, settings.body_timeout_s), dict[str, Any])


async def _post(call: Call, session_id: str, body: dict[str, Any]) -> Response:
    # The default transport says why it posts; the other counts chunks, which pieces would make uncertain.
    live = call.flag("deltas") if call.query("deltas") is not None else "trigger" in body
    state = await find_state(call, session_id)
    waiting = [request.id for request in state.requests] if state is not None else []
    try:
        posted = read_post(session_id, body, waiting)
    except InvalidPost as error:
        raise refuse(error) from None
    sent = await send_post(call, session_id, posted, state)
    nothing_sent = posted.prompt is None and not sent.place.answers
    place = sent.place._replace(live=live)
    return _stream(call, place, state if nothing_sent else None)


async def stream_chat(call: Call) -> Response:
    """GET /ui/{session_id}/stream."""
    return await _stream_named(call, call.session_id)


async def stream_chats_run(call: Call) -> Response:
    """GET /ui/{session_id}/{run_id}/stream."""
    name: str = call.request.path_params["run_id"]
    named = RunPlace.parse(name)
    if (name if named is None else named.session_id) != call.session_id:
        raise not_found(name)
    return await _stream_named(call, name)


async def _stream_named(call: Call, name: str) -> Response:
    """The response of a run, or that a chat has at present."""
    index = call.query("startIndex")
    named = RunPlace.parse(name)
    state = await call.state(name if named is None else named.session_id)
    place = named
    if place is None and (index is not None or is_running(state)):
        place = await find_current(call, state)
    if place is None:
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    if index is None:
        # Nothing is skipped, so its pieces may come too.
        return _stream(call, place._replace(live=named is None), state)
    start = _read_index(index)
    if place.live and start:
        said = "This run was sent with live pieces, whose index means nothing: post with ?deltas=0 to resume by index"
        raise ApiError(409, "run_has_live_pieces", said, field="startIndex")
    place = place._replace(live=False)
    if start >= 0:
        return _stream(call, place, state, start)
    known = await _count_chunks(call, place, state)
    return _stream(call, place, state, max(0, known + start), {TAIL_INDEX: str(known - 1)})


def _read_index(given: str) -> int:
    if not _INDEX.fullmatch(given):
        raise ApiError(422, "invalid", "startIndex: expected a whole number", field="startIndex")
    return int(given)


async def _count_chunks(call: Call, place: RunPlace, state: State) -> int:
    """How many chunks of a run there are, as of a state."""
    run, count = Run(place), 0
    if Cursor.parse(state.cursor) <= place.origin:
        return 0
    async with call.within_redis_timeout():
        stream = UIMessageStream(run)
        async for event in call.client.session(place.session_id).events(place.origin):
            count += len(stream.see(event))
            if run.is_over() or Cursor.parse(event.cursor or "0-0") >= Cursor.parse(state.cursor):
                break
    return count


def _stream(
    call: Call, place: RunPlace, present: State | None, start: int = 0, headers: dict[str, str] | None = None
) -> Response:
    run = Run(place)
    chunks = read_run(
        call.client.session(place.session_id), run, UIMessageStream(run), live=place.live, present=present
    )
    told = HEADERS | {RUN_ID: str(place)} | (headers or {})
    # Who resumes by index takes an end without a finish for what it is; the other would show a half message as whole.
    return call.stream(_to_frames(run, chunks, start), headers=told, cut_short=place.live)


async def _to_frames(run: Run, chunks: AsyncGenerator[Chunk, None], start: int) -> AsyncGenerator[bytes, None]:
    places = itertools.count()
    async for chunk in chunks:
        if next(places) >= start:
            yield to_frame(chunk)
    if run.is_over():
        yield DONE


async def stop_chat(call: Call) -> Response:
    """POST /ui/{session_id}/stop."""
    session = await call.session()
    try:
        async with call.within_redis_timeout():
            return json_response({"commandId": await session.interrupt()}, 202)
    except SessionEnded:
        return Response(status_code=204, headers={"Cache-Control": "no-store"})


_EVENTS: Final[dict[str, Any]] = {"media_type": "text/event-stream"}
_DELTAS: Final = Parameter("deltas", "1: send the pieces of texts that are being written; 0: whole texts, by index.")
_START_INDEX: Final = Parameter(
    "startIndex", "The first chunk to send; below 0: counted from the end.", {"type": "integer"}
)
_RESUMED: Final = {200: "The response, as a UI message stream.", 204: "No turn is under way."}
_ANSWERS: Final = {200: "The response, as a UI message stream.", 409: "The session has ended, or waits for an answer."}
ENDPOINTS: Final = (
    Endpoint(
        "POST", "/ui", post_named_chat, "prompt", "Post a chat's messages (Vercel AI SDK); the body's id is the chat's",
        _ANSWERS, parameters=(_DELTAS,), body=object, is_command=True, **_EVENTS,
    ),
    Endpoint(
        "POST", "/ui/{session_id}", post_chat, "prompt", "Post a chat's messages (Vercel AI SDK)",
        _ANSWERS, parameters=(_DELTAS,), body=object, is_command=True, **_EVENTS,
    ),
    Endpoint(
        "GET", "/ui/{session_id}/stream", stream_chat, "read", "The response that is under way, of a chat or a run",
        _RESUMED, parameters=(_START_INDEX,), **_EVENTS,
    ),
    Endpoint(
        "GET", "/ui/{session_id}/{run_id}/stream", stream_chats_run, "read",
        "The same, where a client appends the run's id to the chat's address",
        _RESUMED, parameters=(_START_INDEX,), **_EVENTS,
    ),
    Endpoint(
        "POST", "/ui/{session_id}/stop", stop_chat, "prompt", "End the turn under way; the chat goes on",
        {202: "`commandId`: it is sent.", 204: "The session has ended."}, is_command=True,
    ),
)  # fmt: skip
