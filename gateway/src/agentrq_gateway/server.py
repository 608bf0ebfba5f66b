"""Serves a gateway by uvicorn, in a process of its own. Owns its start and its orderly end; the app is app.py's."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from types import FrameType
from typing import Final

import uvicorn

from agentrq import AsyncAgentClient
from agentrq.connection import connect_async
from agentrq_gateway.app import Gateway
from agentrq_gateway.auth.jwt_auth import JWTAuth
from agentrq_gateway.server_settings import ServerSettings

log = logging.getLogger("agentrq.gateway")

END_S: Final = 10
"""How long requests under way have when the process is told to end, in seconds; streams end at once."""
COMMAND_CONNECTIONS: Final = 2
"""Connections for commands and pages; beside them one carries all subscriptions, and one waits for the feed."""
BACKLOG: Final = 4096


class _Server(uvicorn.Server):
    """uvicorn's server, which has the gateway end its streams when the process is told to end: else it waited."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._captured_signals.clear()  # the process ends with 0, not by the signal again
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._gateway.end_streams)


def bind(settings: ServerSettings) -> socket.socket:
    """The socket to listen on. Raises OSError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG, reuse_port=False)


async def serve(settings: ServerSettings, url: str, listener: socket.socket, auth: JWTAuth | None) -> None:
    """Serve until SIGTERM or SIGINT."""
    commands = connect_async(url, connections=COMMAND_CONNECTIONS)
    async with AsyncAgentClient(commands, connect_async(url, blocking=True), url=url) as client:
        gateway = Gateway(client, auth=auth, settings=settings)
        config = uvicorn.Config(
            gateway, log_level=logging.WARNING, access_log=False, backlog=BACKLOG, lifespan="off",
            timeout_graceful_shutdown=END_S, server_header=False, ws="none", log_config=None,
        )  # fmt: skip
        server = _Server(config, gateway)
        try:
            await server.serve(sockets=[listener])
        finally:
            await gateway.aclose()


def run(settings: ServerSettings, url: str, listener: socket.socket, auth: JWTAuth | None) -> None:
    """Run the server; returns when it has ended."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio.run(serve(settings, url, listener, auth))
