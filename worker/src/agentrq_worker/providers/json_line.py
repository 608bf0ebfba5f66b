"""Reads one line of an agent's output as typed data, where the parser's own decoder refused it.

Owns what is common to all providers: finding the objects of a line that holds other bytes too, the tolerant reading of
values, and the errors that name a bad line. Does not own what a line means (one module a provider), nor the cutting of
bytes into lines.

A parser decodes a line once, with `msgspec.Raw` for the payloads. `rescue` is only called when that failed, so it may
be slow, but never raises.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, cast

import msgspec
from msgspec import UNSET, Raw, UnsetType

from agentrq.wire.messages import Error

EXCERPT: int = 100
"""Characters of a bad line that its error message quotes."""

MOST_OBJECTS: int = 100
"""Objects that one line may hold: taking a line apart must not hold up other sessions."""

MAX_WHOLE: int = 2**53
"""Counters are cut here: the largest whole number that every JSON reader keeps exactly."""

ABSENT = Raw(b"")
"""The default of a member that is passed through: told from every JSON value by its length."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_NOISE = re.compile(
    "(?:[\ufeff\0-\x1a\x1c-\x20\x7f]"  # a byte order mark, control characters, blanks
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # a colour, a move of the cursor
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # a window title
    r"|\x1b[ -/]*[0-~])*"
)
"""What terminal libraries print beside lines. None of it can be part of JSON."""
_TYPE = re.compile(rb'"type"\s*:\s*"([^"\\]*)"')
_QUOTE = (ord('"'),)
_BRACKET = (ord("["),)
_first_byte = struct.Struct("B").unpack_from  # half the cost of a memoryview


class Unread(NamedTuple):
    """What is published in place of a line that cannot be read: type and content of a message."""

    type: str
    content: Error | Raw


class Pieces(NamedTuple):
    """A line that is to be read as several: its objects, without what stood around them.

    ``rest`` is what follows them and is not an object.
    """

    lines: list[bytes]
    rest: bytes = b""


class _Probe(msgspec.Struct):
    type: Raw = ABSENT


_probe = msgspec.json.Decoder(_Probe).decode
_any = msgspec.json.Decoder().decode


def rescue(
    line: bytes, decode: Callable[[bytes], Any], tags: Collection[str] | None
) -> tuple[bytes, Any] | Unread | Pieces | None:
    """Read a line that ``decode`` refused, or that is not UTF-8.

    Returns the line as it should have been with what it decodes to; or what to publish in its place: the object as
    it came when its type is not among ``tags``, an error ``malformed`` (a known type) or ``invalid_json`` (not a JSON
    object); or None for a blank line. Without ``tags`` (None) a line's type does not matter. `Pieces` where the line
    holds one object behind bytes that cannot be JSON, or several objects: they are to be read one after the other.
    """
    begun = line.lstrip()
    if not begun:
        return None
    if not begun.startswith(b"{"):  # at once: a program that is used wrongly prints many such lines
        return _behind_noise(line)
    clean = line
    try:
        try:
            str(line, "utf-8")
            probe = _probe(line)
        except (ValueError, RecursionError):  # bytes that are not UTF-8, a lone surrogate, or not JSON at all
            clean = _repair(line)
            probe = _probe(clean)
    except RecursionError:
        return malformed("line", "nested too deeply", line)
    except ValueError:
        return _several(line)
    tag = value(probe.type)
    if tags is not None and (not isinstance(tag, str) or tag not in tags):
        return unknown(clean)
    try:
        return clean, decode(clean)
    except (ValueError, RecursionError) as error:
        return malformed(tag if tags is not None else "line", str(error), line)


def _behind_noise(line: bytes) -> Pieces | Unread:
    """The object that a terminal's escape sequences, or text that a carriage return overwrites, stand before."""
    at = line.find(b"{")
    before = line[: max(at, 0)]
    overwritten = before.rfind(b"\r") + 1  # a progress bar
    if at < 0 or not _NOISE.fullmatch(before[overwritten:].decode("utf-8", "replace")):
        return not_an_object(line)
    return Pieces([line[at:]])


