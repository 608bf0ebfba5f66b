"""Who the caller is, and what they are given to prove it elsewhere: narrower tokens, tickets, the cookie.

Owns these handlers and the cookie's attributes. Which tokens count is jwt_auth.py's; the gateway keeps no list of them.
"""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec
from starlette.responses import Response

from agentrq_gateway.auth.grant import Grant, narrowed
from agentrq_gateway.auth.jwt_auth import COOKIE, JWTAuth
from agentrq_gateway.calls import Call, json_response
from agentrq_gateway.endpoints import Endpoint
from agentrq_gateway.errors import ApiError, forbidden, unauthorized

DEFAULT_LIFETIME_S: Final = 900.0


class Narrower(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """The body of a request for a token: what it may do less than the caller. What is absent stays as it is."""

    subject: str | None = None
    tenant: str | None = None
    sessions: list[str] | None = None
    actions: list[str] | None = None
    providers: list[str] | None = None
    cwd_prefix: str | None = None
    expires_in: float | None = None
    """Seconds; at most what is left of the caller's own token."""

    def of(self, grant: Grant) -> Grant:
        """What is left of a grant. Raises `ApiError` 403, 422."""
        wanted = msgspec.structs.asdict(self)
        wanted.pop("expires_in")
        try:
            return narrowed(grant, **wanted)
        except ValueError as error:
            name, _, said = str(error).partition(": ")
            field = {"cwd_prefix": "cwdPrefix"}.get(name, name)
            raise forbidden(f"{field}: {said}", "not_narrower", field) from None


class CookieRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """The body of a request for the cookie: a ticket, where the caller has nothing else."""

    ticket: str | None = None


def _auth(call: Call) -> JWTAuth:
    auth = call.services.tokens
    if auth is None:
        raise ApiError(404, "no_tokens", "This gateway knows its callers by other means than tokens")
    return auth


async def make_token(call: Call) -> Response:
    """POST /tokens."""
    auth, body = _auth(call), await call.body(Narrower, required=False)
    lifetime = DEFAULT_LIFETIME_S if body.expires_in is None else body.expires_in
    if not 0 < lifetime <= auth.max_age_s:
        raise ApiError(422, "invalid", f"expiresIn: use 1 to {auth.max_age_s:g} seconds", field="expiresIn")
    token, expires = auth.sign(body.of(call.grant), lifetime)
    return json_response({"token": token, "expires": int(expires * 1000)}, 201)


async def make_ticket(call: Call) -> Response:
    """POST /tickets."""
    auth, body = _auth(call), await call.body(Narrower, required=False)
    ticket, expires = auth.sign_ticket(body.of(call.grant))
    return json_response({"ticket": ticket, "expires": int(expires * 1000)}, 201)


async def set_cookie(call: Call) -> Response:
    """POST /cookie."""
    auth, body = _auth(call), await call.body(CookieRequest, required=False)
    if body.ticket is not None:
        grant = await call.services.redeem(body.ticket)
        token, expires = auth.sign(grant, auth.max_age_s, until=grant.expires_at)
    else:
        present = auth.token_of(call.request)
        if present is None:
            raise unauthorized("Send a token (Authorization: Bearer), a ticket, or the cookie that is to be renewed")
        token, expires = _renewed(auth, present)
    response = json_response({"expires": int(expires * 1000)})
    response.set_cookie(
        COOKIE, token, max_age=max(0, int(expires - time.time())), path=_path(call), secure=True, httponly=True,
        samesite="strict",
    )  # fmt: skip
    return response


def _renewed(auth: JWTAuth, present: str) -> tuple[str, float]:
    """The token that the cookie is to hold: a new one as long as `until` lasts, else the present one."""
    claims = auth.claims(present)
    until = claims.get("until")
    if not isinstance(until, int | float) or until <= claims["exp"]:
        return present, claims["exp"]
    return auth.sign(auth.read(present, until=until), auth.max_age_s, until=until)


async def clear_cookie(call: Call) -> Response:
    """DELETE /cookie."""
    response = Response(status_code=204, headers={"Cache-Control": "no-store"})
    response.delete_cookie(COOKIE, path=_path(call), secure=True, httponly=True, samesite="strict")
    return response


def _path(call: Call) -> str:
    """The part of the host's paths that the cookie is sent to: the gateway's own."""
    return call.request.scope.get("root_path") or "/"


async def show_caller(call: Call) -> Response:
    """GET /whoami."""
    grant = call.grant
    told: dict[str, Any] = {
        "subject": grant.subject,
        "tenant": grant.tenant,
        "sessions": grant.sessions if isinstance(grant.sessions, str) else sorted(grant.sessions),
        "actions": sorted(grant.actions),
        "providers": None if grant.providers is None else sorted(grant.providers),
        "cwdPrefix": grant.cwd_prefix,
        "expires": None if grant.expires_at is None else int(grant.expires_at * 1000),
        "auth": call.services.authenticates,
    }
    return json_response({name: value for name, value in told.items() if value is not None})


ENDPOINTS: Final = (
    Endpoint("GET", "/whoami", show_caller, None, "Who you are, and what you may do", {200: "Your grant."}),
    Endpoint(
        "POST", "/tokens", make_token, None, "A narrower token than your own", {201: "`token` and `expires` (ms)."},
        body=Narrower, is_command=True,
    ),
    Endpoint(
        "POST", "/tickets", make_ticket, None, "A ticket: one request by `?ticket=`, within 30 s, without a header",
        {201: "`ticket` and `expires` (ms)."}, body=Narrower, is_command=True,
    ),
    Endpoint(
        "POST", "/cookie", set_cookie, None, "Keep your token in a cookie that no script reads, or renew it",
        {200: "`expires` (ms), and the cookie."}, body=CookieRequest, public=True,
    ),
    Endpoint("DELETE", "/cookie", clear_cookie, None, "Forget the cookie", {204: "It is."}, public=True),
)  # fmt: skip
