"""Sessions over HTTP: started, listed, shown, read, removed. Owns these handlers; rules of access are calls.py's."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec
from starlette.responses import Response

from agentrq import SessionExists, State
from agentrq.client.session_filter import DEFAULT_LIMIT, MAX_LIMIT, make_filter
from agentrq.wire.codec import encode
from agentrq.wire.ids import check_session_id, new_id
from agentrq.wire.state import to_wire
from agentrq_gateway.calls import Call, json_response
from agentrq_gateway.endpoints import Endpoint, Parameter
from agentrq_gateway.errors import ApiError, unavailable
from agentrq_gateway.session_starts import KEY_MARK, start_for_caller

REMOVE_S: Final = 30.0
"""How long a removal waits for a live session to end, in seconds."""
LONGEST_KEY: Final = 200
_FILTERS: Final = ("status", "provider", "tenant", "worker", "q", "limit", "before")
"""The parameters of the list, beside `metadata.NAME`."""


class Start(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """The body of a start."""

    provider: str
    """The kind of agent."""
    prompt: str
    """The first prompt."""
    session_id: str | None = None
    """Default: a new UUIDv7; with an `Idempotency-Key` an id made from it."""
    options: dict[str, Any] = {}
    """The start options, as on the wire."""


async def start_session(call: Call) -> Response:
    """POST /sessions."""
    body = await call.body(Start)
    grant, key = call.grant, idempotency_key(call)
    mark = None
    if key is not None:
        mark = f"{_digest(grant.tenant, grant.subject, key)}.{_digest(encode(body))}"
    sid = _session_id(body.session_id, mark)
    try:
        await start_for_caller(call, body.provider, body.prompt, sid, body.options, mark)
    except SessionExists:
        if mark is None or not await _was_started_by(call, sid, mark):
            raise
        return json_response({"sessionId": sid}, 200, {"Location": _location(call, sid)})
    return json_response({"sessionId": sid}, 201, {"Location": _location(call, sid)})


def _session_id(given: str | None, mark: str | None) -> str:
    if given is not None:
        return check_session_id(given)
    return new_id() if mark is None else "key-" + mark.partition(".")[0]


def _digest(*parts: str | bytes | None) -> str:
    """A short digest of some parts, each told from its neighbours."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part or b""
        digest.update(b"%d:%d:" % (part is not None, len(data)) + data)
    return digest.hexdigest()[:40]


async def _was_started_by(call: Call, session_id: str, mark: str) -> bool:
    """Whether the session was started by the very request with this mark. Raises `ApiError` 422 by another one."""
    try:
        state = await call.state(session_id)
    except ApiError as error:
        if error.status != 404:
            raise
        return False  # somebody else's: all that is told is that the id is taken
    known = state.metadata.get(KEY_MARK, "")
    if known.partition(".")[0] == mark.partition(".")[0] and known != mark:
        raise ApiError(422, "key_reused", "This Idempotency-Key was used with another body", field="Idempotency-Key")
    return known == mark


def idempotency_key(call: Call) -> str | None:
    """The header `Idempotency-Key`; None where it is absent. Raises `ApiError` 422."""
    key = call.request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= LONGEST_KEY and key.isprintable()):
        raise ApiError(
            422, "invalid", f"Idempotency-Key: use 1 to {LONGEST_KEY} printable characters", field="Idempotency-Key"
        )
    return key


def _location(call: Call, session_id: str) -> str:
    return f"{call.request.scope.get('root_path', '')}/sessions/{session_id}"


async def list_sessions(call: Call) -> Response:
    """GET /sessions."""
    grant, wanted = call.grant, _read_filter(call)
    limit = call.whole_number("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    if grant.tenant is not None:
        if wanted["tenant"] not in (None, grant.tenant):
            return json_response({"sessions": []})
        wanted["tenant"] = grant.tenant
    async with call.within_redis_timeout():
        if grant.sessions != "*":
            return json_response({"sessions": [to_wire(state) for state in await _named_sessions(call, wanted)]})
        page = await call.client.sessions(**wanted, limit=limit, before=call.query("before"))
    found: dict[str, Any] = {"sessions": [to_wire(state) for state in page.sessions]}
    if page.next is not None:
        found["next"] = page.next
    return json_response(found)


def _read_filter(call: Call) -> dict[str, Any]:
    """What the list is to have, as `AsyncAgentClient.sessions` takes it. Raises `ApiError` 422."""
    metadata = {}
    for name in call.request.query_params:
        if name.startswith("metadata."):
            metadata[name.removeprefix("metadata.")] = call.query(name) or ""
        elif name not in _FILTERS:
            raise ApiError(422, "invalid", f"{name[:80]} is not a parameter of this list", field=name[:80])
    status = call.query("status")
    return {
        "status": None if status is None else status.split(","),
        "provider": call.query("provider"),
        "worker": call.query("worker"),
        "metadata": metadata or None,
        "tenant": call.query("tenant"),
        "text": call.query("q"),
    }


async def _named_sessions(call: Call, wanted: dict[str, Any]) -> list[State]:
    """The sessions that the grant names and that are still there, the newest start first."""
    wanted_states = make_filter(*wanted.values())
    found = []
    for sid in call.grant.sessions:
        try:
            state = await call.state(sid)
        except ApiError:  # removed, or never there
            continue
        if wanted_states.admits(state):
            found.append(state)
    return sorted(found, key=lambda state: (state.created_at or 0, state.session_id), reverse=True)


async def show_session(call: Call) -> Response:
    """GET /sessions/{session_id}."""
    return json_response(to_wire(await call.state()))


async def remove_session(call: Call) -> Response:
    """DELETE /sessions/{session_id}."""
    await call.state()  # Redis answers, and the caller may see it
    session = call.client.session(call.session_id)
    try:
        await session.remove(timeout=REMOVE_S)
    except TimeoutError:
        raise unavailable("still_ending", f"Session {session.id} has not ended yet: try again") from None
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


IDEMPOTENCY_KEY: Final = Parameter(
    "Idempotency-Key", "The same key again is the same request, which is carried out once.", place="header"
)
_NUMBER: Final = {"type": "integer"}

ENDPOINTS: Final = (
    Endpoint(
        "POST", "/sessions", start_session, "start", "Start a session",
        {200: "This Idempotency-Key has started it before.", 201: "It was started.", 409: "The id is taken."},
        parameters=(IDEMPOTENCY_KEY,), body=Start, is_command=True,
    ),
    Endpoint(
        "GET", "/sessions", list_sessions, "read", "A page of the sessions, the newest start first",
        {200: "`sessions`, a list of states, and `next` where more follow."},
        parameters=(
            Parameter("status", "Only these statuses, by commas."),
            Parameter("provider", "Only this kind of agent."),
            Parameter("tenant", "Only this tenant's."),
            Parameter("worker", "Only those of this worker."),
            Parameter("metadata.KEY", "Only those with this text in their metadata; for any KEY, several times."),
            Parameter("q", "Only those with this text in id, provider, cwd, model, error or metadata."),
            Parameter("limit", f"Sessions of the page, 1 to {MAX_LIMIT}; default {DEFAULT_LIMIT}.", _NUMBER),
            Parameter("before", "The `next` of the page before."),
        ),
    ),
    Endpoint("GET", "/sessions/{session_id}", show_session, "read", "A session's state", {200: "The state."}),
    Endpoint(
        "DELETE", "/sessions/{session_id}", remove_session, "stop", "Remove a session; a live one is stopped first",
        {204: "It is removed."}, is_command=True,
    ),
)  # fmt: skip
