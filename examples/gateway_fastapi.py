"""The gateway in a FastAPI app: `/agents/…` is the gateway, and the app says who a caller is, by their API key.

Run: AGENTRQ_REDIS_URL=redis://… uvicorn --app-dir examples gateway_fastapi:app
"""

import os

from fastapi import FastAPI
from starlette.requests import Request

from agentrq import AsyncAgentClient
from agentrq_gateway import Gateway, Grant

TENANTS = {"key-of-acme": "acme", "key-of-globex": "globex"}


def find_grant(request: Request) -> Grant | None:
    tenant = TENANTS.get(request.headers.get("x-api-key", ""))
    return Grant(subject=tenant, tenant=tenant) if tenant is not None else None


app = FastAPI()
app.mount("/agents", Gateway(AsyncAgentClient.from_url(os.environ["AGENTRQ_REDIS_URL"]), auth=find_grant))


@app.get("/")
async def hello() -> dict[str, str]:
    return {"agents": "/agents"}
