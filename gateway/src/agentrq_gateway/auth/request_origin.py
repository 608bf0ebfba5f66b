"""Where a request comes from: the host it names, the page that sent it, the machine it was sent from.

Owns the checks against DNS rebinding, cross-site writes and strangers on an open port. Who the caller is, is not here.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from starlette.requests import Request

from agentrq_gateway.errors import ApiError, forbidden
from agentrq_gateway.request_body import check_is_json

_SAFE: Final = ("GET", "HEAD", "OPTIONS")


def check_host(request: Request, hosts: list[str] | None, *, open_to_all: bool) -> None:
    """Raises `ApiError` 400 unless the `Host` header is an allowed one.

    ``hosts`` None: any where callers are known; where the gateway is ``open_to_all`` only names that no stranger's DNS
    can answer.
    """
    name = _host_name(request.headers.get("host", ""))
    if hosts is None:
        allowed = not open_to_all or _is_local_name(name)
    else:
        allowed = any(_matches(name, each.lower()) for each in hosts)
    if not allowed:
        raise ApiError(400, "host_not_allowed", "This gateway does not serve the host that the request names")


def _host_name(header: str) -> str:
    """The name of a `Host` header, without its port."""
    name = header.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".")


def _is_local_name(name: str) -> bool:
    if "." not in name and ":" not in name:
        return bool(name)
    return _is_loopback(name) or name.endswith(".localhost")


def _matches(name: str, allowed: str) -> bool:
    if allowed.startswith("*."):
        return name.endswith(allowed[1:])
    return allowed in ("*", name)


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def check_peer(request: Request) -> None:
    """Raises `ApiError` 403 for a request from another machine. A unix socket has no address, and passes."""
    peer = request.client
    if peer is not None and peer.host and not _is_loopback(peer.host) and peer.host != "testclient":
        raise forbidden("This gateway has no authentication: it serves its own machine only", "loopback_only")


def check_write(request: Request, origins: list[str], *, with_cookie: bool) -> None:
    """Raises `ApiError` 403 for a write that a page of another site sent in the name of a caller, 415 if not JSON.

    A caller who proves with a header who they are is not asked: no page can make a browser send that one.
    """
    if request.method in _SAFE or "authorization" in request.headers:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    own = site == "same-origin" or (site == "none" and not with_cookie)
    if (site is None and origin is None and not with_cookie) or own or (origin is not None and origin in origins):
        if with_cookie and request.method != "DELETE":
            check_is_json(request)
        return
    raise forbidden("A page of another origin may not write here", "cross_site")