def _several(line: bytes) -> Pieces | Unread:
    """The objects of a line that is not one object; a line of more than `MOST_OBJECTS` is not taken apart."""
    text = line.decode("utf-8", "replace")
    found: list[bytes] = []
    at = len(text) - len(text.lstrip())
    while text.startswith("{", at) and len(found) <= MOST_OBJECTS:
        try:
            _, end = _first_object(text, at)
        except (ValueError, RecursionError):
            break
        found.append(text[at:end].encode())
        noise = _NOISE.match(text, end)
        at = noise.end() if noise is not None else end
    rest = text[at:].encode()
    whole = len(found) == 1 and not rest and found[0] == line.strip()  # it cannot be read by itself either
    return not_an_object(line) if not found or whole or len(found) > MOST_OBJECTS else Pieces(found, rest)


def first_type(line: bytes) -> str:
    """The first ``type`` of a line that cannot be read as JSON: what it was most likely; empty if it has none."""
    found = _TYPE.search(line)
    return "" if found is None else found[1].decode("utf-8", "replace")


def _repair(line: bytes) -> bytes:
    """The line's JSON as valid UTF-8: bytes and escapes that are not valid become U+FFFD. Raises ValueError."""
    found = json.loads(line.decode("utf-8", "replace"), parse_constant=_refuse)
    return _SURROGATE.sub("\ufffd", json.dumps(found, ensure_ascii=False, allow_nan=False)).encode()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_first_object = json.JSONDecoder(parse_constant=_refuse).raw_decode


def unknown(line: bytes) -> Unread:
    """The object as it came, for an unknown type."""
    return Unread("unknown", Raw(line.strip()))


def not_an_object(line: bytes) -> Unread:
    """The error of a line that is not a JSON object."""
    return _error("invalid_json", "Not a JSON object", line)


def malformed(tag: str, reason: str, line: bytes) -> Unread:
    """The error of an object of a known type whose members do not fit it."""
    return _error("malformed", f"Malformed {tag} ({reason})", line)


def _error(code: str, message: str, line: bytes) -> Unread:
    # Four bytes are the longest character: enough for the excerpt without decoding a line of megabytes.
    excerpt = line[: 4 * EXCERPT].decode("utf-8", "replace").removesuffix("\n")[:EXCERPT]
    return Unread("error", Error(message=f"{message}: {excerpt}", code=code, excerpt=excerpt))


def passed(raw: Raw) -> Any:
    """Passes a JSON value through: its bytes stand for the value in a wire struct (the only such cast)."""
    return cast(Any, raw)


def passed_or(raw: Raw, default: Any) -> Any:
    """The value as it came, or ``default`` where it is absent or null."""
    return default if len(raw) == 0 or (len(raw) == 4 and bytes(raw) == b"null") else cast(Any, raw)


def is_text(raw: Raw) -> bool:
    """True for a JSON string."""
    return len(raw) > 0 and _first_byte(raw) == _QUOTE


def text_or_unset(raw: Raw) -> Any:
    """The JSON string as it came; absent for anything else."""
    return raw if is_text(raw) else UNSET


def list_or_unset(raw: Raw) -> Any:
    """The JSON array as it came; absent for anything else."""
    return raw if len(raw) > 0 and _first_byte(raw) == _BRACKET else UNSET


def value(raw: Raw) -> Any:
    """The value decoded; None where it is absent, or holds a number beyond what can be decoded."""
    try:
        return _any(raw) if len(raw) else None
    except (ValueError, RecursionError):
        return None


def members(line: bytes | Raw) -> dict[str, Any]:
    """The object decoded whole; empty where it holds what cannot be decoded (numbers out of range)."""
    try:
        found = _any(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def mapping(found: Any) -> dict[str, Any]:
    """The object, or an empty one in place of anything else."""
    return found if isinstance(found, dict) else {}


def text(found: Any) -> str:
    """The string; empty for anything else."""
    return found if isinstance(found, str) else ""


def optional(found: Any) -> str | UnsetType:
    """The string; absent for anything else and for the empty string."""
    return text(found) or UNSET


def whole(found: Any) -> int:
    """A counter: the whole part of a number from 0 to 2^53; 0 for anything else."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        return 0
    return min(max(int(found), 0), MAX_WHOLE)


def amount(found: Any) -> float:
    """An amount of money: a number of at least 0; 0.0 for anything else."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        return 0.0
    return float(min(max(found, 0), MAX_WHOLE))
