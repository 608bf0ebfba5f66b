"""The ASGI app: `Gateway`. Owns the way of a request (where from, who, which endpoint, what error) and its own life.

It may be mounted in any ASGI app. A mounted app gets no lifespan events, so it starts with its first request.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from importlib.metadata import version
from typing import Any, TypeAlias

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from agentrq import AsyncAgentClient
from agentrq.wire.codec import encode
from agentrq_gateway.auth.grant import EVERYTHING, Grant
from agentrq_gateway.auth.jwt_auth import JWTAuth
from agentrq_gateway.auth.request_origin import check_host, check_peer, check_write
from agentrq_gateway.calls import Call, Counts, Services
from agentrq_gateway.endpoints import Endpoint
from agentrq_gateway.errors import ApiError, forbidden, from_exception, to_response, unauthorized
from agentrq_gateway.limits import Limits
from agentrq_gateway.openapi import document
from agentrq_gateway.page import page_routes
from agentrq_gateway.protocols import agui_routes, ui_routes
from agentrq_gateway.request_body import Disconnected
from agentrq_gateway.routes import commands, documents, fleet, sessions, streams, tokens
from agentrq_gateway.settings import Settings
from agentrq_gateway.streams.fan_out import FanOut
from agentrq_gateway.streams.status_feed import StatusFeed
from agentrq_gateway.streams.stream_keeper import StreamKeeper

Auth: TypeAlias = Callable[[Request], Grant | Awaitable[Grant | None] | None]
"""Says what the caller of a request may do; None: nobody that it knows."""

ENDPOINTS: tuple[Endpoint, ...] = (
    *sessions.ENDPOINTS,
    *commands.ENDPOINTS,
    *streams.ENDPOINTS,
    *fleet.ENDPOINTS,
    *tokens.ENDPOINTS,
    *ui_routes.ENDPOINTS,
    *agui_routes.ENDPOINTS,
    *documents.ENDPOINTS,
)
"""The route table."""


class Gateway:
    """Sessions over HTTP, as an ASGI app.

    ``client``: the gateway uses it, and does not close it. ``auth``: says who a caller is and what they may do, for
    each request (a function of the host app, or a `JWTAuth`). None: everybody of this machine may do everything, and
    nobody else anything. ``settings``: limits, hosts, origins.

    Belongs to one event loop; closed by `aclose`.
    """

    def __init__(self, client: AsyncAgentClient, *, auth: Auth | None = None, settings: Settings | None = None) -> None:
        self._auth = auth
        self._settings = settings or Settings()
        status_feed = StatusFeed(client)
        self.streams = StreamKeeper(FanOut(client, self._settings), status_feed, self._settings)
        """The streams that are open now."""
        self._services = Services(
            client,
            self._settings,
            Limits(self._settings),
            Counts(),
            self.streams,
            status_feed,
            _openapi(),
            authenticates=auth is not None,
            tokens=auth if isinstance(auth, JWTAuth) else None,
        )
        self._router = Router(
            [
                *(Route(path, _Path(self, methods)) for path, methods in _by_path().items()),
                *(page_routes() if self._settings.page else ()),
            ],
            redirect_slashes=False,
            default=_no_such_path,
        )
        self._app: ASGIApp = self._route
        if self._settings.origins:
            self._app = CORSMiddleware(
                self._route,
                allow_origins=self._settings.origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"],
                allow_credentials=True,
                expose_headers=["Location", "Retry-After", *ui_routes.EXPOSED],
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000, "reason": "There are no WebSockets here"})

    def end_streams(self) -> None:
        """Tell the clients of all streams to come back, within two seconds, to whoever serves then."""
        self.streams.end_streams()

    async def aclose(self) -> None:
        """End all streams and what runs for them. The client stays open. May be called again."""
        await self.streams.aclose()

    async def _live(self, receive: Receive, send: Send) -> None:
        """The lifespan of an app that is not mounted."""
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            check_host(Request(scope), self._settings.hosts, open_to_all=self._auth is None)
        except ApiError as error:
            await to_response(error)(scope, receive, send)
            return
        await self._router(scope, receive, send)

    async def serve(self, methods: Mapping[str, Endpoint], request: Request) -> Response:
        """The answer of an endpoint, an error among them."""
        counts = self._services.counts
        counts.requests += 1
        try:
            endpoint = methods.get("GET" if request.method == "HEAD" else request.method)
            if endpoint is None:
                said = f"This path takes {', '.join(methods)}"
                raise ApiError(405, "method_not_allowed", said, headers={"Allow": ", ".join(methods)})
            grant = await self._admit(endpoint, request)
            return await endpoint.handler(Call(request, grant, self._services))
        except Disconnected:
            return Response(status_code=400)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer and no traceback
            told = from_exception(error)
            counts.failures += told.status >= 500
            return to_response(told)

    async def _admit(self, endpoint: Endpoint, request: Request) -> Grant:
        """Who the caller is, if they may use this endpoint at all. Raises `ApiError`."""
        if self._auth is None:
            check_peer(request)
        check_write(request, self._settings.origins, with_cookie=self._auth is not None and bool(request.cookies))
        grant = EVERYTHING if self._auth is None or endpoint.public else await self._authenticate(self._auth, request)
        if endpoint.action is not None and not grant.allows(endpoint.action):
            raise forbidden(f"This needs the action {endpoint.action}")
        if endpoint.is_command:
            self._services.limits.count_command(grant.subject)
        return grant

    async def _authenticate(self, auth: Auth, request: Request) -> Grant:
        ticket = request.query_params.get("ticket")
        if ticket is not None and request.method == "GET":
            return await self._services.redeem(ticket)
        found: Any = auth(request)
        if inspect.isawaitable(found):
            found = await found
        if found is None:
            raise unauthorized("Say who you are: Authorization: Bearer TOKEN")
        grant: Grant = found
        return grant


class _Path:
    """All methods of one path, as an ASGI app."""

    def __init__(self, gateway: Gateway, methods: Mapping[str, Endpoint]) -> None:
        self._gateway = gateway
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._gateway.serve(self._methods, Request(scope, receive, send))
        await response(scope, receive, send)


def _by_path() -> dict[str, dict[str, Endpoint]]:
    """Path → method → endpoint."""
    found: dict[str, dict[str, Endpoint]] = {}
    for each in ENDPOINTS:
        found.setdefault(each.path, {})[each.method] = each
    return found


async def _no_such_path(scope: Scope, receive: Receive, send: Send) -> None:
    await to_response(ApiError(404, "not_found", "There is nothing at this path"))(scope, receive, send)


@cache
def _openapi() -> bytes:
    return encode(document(ENDPOINTS, version("agentrq-gateway")))
