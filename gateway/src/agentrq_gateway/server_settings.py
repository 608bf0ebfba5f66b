"""The settings of `agentrq gateway`: those of the app, and where it listens, which Redis it serves, whose tokens count.

Owns what makes a server safe to start; the app's own settings are settings.py's.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Final

from agentrq_gateway.auth.jwt_auth import JWTAuth
from agentrq_gateway.settings import Algorithm, InvalidSetting, Settings

DEFAULT_PORT: Final = 8420


class ServerSettings(Settings, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """All settings of a gateway that is a process of its own."""

    redis_url: str | None = None
    """Redis or Valkey 7 or later, as a worker's. Default: `AGENTRQ_REDIS_URL`, else the private Valkey."""
    host: str = "127.0.0.1"
    """The address to listen on. Any but a loopback address needs a key."""
    port: int = DEFAULT_PORT
    """The port to listen on."""
    key_file: str | None = None
    """A file with the key by which tokens are checked: the secret of HS256 (at least 32 bytes), or a public key in PEM.
    A directory holds several, each named by its `kid`. Default: no authentication, on loopback only.
    """
    algorithm: Algorithm = "HS256"
    """The algorithm of the tokens. All but HS256 need `agentrq-gateway[keys]`."""
    audience: str | None = None
    """What `aud` of a token has to be."""
    issuer: str | None = None
    """What `iss` of a token has to be."""
    max_token_age_s: float = 900.0
    """How far ahead `exp` of a token may be."""

    def check_listens_safely(self) -> None:
        """Raises `InvalidSetting` where strangers could reach a gateway that asks nobody who they are."""
        if self.port > 65535:
            raise InvalidSetting(f"port: {self.port} is not a port, use 1 to 65535")
        if self.key_file is None and not is_loopback(self.host):
            raise InvalidSetting(
                f"host {self.host}: without a key the gateway serves loopback only; give --key-file, or leave --host"
            )

    def authentication(self) -> JWTAuth | None:
        """Whose tokens count; None without a key. Raises `InvalidSetting`."""
        if self.key_file is None:
            return None
        path = Path(self.key_file)
        try:
            found: dict[str, bytes] | bytes
            if path.is_dir():
                found = {each.stem: each.read_bytes().strip() for each in sorted(path.iterdir()) if each.is_file()}
            else:
                found = path.read_bytes().strip()
        except OSError as error:
            raise InvalidSetting(f"key_file {path}: {error.strerror}") from None
        try:
            return JWTAuth(
                found,
                algorithm=self.algorithm,
                audience=self.audience,
                issuer=self.issuer,
                max_age_s=self.max_token_age_s,
            )
        except ValueError as error:
            raise InvalidSetting(f"key_file {path}: {error}") from None


def is_loopback(host: str) -> bool:
    """Whether an address is reached from its own machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
