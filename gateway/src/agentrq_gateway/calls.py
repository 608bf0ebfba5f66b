"""One request on its way through a handler: `Call`. Owns how a handler gets at its caller, its session and its body.

Every look at a session goes through here, so that somebody else's is never told from one that does not exist.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from agentrq import AsyncAgentClient, AsyncSession, InvalidSessionId, SessionNotFound, State
from agentrq.wire.codec import encode
from agentrq_gateway.auth.grant import Grant
from agentrq_gateway.auth.jwt_auth import JWTAuth
from agentrq_gateway.errors import ApiError, not_found, unauthorized
from agentrq_gateway.limits import Limits
from agentrq_gateway.request_body import read_body
from agentrq_gateway.settings import Settings
from agentrq_gateway.streams.status_feed import StatusFeed
from agentrq_gateway.streams.stream_keeper import StreamKeeper
from agentrq_gateway.streams.stream_response import GeneratorSource, Source, StreamResponse

T = TypeVar("T")


@dataclass
class Counts:
    """What this process has served so far."""

    requests: int = 0
    failures: int = 0


@dataclass(frozen=True)
class Services:
    """What all calls of one gateway share."""

    client: AsyncAgentClient
    settings: Settings
    limits: Limits
    counts: Counts
    streams: StreamKeeper
    status_feed: StatusFeed
    openapi: bytes
    """The OpenAPI document, as JSON."""
    authenticates: bool
    """Callers have to say who they are."""
    tokens: JWTAuth | None
    """Whose tokens count, where callers are known by tokens."""

    async def redeem(self, ticket: str) -> Grant:
        """The grant of a ticket, which counts once in all gateways. Raises `ApiError` 401."""
        if self.tokens is None:
            raise unauthorized("This gateway takes no tickets")
        ticket_id, grant = self.tokens.read_ticket(ticket)
        async with asyncio.timeout(self.settings.redis_timeout_s):
            first = await self.client.use_once(f"ticket:{ticket_id}", self.tokens.max_age_s)
        if not first:
            raise unauthorized("The ticket was used already", "ticket_used")
        return grant


@dataclass(frozen=True)
class Call:
    """One request: who asks (``grant``), for what (``request``), and what serves it."""

    request: Request
    grant: Grant
    services: Services

    @property
    def client(self) -> AsyncAgentClient:
        """The client of agentrq."""
        return self.services.client

    @property
    def session_id(self) -> str:
        """The id in the path."""
        found: str = self.request.path_params["session_id"]
        return found

    @contextlib.asynccontextmanager
    async def within_redis_timeout(self, more_s: float = 0) -> AsyncIterator[None]:
        """Bounds calls to Redis: after ``redis_timeout_s``, and ``more_s``, the request is answered with 503."""
        async with asyncio.timeout(self.services.settings.redis_timeout_s + more_s):
            yield

    async def state(self, session_id: str | None = None, *, more_s: float = 0) -> State:
        """The state of a session (default: that of the path). Raises `ApiError` 404 also for somebody else's.

        ``more_s``: how much longer than a command it may wait for Redis.
        """
        sid = self.session_id if session_id is None else session_id
        if not self.grant.names(sid):
            raise not_found(sid)
        try:
            async with self.within_redis_timeout(more_s):
                state = await self.client.session(sid).state()
        except (SessionNotFound, InvalidSessionId):
            raise not_found(sid) from None
        if not self.grant.sees(state):
            raise not_found(sid)
        return state

    async def session(self, session_id: str | None = None) -> AsyncSession:
        """A session (default: that of the path) that the caller may see. Raises `ApiError` 404."""
        sid = self.session_id if session_id is None else session_id
        if self.grant.tenant is not None or not self.grant.names(sid):
            await self.state(sid)  # whose it is, only its state says
        try:
            return self.client.session(sid)
        except InvalidSessionId:
            raise not_found(sid) from None

    async def body(self, kind: type[T], *, required: bool = True) -> T:
        """The body of the request, read as a struct. Raises `ApiError`."""
        settings = self.services.settings
        return await read_body(self.request, kind, settings.max_body, settings.body_timeout_s, required=required)

    def query(self, name: str) -> str | None:
        """A parameter of the query; None where it is absent or empty. Raises `ApiError` 422 if it stands twice."""
        found = self.request.query_params.getlist(name)
        if len(found) > 1:
            raise ApiError(422, "invalid", f"{name} stands there {len(found)} times", field=name)
        return found[0] if found and found[0] else None

    def number(self, name: str, default: float, least: float, most: float) -> float:
        """A number of the query. Raises `ApiError` 422."""
        given = self.query(name)
        try:
            value = default if given is None else float(given)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise ApiError(422, "invalid", f"{name}: expected a number from {least:g} to {most:g}", field=name)
        return value

    def whole_number(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number of the query. Raises `ApiError` 422."""
        value = self.number(name, default, least, most)
        if value != int(value):
            raise ApiError(422, "invalid", f"{name}: expected a whole number", field=name)
        return int(value)

    def flag(self, name: str) -> bool:
        """A switch of the query: ``1`` or ``true``, ``0`` or ``false``. Raises `ApiError` 422."""
        given = (self.query(name) or "0").lower()
        if given not in ("0", "1", "true", "false"):
            raise ApiError(422, "invalid", f"{name}: expected 1 or 0", field=name)
        return given in ("1", "true")

    def stream(
        self,
        source: Source | AsyncGenerator[bytes, None],
        opening: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        cut_short: bool = False,
    ) -> Response:
        """The answer that sends a source as server-sent events; ``opening`` is sent first; ``cut_short``: see there.

        Whatever the source is: slots are counted (429), the client is kept alive, and the stream ends with the grant.
        """
        return StreamResponse(
            source if isinstance(source, Source) else GeneratorSource(source),
            self.services.streams,
            self.services.limits,
            self.grant.subject,
            expires_at=self.grant.expires_at,
            headers=headers,
            opening=opening,
            cut_short=cut_short,
        )


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON, which nobody may keep."""
    return Response(encode(value), status, {"Cache-Control": "no-store", **(headers or {})}, "application/json")
