"""Events over HTTP: by the page, and as server-sent events of one session or several.

Owns how a client names its place (``Last-Event-ID``, ``after``, ``session=ID@CURSOR``) and what it is answered before a
stream begins. What is sent is that of `agentrq_gateway.streams`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.responses import Response

from agentrq import State
from agentrq.client.event_pages import MAX_LIMIT
from agentrq.wire.ids import Cursor
from agentrq_gateway.calls import Call, json_response
from agentrq_gateway.endpoints import Endpoint, Parameter
from agentrq_gateway.errors import ApiError
from agentrq_gateway.streams.frames import reset_frame
from agentrq_gateway.streams.session_reader import SessionReader
from agentrq_gateway.streams.sources import OneSession, SeveralSessions

DEFAULT_LIMIT: Final = 500
PATIENCE_S: Final = 10.0
"""How much longer a stream may wait for Redis than a command: thousands may come back in one moment."""


class Sessions(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """The body of a stream of several sessions."""

    sessions: dict[str, str | None]
    """Session id → the cursor of the last event that the client has; null: none."""
    deltas: bool = False
    """Send the pieces of texts that are being written, too."""


async def read_events(call: Call) -> Response:
    """GET /sessions/{session_id}/events."""
    after = _cursor(call.query("after"), "after")
    limit = call.whole_number("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    session = await call.session()
    async with call.within_redis_timeout():
        page = await session.page(after, limit)
    if page.reset is not None:
        raise ApiError(
            410, "cursor_not_kept", "Events after this cursor cannot be told", field="after",
            oldest=page.reset.oldest, reason=page.reset.reason,
        )  # fmt: skip
    events = [msgspec.Raw(event.json) for event in page.events]
    return json_response({"events": events, "cursor": page.cursor, "ended": page.ended})


async def stream_session(call: Call) -> Response:
    """GET /sessions/{session_id}/stream."""
    header = call.request.headers.get("last-event-id")
    after = _cursor(header, "Last-Event-ID") if header else _cursor(call.query("after"), "after")
    deltas = call.flag("deltas")
    state = await call.state(more_s=PATIENCE_S)
    if state.ended and after is not None and str(after) == state.cursor:
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    return call.stream(OneSession(_reader(call, state, after, deltas=deltas)))


async def stream_sessions(call: Call) -> Response:
    """GET /stream."""
    feed = call.query("feed")
    if feed is not None:
        if feed != "status":
            raise ApiError(422, "invalid", "feed: expected status", field="feed")
        return call.stream(call.services.status_feed.listen(call.grant))
    given: dict[str, str | None] = {}
    for each in call.request.query_params.getlist("session"):
        session_id, at, cursor = each.partition("@")
        given[session_id] = cursor if at else None
    header = call.request.headers.get("last-event-id")
    if header:
        for each in header.split(","):
            session_id, equals, cursor = each.partition("=")
            if not equals or session_id not in given:
                raise ApiError(400, "malformed_cursor", "Last-Event-ID: expected ID=CURSOR,…", field="Last-Event-ID")
            given[session_id] = cursor
    return await _stream_of(call, given, "session", deltas=call.flag("deltas"))


async def stream_posted_sessions(call: Call) -> Response:
    """POST /stream."""
    body = await call.body(Sessions)
    return await _stream_of(call, body.sessions, "sessions", deltas=body.deltas)


async def _stream_of(call: Call, given: dict[str, str | None], field: str, *, deltas: bool) -> Response:
    most = call.services.settings.max_sessions_per_stream
    if not 1 <= len(given) <= most:
        raise ApiError(422, "invalid", f"Name 1 to {most} sessions, not {len(given)}", field=field)
    cursors = {session_id: _cursor(cursor, field) for session_id, cursor in given.items()}
    readers: list[SessionReader] = []
    opening = b""
    try:
        for session_id, after in cursors.items():
            try:
                state = await call.state(session_id, more_s=PATIENCE_S)
            except ApiError as error:
                if error.status != 404:
                    raise
                opening += reset_frame(session_id, "gone")
                continue
            readers.append(_reader(call, state, after, deltas=deltas))
    except BaseException:
        for reader in readers:
            reader.close()
        raise
    known = {session_id: str(after) for session_id, after in cursors.items() if after is not None}
    return call.stream(SeveralSessions(readers, known), opening)


def _reader(call: Call, state: State, after: Cursor | None, *, deltas: bool) -> SessionReader:
    return SessionReader(
        call.services.streams.fan_out,
        state.session_id,
        after,
        Cursor.parse(state.cursor),
        ended=state.ended,
        deltas=deltas,
    )


def _cursor(given: str | None, field: str) -> Cursor | None:
    """A client's cursor. Raises `ApiError` 400."""
    if not given:
        return None
    try:
        return Cursor.parse(given)
    except ValueError as error:
        raise ApiError(400, "malformed_cursor", str(error), field=field) from None


_EVENTS: Final[dict[str, Any]] = {"media_type": "text/event-stream"}
_DELTAS: Final = Parameter("deltas", "1: send the pieces of texts that are being written, too.")
_LAST: Final = Parameter("Last-Event-ID", "The id of the last event that the client has.", place="header")

ENDPOINTS: Final = (
    Endpoint(
        "GET", "/sessions/{session_id}/events", read_events, "read", "A page of a session's events",
        {200: "`events`, `cursor` (of the last) and `ended`.", 410: "The cursor is not kept; `oldest` is."},
        parameters=(
            Parameter("after", "The cursor of the last event that you have; default: from the oldest kept."),
            Parameter("limit", f"Events of the page, 1 to {MAX_LIMIT}; default {DEFAULT_LIMIT}.", {"type": "integer"}),
        ),
    ),
    Endpoint(
        "GET", "/sessions/{session_id}/stream", stream_session, "read", "A session's events, live",
        {200: "Server-sent events.", 204: "The session has ended, and this client has all of it."},
        parameters=(_LAST, Parameter("after", "As Last-Event-ID, which wins."), _DELTAS), **_EVENTS,
    ),
    Endpoint(
        "GET", "/stream", stream_sessions, "read", "The events of several sessions, live",
        {200: "Server-sent events."},
        parameters=(_LAST, Parameter("session", "`ID` or `ID@CURSOR`; several times."), _DELTAS,
                    Parameter("feed", "`status`: the statuses of all sessions that you may see, as they change.")),
        **_EVENTS,
    ),
    Endpoint(
        "POST", "/stream", stream_posted_sessions, "read", "The same, for long lists", {200: "Server-sent events."},
        body=Sessions, **_EVENTS,
    ),
)  # fmt: skip
