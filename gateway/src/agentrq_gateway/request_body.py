"""Reads the body of a request: bounded in size and time, JSON only, unknown members refused."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from agentrq_gateway.errors import ApiError

T = TypeVar("T")
_UNKNOWN: Final = re.compile(r"unknown field `([^`]*)`")
_MISSING: Final = re.compile(r"missing required field `([^`]*)`")
_PLACE: Final = re.compile(r" - at `\$\.?([^`]*)`")


class Disconnected(Exception):
    """The caller has left in the middle of a request: there is nobody to answer."""


async def read_body(request: Request, kind: type[T], most: int, timeout_s: float, *, required: bool = True) -> T:
    """The body as ``kind``. With ``required`` False an absent body counts as ``{}``.

    Raises `ApiError` 400 (not JSON), 408, 413, 415, 422 (naming the member), `Disconnected`.
    """
    raw = await read_bytes(request, most, timeout_s)
    if not raw and not required:
        return msgspec.convert({}, kind)
    check_is_json(request)
    return decode(raw, kind)


def check_is_json(request: Request) -> None:
    """Raises `ApiError` 415 unless the request says that its body is JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "not_json", "Send the body as Content-Type: application/json")


async def read_bytes(request: Request, most: int, timeout_s: float) -> bytes:
    """The body as bytes. Raises `ApiError` 408, 413, `Disconnected`."""
    too_large = ApiError(413, "too_large", f"The body is over {most} bytes", headers={"Connection": "close"})
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > most:
        raise too_large
    found = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for piece in request.stream():
                found += piece
                if len(found) > most:
                    raise too_large
    except TimeoutError:
        said = f"The body did not come within {timeout_s:g} s"
        raise ApiError(408, "too_slow", said, headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise Disconnected from None
    return bytes(found)


def decode(raw: bytes, kind: type[T]) -> T:
    """JSON bytes as ``kind``. Raises `ApiError` 400 for what is not JSON, 422 naming the member at fault."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        said = str(error)
        raise ApiError(422, "invalid", _PLACE.sub(_shown_place, said), field=_field(said)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, "malformed_json", f"The body is not valid JSON: {error}"[:200]) from None


def _shown_place(found: re.Match[str]) -> str:
    return f" (at {found[1]})" if found[1] else ""


def _field(said: str) -> str | None:
    """The member that a validation error of msgspec is about, dotted."""
    place = _PLACE.search(said)
    names: list[Any] = [place[1]] if place and place[1] else []
    member = _UNKNOWN.search(said) or _MISSING.search(said)
    if member:
        names.append(member[1])
    return ".".join(names) or None
