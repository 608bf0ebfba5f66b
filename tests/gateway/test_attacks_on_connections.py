"""Attacks on the connections of a gateway process: bodies without an end, and bytes that are no request."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from agentrq import AgentClient
from tests.attacks import attack
from tests.gateway.gateway_process import running

pytestmark = pytest.mark.slow  # a gateway of its own for each
MIB = 1024 * 1024
HEAD = "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{more}\r\n"


@pytest.fixture
def address(redis_url: str) -> Iterator[str]:
    """A gateway that gives a body a second; it ends without a traceback."""
    with running(redis_url=redis_url, AGENTRQ_GATEWAY_BODY_TIMEOUT_S="1") as (_, address):
        yield address


def connect(address: str) -> socket.socket:
    url = httpx.URL(address)
    return socket.create_connection((url.host, url.port or 80), timeout=30)


def head(path: str, more: str) -> bytes:
    return HEAD.format(path=path, more=more).encode()


def answer(connection: socket.socket) -> bytes:
    """What comes back until the server closes, or has sent a whole JSON answer."""
    found = b""
    while b"}}" not in found and (piece := connection.recv(65536)):
        found += piece
    return found


def serves(address: str) -> bool:
    return httpx.get(f"{address}/healthz", timeout=30).status_code == 200


PATHS = ["/sessions", "/ui/chat", "/agui"]


@pytest.mark.parametrize("path", PATHS)
@attack("A body that says it is larger than allowed", "413 before it is sent")
def test_an_oversized_body_is_refused_before_it_comes(address: str, path: str) -> None:
    with connect(address) as connection:
        connection.sendall(head(path, f"Content-Length: {64 * MIB}\r\n"))
        assert b" 413 " in answer(connection).partition(b"\r\n")[0]
    assert serves(address)


@pytest.mark.parametrize("path", PATHS)
@attack("A body without an end", "413 once it is over the limit")
def test_an_endless_body_is_refused_at_the_limit(address: str, path: str) -> None:
    piece = b"%x\r\n%s\r\n" % (MIB, b" " * MIB)
    with connect(address) as connection:
        connection.sendall(head(path, "Transfer-Encoding: chunked\r\n"))
        try:
            for _ in range(64):
                connection.sendall(piece)
        except OSError:
            pass  # the server has closed, having said why
        else:
            raise AssertionError("64 MiB were taken")
    assert serves(address)


@pytest.mark.parametrize("path", PATHS)
@attack("A body that comes slower than allowed, or stops", "408 at the time limit")
def test_a_body_that_stops_is_not_waited_for(address: str, path: str) -> None:
    with connect(address) as connection:
        connection.sendall(head(path, "Content-Length: 100\r\n") + b'{"provider"')
        assert b" 408 " in answer(connection).partition(b"\r\n")[0]
    assert serves(address)


@attack("A client leaves in the middle of its request", "nothing is done, and nothing is left")
def test_half_a_request_does_nothing(address: str, redis_url: str) -> None:
    body = json.dumps({"provider": "demo", "prompt": "x"}).encode()
    for path in PATHS:
        with connect(address) as connection:
            connection.sendall(head(path, f"Content-Length: {len(body) + 1}\r\n") + body)
    with connect(address) as connection:
        connection.sendall(b"POST /sess")
    assert serves(address)
    with AgentClient.from_url(redis_url) as client:
        assert client.states() == []


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /sessions HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /ui HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /sessions HTTP/1.1\r\nHost: localhost\r\nX: a\r\n folded\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["tls", "version", "two-hosts", "two-lengths", "folded", "long"],
)
@attack("Bytes that are no request, or one that two servers may read differently", "an error or a closed connection")
def test_bytes_that_are_no_request_do_no_harm(address: str, raw: bytes) -> None:
    with connect(address) as connection, contextlib.suppress(OSError):  # the server may close before it has all
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    assert serves(address)


@pytest.mark.parametrize("mark", ["%0d%0aX-Injected:%20yes", "%0aX-Injected:%20yes", "%00", "%e2%80%a8"])
@attack("Line breaks in ids, cursors and parameters, to add headers or frames", "refused, or told escaped in JSON")
def test_no_header_comes_out_of_an_id(address: str, mark: str, redis_url: str) -> None:
    with AgentClient.from_url(redis_url) as client:
        client.start("demo", "x", "known")
    targets = [
        f"/sessions/x{mark}", f"/sessions/known/events?after=1-1{mark}", f"/sessions/known/stream?after=1-1{mark}",
        f"/stream?session=known@1-1{mark}", f"/sessions?x{mark}=b", f"/sessions?before=1.x{mark}",
        f"/ui/x{mark}/stream", f"/ui/known.1-1.p.x{mark}/stream?startIndex=1", f"/ui/known/x{mark}/stream",
        f"/ui/known/stream?startIndex=1{mark}", f"/agui/x{mark}/connect", f"/agui/known/connect?after=1-1{mark}",
    ]  # fmt: skip
    for target in targets:
        with connect(address) as connection:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            found = b""
            while piece := connection.recv(65536):
                found += piece
        status = found.partition(b"\r\n")[0]
        assert b" 4" in status, (target, found)
        headers = found.partition(b"\r\n\r\n")[0].lower()
        assert b"x-injected" not in headers, target
    assert serves(address)
