"""The gateway's settings: one frozen struct, from a TOML file, `AGENTRQ_GATEWAY_*` and options, later ones winning.

Owns names, types, defaults and what cannot work together. Reads no other file than that one and the key's.
"""

from __future__ import annotations

import tomllib
import types
import typing
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeVar

import msgspec

from agentrq import AgentRQError

MIB: Final = 1024 * 1024
Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]


class InvalidSetting(AgentRQError, ValueError):
    """A setting is unknown or has the wrong type or range; the message names it and where it came from."""


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """All settings. Sizes are in bytes, times in seconds."""

    hosts: list[str] | None = None
    """The `Host` names that are served; `*` is any, `*.example.com` any below it. Default: any with authentication;
    without it loopback addresses and names without a dot, which no stranger's DNS can answer.
    """
    origins: list[str] = []
    """Origins (`https://app.example.com`) whose pages may use the gateway from a browser (CORS), writes with a cookie
    among them.
    """
    page: bool = True
    """Serve the page at `/`, where the distribution agentrq-page is installed."""
    max_streams: int = 10_000
    """Streams open at once in this process."""
    max_streams_per_caller: int = 64
    """Streams open at once of one caller."""
    commands_per_minute: int = 60
    """Starts, prompts, answers and other writes of one caller in a minute; a minute's worth may come at once."""
    max_body: int = 8 * MIB
    """The largest body of a request."""
    body_timeout_s: float = 30.0
    """How long a caller may take to send a body."""
    redis_timeout_s: float = 2.0
    """How long a request waits for Redis before it is answered with 503."""
    max_wait_s: float = 60.0
    """The longest `?wait=`."""
    heartbeat_s: float = 15.0
    """The time between two comments on a stream."""
    stalled_s: float = 20.0
    """A client that takes nothing for so long is disconnected."""
    max_stream_s: float = 1800.0
    """A stream is closed after about so long (10 % more or less), and the client comes back."""
    max_unsent: int = 256 * 1024
    """Bytes that a client may be behind before it is served from Redis by its own cursor; also what is kept of a
    session in memory, for all its clients together.
    """
    max_buffered: int = 512 * MIB
    """What is kept of all sessions together: with many of them, less is kept of each."""
    max_sessions_per_stream: int = 256
    """Sessions of one stream of several."""


VARIABLE_PREFIX: Final = "AGENTRQ_GATEWAY_"


S = TypeVar("S", bound=Settings)


def load(kind: type[S], config: str | None, environment: Mapping[str, str], options: Mapping[str, Any]) -> S:
    """Read the TOML file ``config`` (optional), then ``AGENTRQ_GATEWAY_*``, then options (None: not given).

    Raises `InvalidSetting`: one line that names the setting and its source.
    """
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    if config is not None:
        for name, value in _read_toml(config).items():
            values[name] = _checked(hints, name, value, f"{config}: {name}", strict=True)
    for name in hints:
        variable = VARIABLE_PREFIX + name.upper()
        if environment.get(variable):
            values[name] = _checked(hints, name, environment[variable], variable, strict=False)
    for name, value in options.items():
        if value is not None and value != ():
            values[name] = _checked(hints, name, value, "--" + name.replace("_", "-"), strict=False)
    return kind(**values)


def _read_toml(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise InvalidSetting(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"{path}: {error}") from None


def _checked(hints: dict[str, Any], name: str, value: Any, source: str, *, strict: bool) -> Any:
    if name not in hints:
        raise InvalidSetting(f"{source}: unknown setting; settings are {', '.join(hints)}")
    if not strict and is_list(hints[name]) and isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        value = msgspec.convert(list(value) if isinstance(value, tuple) else value, hints[name], strict=strict)
    except msgspec.ValidationError as error:
        raise InvalidSetting(f"{source}: {error}") from None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and not 0 < value < 2**53:
        raise InvalidSetting(f"{source}: {value} is out of range, use a number above 0")
    return value


def is_list(hint: Any) -> bool:
    """Whether a setting holds several texts."""
    return any(typing.get_origin(part) is list for part in (hint, *typing.get_args(hint)))


def kind_of(hint: Any) -> type:
    """The plain type of a setting, for command-line options: str, int, float or bool."""
    kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType] or [hint]
    found: Any = kinds[0]
    return found if found in (str, int, float, bool) else str
