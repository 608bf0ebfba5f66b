"""The gateway in a Starlette app, closed with it. `/agents/…` is the gateway; the app says who a caller is.

Run: AGENTRQ_REDIS_URL=redis://… uvicorn --app-dir examples gateway_starlette:app
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from agentrq import AsyncAgentClient
from agentrq_gateway import Gateway, Grant

TENANTS = {"key-of-acme": "acme", "key-of-globex": "globex"}


async def find_grant(request: Request) -> Grant | None:
    tenant = TENANTS.get(request.headers.get("x-api-key", ""))
    return Grant(subject=tenant, tenant=tenant) if tenant is not None else None


async def hello(_: Request) -> JSONResponse:
    return JSONResponse({"agents": "/agents"})


client = AsyncAgentClient.from_url(os.environ["AGENTRQ_REDIS_URL"])
gateway = Gateway(client, auth=find_grant)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    yield
    await gateway.aclose()
    await client.aclose()


app = Starlette(routes=[Route("/", hello), Mount("/agents", gateway)], lifespan=lifespan)
