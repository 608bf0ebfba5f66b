"""A little HTTP/1.1 server for GET and HEAD of a few fixed paths: metrics and health checks.

Owns the exchange, bounded in time and size. Does not own what is answered (metrics.py) nor the socket's address
(cli.py).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple, TypeAlias

REQUEST_S: Final = 5.0
MOST_REQUEST: Final = 16_384
PLAIN: Final = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """What a path answers."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = PLAIN


Routes: TypeAlias = Mapping[str, Callable[[], Awaitable[Answer]]]
"""What makes the answer of each path."""


async def _answer(request: bytes, routes: Routes) -> bytes:
    """The response to a request's head."""
    method, _, rest = request.partition(b"\r\n")[0].partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
    if path not in routes:
        answer = Answer(b"Not found\n", HTTPStatus.NOT_FOUND)
    elif method not in (b"GET", b"HEAD"):
        answer = Answer(b"Use GET\n", HTTPStatus.METHOD_NOT_ALLOWED)
    else:
        answer = await routes[path]()
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\nAllow: GET, HEAD\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else answer.body)


async def serve(bound: socket.socket, routes: Routes) -> None:
    """Answer requests that come by ``bound`` until cancelled."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                writer.write(await _answer(await reader.readuntil(b"\r\n\r\n"), routes))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the peer is gone, or does not speak HTTP
        finally:
            writer.close()

    server = await asyncio.start_server(answer, sock=bound, limit=MOST_REQUEST)
    async with server:
        await server.serve_forever()
