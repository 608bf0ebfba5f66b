"""A gateway in the test's own process, and an HTTP client that calls it without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from agentrq import AsyncAgentClient
from agentrq_gateway import Gateway


@pytest.fixture
async def gateway(client: AsyncAgentClient) -> AsyncIterator[Gateway]:
    """A gateway without authentication."""
    gateway = Gateway(client)
    yield gateway
    await gateway.aclose()


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it."""
    async with connect(gateway) as client:
        yield client


def connect(gateway: Gateway, **headers: str) -> httpx.AsyncClient:
    """An HTTP client of a gateway, which sends these headers with each request."""
    transport = httpx.ASGITransport(app=gateway, raise_app_exceptions=True)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers, timeout=60)


Connect = Callable[..., httpx.AsyncClient]
