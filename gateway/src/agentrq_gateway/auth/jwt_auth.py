"""Tokens: `JWTAuth` reads a caller's grant from a JSON Web Token (RFC 7519), and signs narrower ones.

Owns which tokens count, and the claims that carry a grant: ``sub``, ``tenant``, ``sessions``, ``actions``,
``providers``, ``cwd_prefix``. Where a token stands in a request (header or cookie) is here too. Keeps no state.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

import jwt
from starlette.requests import Request

from agentrq_gateway.auth.grant import USUAL, Grant
from agentrq_gateway.errors import ApiError, unauthorized
from agentrq_gateway.settings import Algorithm

COOKIE: Final = "agentrq_token"
LEEWAY_S: Final = 5
"""How far the clocks of who signs and who checks may be apart, in seconds."""
LEAST_SECRET: Final = 32
"""Bytes that a secret of HS256 has at least."""
TICKET_S: Final = 30.0
"""How long a ticket may wait for its use, in seconds."""
_SECRETS: Final = ("HS256",)
TICKET: Final = "ticket"
"""The claim ``use`` of a ticket, which is no token."""


class JWTAuth:
    """An ``auth`` for `Gateway`: the grant of the token in ``Authorization: Bearer``, or in the gateway's cookie.

    ``keys``: the secret of HS256 (at least 32 bytes), or a public key as PEM; or several by their ``kid``, for
    rotation: then every token has to name one. ``audience``, ``issuer``: what ``aud`` and ``iss`` have to be.
    ``max_age_s``: how far ahead ``exp`` may be at most. Raises ValueError for keys that cannot work.
    """

    def __init__(
        self,
        keys: str | bytes | Mapping[str, str | bytes],
        *,
        algorithm: Algorithm = "HS256",
        audience: str | None = None,
        issuer: str | None = None,
        max_age_s: float = 900.0,
    ) -> None:
        self._keys: dict[str | None, str | bytes] = {}
        if isinstance(keys, Mapping):
            self._keys.update(keys)
        else:
            self._keys[None] = keys
        self._algorithm = algorithm
        self._audience = audience
        self._issuer = issuer
        self.max_age_s = max_age_s
        if not self._keys:
            raise ValueError("keys: at least one is needed")
        for name, key in self._keys.items():
            self._check_key("the key" if name is None else f"the key {name}", key)

    def _check_key(self, name: str, key: str | bytes) -> None:
        raw = key.encode() if isinstance(key, str) else key
        if self.signs and len(raw) < LEAST_SECRET:
            raise ValueError(f"{name} has {len(raw)} bytes: HS256 needs at least {LEAST_SECRET}")
        try:
            jwt.get_algorithm_by_name(self._algorithm).prepare_key(key)
        except NotImplementedError:
            raise ValueError(f"{self._algorithm} needs the extra: pip install 'agentrq-gateway[keys]'") from None
        except (jwt.InvalidKeyError, ValueError, TypeError) as error:
            raise ValueError(f"{name} is not one of {self._algorithm}: {error}") from None

    @property
    def signs(self) -> bool:
        """Whether it can sign tokens itself: its key is a secret, not a public key."""
        return self._algorithm in _SECRETS

    def __call__(self, request: Request) -> Grant | None:
        """The grant of a request; None where it has no token. Raises `ApiError` 401 for one that does not count."""
        token = self.token_of(request)
        return None if token is None else self.read(token)

    @staticmethod
    def token_of(request: Request) -> str | None:
        """The token of a request: of the header, else of the cookie."""
        header = request.headers.get("authorization")
        if header is None:
            return request.cookies.get(COOKIE)
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise unauthorized("Authorization: expected Bearer and a token")
        return token.strip()

    def read(self, token: str, *, until: float | None = None) -> Grant:
        """The grant that a token carries, up to ``until`` instead of its ``exp``. Raises `ApiError` 401."""
        claims = self.claims(token)
        return _grant(claims, claims["exp"] if until is None else until)

    def read_ticket(self, ticket: str) -> tuple[str, Grant]:
        """The id and the grant of a ticket; whether it was used already is not known here. Raises `ApiError` 401."""
        claims = self.claims(ticket, ticket=True)
        if not isinstance(claims.get("jti"), str):
            raise unauthorized("The ticket does not count", "invalid_token")
        return claims["jti"], _grant(claims, claims.get("until"))

    def claims(self, token: str, *, ticket: bool = False) -> dict[str, Any]:
        """The claims of a token that counts. Raises `ApiError` 401."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key_of(token),
                algorithms=[self._algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise unauthorized("The token has expired", "token_expired") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise unauthorized("The token does not count", "invalid_token") from None
        if claims["exp"] > time.time() + self.max_age_s + LEEWAY_S:
            raise unauthorized(f"The token lives longer than {self.max_age_s:g} s", "invalid_token")
        if (claims.get("use") == TICKET) != ticket:
            raise unauthorized("A ticket is no token, and a token no ticket", "invalid_token")
        return claims

    def _key_of(self, token: str) -> str | bytes:
        if None in self._keys:
            return self._keys[None]
        kid = jwt.get_unverified_header(token).get("kid")
        if not isinstance(kid, str) or kid not in self._keys:
            raise jwt.InvalidTokenError("no such key")
        return self._keys[kid]

    def sign(self, grant: Grant, lifetime_s: float, *, until: float | None = None) -> tuple[str, float]:
        """A token for a grant, and when it expires (seconds since the epoch): after ``lifetime_s``, or earlier.

        It never outlives the grant. ``until``: a cookie with it may be renewed up to then. Raises `ApiError` 403 where
        no key can sign.
        """
        now = time.time()
        latest = now + self.max_age_s if grant.expires_at is None else grant.expires_at
        expires = int(min(now + lifetime_s, now + self.max_age_s, latest))
        return self._encode(grant, {"exp": expires, "until": None if until is None else int(until)}), expires

    def sign_ticket(self, grant: Grant, lifetime_s: float = TICKET_S) -> tuple[str, float]:
        """A ticket for a grant, and when it expires. What it is used for lasts as long as the grant."""
        now = time.time()
        until = now + self.max_age_s if grant.expires_at is None else grant.expires_at
        expires = int(min(now + lifetime_s, until))
        return self._encode(grant, {"exp": expires, "until": int(until), "use": TICKET}), expires

    def _encode(self, grant: Grant, claims: dict[str, Any]) -> str:
        if not self.signs:
            raise ApiError(403, "cannot_sign", "This gateway has a public key only: it signs no tokens")
        claims |= {
            "sub": grant.subject,
            "iat": int(time.time()),
            "jti": secrets.token_urlsafe(16),
            "tenant": grant.tenant,
            "sessions": grant.sessions if isinstance(grant.sessions, str) else sorted(grant.sessions),
            "actions": sorted(grant.actions),
            "providers": None if grant.providers is None else sorted(grant.providers),
            "cwd_prefix": grant.cwd_prefix,
            "aud": self._audience,
            "iss": self._issuer,
        }
        kid = next(reversed(self._keys))  # the newest of them
        headers = None if kid is None else {"kid": kid}
        present = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(present, self._keys[kid], self._algorithm, headers)


def _grant(claims: dict[str, Any], expires_at: Any) -> Grant:
    """The grant that some claims make. Raises `ApiError` 401."""
    try:
        return Grant(
            claims["sub"],
            claims.get("tenant"),
            claims.get("sessions", "*"),
            claims.get("actions", USUAL),
            claims.get("providers"),
            claims.get("cwd_prefix"),
            float(expires_at),
        )
    except (KeyError, ValueError, TypeError):
        raise unauthorized("The token's claims do not make a grant", "invalid_token") from None
