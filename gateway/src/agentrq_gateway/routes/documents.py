"""What is told without a session: whether the gateway works, and its OpenAPI document."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from starlette.responses import Response

from agentrq_gateway.calls import Call, json_response
from agentrq_gateway.endpoints import Endpoint


async def show_health(call: Call) -> Response:
    """GET /healthz: this process serves."""
    return json_response({"status": "ok", "version": version("agentrq-gateway")})


async def show_readiness(call: Call) -> Response:
    """GET /readyz: Redis answers as well."""
    async with call.within_redis_timeout():
        await call.client.sessions(limit=1)
    return json_response({"status": "ready"})


async def show_openapi(call: Call) -> Response:
    """GET /openapi.json."""
    return Response(call.services.openapi, headers={"Cache-Control": "no-cache"}, media_type="application/json")


ENDPOINTS: Final = (
    Endpoint(
        "GET", "/healthz", show_health, None, "Whether this process serves", {200: "It does."}, public=True
    ),
    Endpoint(
        "GET", "/readyz", show_readiness, None, "Whether Redis answers as well",
        {200: "It does.", 503: "It does not."}, public=True,
    ),
    Endpoint(
        "GET", "/openapi.json", show_openapi, None, "This document", {200: "The document."}, public=True
    ),
)  # fmt: skip
