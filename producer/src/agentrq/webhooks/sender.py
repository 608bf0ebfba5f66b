"""Posts one message to one URL: to a checked address, without redirects, within its time.

Owns the connection. A name is resolved once an attempt, every address it has is checked, and the connection goes to
the one that was checked: a name that changes meanwhile leads nowhere else. Does not own attempts (delivery.py).
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from agentrq.webhooks.message import WebhookMessage, sign
from agentrq.webhooks.settings import Endpoint


class Failure(NamedTuple):
    """Why an attempt failed. ``refused``: the endpoint does not want this message; else it may be away."""

    reason: str
    refused: bool = False


def post(endpoint: Endpoint, secret: bytes, message: WebhookMessage) -> Failure | None:
    """One attempt; None: the endpoint has the message."""
    deadline = time.monotonic() + endpoint.timeout_s
    try:
        address = _checked_address(endpoint)
        connection = _connect(endpoint, address, deadline)
    except (OSError, ValueError) as error:
        return Failure(_words(error))
    # Its own time-out bounds each read: an endpoint that drips its answer is cut off by the watch.
    watch = threading.Timer(max(0.0, deadline - time.monotonic()), _cut, (connection,))
    watch.start()
    try:
        parts = urlsplit(endpoint.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, message.body, sign(secret, message, int(time.time())))
        status = connection.getresponse().status
        failure = None
    except (OSError, http.client.HTTPException, ValueError) as error:
        status, failure = 0, _words(error)
    finally:
        watch.cancel()
        connection.close()
    if time.monotonic() >= deadline:  # cut off by the watch, which may look like the end of an answer
        return Failure("no answer in time")
    if failure is not None:
        return Failure(failure)
    if 200 <= status < 300:
        return None
    return Failure(f"HTTP {status}", refused=status < 500 and status not in (408, 425, 429))


def _checked_address(endpoint: Endpoint) -> str:
    """An address of the endpoint's host. Raises OSError; ValueError where one of them is not public."""
    parts = urlsplit(endpoint.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    addresses = [str(each[4][0]) for each in found]
    for address in addresses:
        if not endpoint.allow_private and not is_public(address):
            raise ValueError(f"{parts.hostname} leads to {address}, which is not a public address")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an address is one of the public Internet, and no way around to one that is not."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _connect(endpoint: Endpoint, address: str, deadline: float) -> http.client.HTTPConnection:
    parts = urlsplit(endpoint.url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    left = max(0.001, deadline - time.monotonic())
    plain = socket.create_connection((address, port), left)
    try:
        connection = http.client.HTTPConnection(host, port, timeout=left)
        connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host) if secure else plain
    except BaseException:
        plain.close()
        raise
    return connection


def _cut(connection: http.client.HTTPConnection) -> None:
    with contextlib.suppress(OSError):
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
