"""Reads the settings of `agentrq deliver`: the endpoints, from TOML. Owns names, types and checks.

Secrets are named, not written: ``secret`` is the name of an environment variable.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from agentrq.errors import AgentRQError
from agentrq.wire.feed import FeedEntry

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PRINTED: Final = re.compile(r"[!-~]+")
_MARK: Final = "whsec_"
"""What a signing secret begins with."""


class InvalidEndpoint(AgentRQError, ValueError):
    """A setting of `agentrq deliver` is unknown, ill-typed or missing; the message names it."""


class Endpoint(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """``[endpoints.NAME]``: where entries of the feed are posted to, and which."""

    url: str
    """Where to: ``https://…``; ``http://…`` only with ``allow_private``."""
    secret: str
    """The environment variable that holds the signing secret, as ``whsec_`` and base64 of 24 to 64 bytes."""
    kinds: list[str] | None = None
    """Only entries of these kinds. Default: all."""
    statuses: list[str] | None = None
    """Only entries with one of these statuses; entries without a status are left out then."""
    tenants: list[str] | None = None
    """Only entries of these tenants."""
    metadata: dict[str, str] = {}
    """Only sessions whose metadata has all these texts. A session that was removed has none."""
    begin: str = "now"
    """Where a new endpoint begins: ``now``, or ``oldest``: at the oldest entry kept."""
    timeout_s: float = 15.0
    """Seconds for one attempt, from the connection to the answer."""
    give_up_s: float = 86_400.0
    """An entry that is older than this when an attempt fails goes to the dead letters."""
    allow_private: bool = False
    """Addresses of private networks and of this machine may be posted to."""
    parallel: int = 8
    """How many sessions' entries are under way at once."""

    def admits(self, entry: FeedEntry) -> bool:
        """Whether the entry is for this endpoint, its metadata apart."""
        return (
            (self.kinds is None or entry.kind in self.kinds)
            and (self.statuses is None or entry.status in self.statuses)
            and (self.tenants is None or entry.tenant in self.tenants)
        )


def load(path: str) -> dict[str, Endpoint]:
    """The endpoints of a TOML file by name. Raises `InvalidEndpoint`."""
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise InvalidEndpoint(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidEndpoint(f"{path}: {error}") from None
    if unknown := set(found) - {"endpoints"}:
        raise InvalidEndpoint(f"{path}: {min(unknown)}: unknown; use tables [endpoints.NAME]")
    tables = found.get("endpoints")
    if not isinstance(tables, dict) or not tables:
        raise InvalidEndpoint(f"{path}: no table [endpoints.NAME]")
    return {name: _endpoint(f"{path}: endpoints.{name}", name, table) for name, table in tables.items()}


def _endpoint(source: str, name: str, table: Any) -> Endpoint:
    if not _NAME.fullmatch(name):
        raise InvalidEndpoint(f"{source}: a name is 1 to 64 of A-Z a-z 0-9 _ -")
    try:
        endpoint = msgspec.convert(table, Endpoint)
    except msgspec.ValidationError as error:
        raise InvalidEndpoint(f"{source}: {error}") from None
    try:
        parts = urlsplit(endpoint.url)
        port = parts.port
    except ValueError:
        raise InvalidEndpoint(f"{source}.url: is not a URL") from None
    if parts.scheme not in (("https", "http") if endpoint.allow_private else ("https",)) or not parts.hostname:
        raise InvalidEndpoint(f"{source}.url: use https://HOST/… (http:// only with allow_private)")
    if (
        parts.username is not None
        or port == 0
        or not endpoint.url.isascii()
        or re.search(r"[\s\x00-\x1f]", endpoint.url)
    ):
        raise InvalidEndpoint(f"{source}.url: has a login, a blank or another character that no URL may have")
    if endpoint.begin not in ("now", "oldest"):
        raise InvalidEndpoint(f"{source}.begin: use now or oldest")
    for number in ("timeout_s", "give_up_s", "parallel"):
        if not 0 < getattr(endpoint, number) <= (64 if number == "parallel" else 1e9):
            raise InvalidEndpoint(f"{source}.{number}: is out of range")
    return endpoint


def read_secret(name: str, endpoint: Endpoint, environment: Mapping[str, str] = os.environ) -> bytes:
    """The signing secret of an endpoint. Raises `InvalidEndpoint`, which never holds the secret."""
    text = environment.get(endpoint.secret, "")
    try:
        key = base64.b64decode(text.removeprefix(_MARK), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(_MARK) or not 24 <= len(key) <= 64:
        wanted = "an environment variable with whsec_ and base64 of 24 to 64 bytes"
        raise InvalidEndpoint(f"endpoints.{name}.secret: {endpoint.secret} has to be {wanted}")
    return key
