"""The only encode and decode of what crosses Redis. Owns bytes ↔ structs; shapes live in messages.py and commands.py.

Readers are tolerant: unknown members are ignored, a content this library cannot read makes an `UnknownMessage`.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from agentrq.wire.events import MESSAGES, Event, Message, Receipt, StatusEvent, UnknownMessage
from agentrq.wire.messages import TYPES

encoder = msgspec.json.Encoder()


class Envelope(msgspec.Struct, rename="camel", gc=False):
    """A message whose content was not read. An object that is not one of these is no message."""

    session_id: str
    id: str
    type: str
    timestamp: int
    content: msgspec.Raw
    cursor: str | None = None
    parent_id: str | None = None


_READERS: dict[str, Any] = {
    name: (msgspec.json.Decoder(content).decode, MESSAGES[name]) for name, content in TYPES.items()
}
"""Message type → how its content is read, and the message's class."""
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
decode_envelope = msgspec.json.Decoder(Envelope).decode
_decode_envelopes = msgspec.json.Decoder(list[Envelope]).decode
_decode_status = msgspec.json.Decoder(StatusEvent).decode
_decode_receipt = msgspec.json.Decoder(Receipt).decode


def _decode_any(content: msgspec.Raw) -> dict[str, Any]:
    """Any JSON object. What agents print passes unread into content: numbers out of range, nesting without end."""
    try:
        return _decode_object(content)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        try:
            value = json.loads(bytes(content))
        except (ValueError, RecursionError):
            value = None
        return value if isinstance(value, dict) else {"undecodable": bytes(content)[:1000].decode("utf-8", "replace")}


def _open(envelope: Envelope) -> Message:
    kind: Any = UnknownMessage
    content: Any = None
    if envelope.type in _READERS:
        decode, known = _READERS[envelope.type]
        try:
            content, kind = decode(envelope.content), known
        except (msgspec.MsgspecError, ValueError, RecursionError):  # of a newer agentrq, or odd: hand on what is there
            pass
    if content is None:
        content = _decode_any(envelope.content)
    made: Message = kind(
        envelope.session_id, envelope.id, envelope.type, envelope.timestamp, content, envelope.cursor,
        envelope.parent_id,
    )  # fmt: skip
    return made


def decode_entry(field: bytes, value: bytes) -> Event | None:
    """The event of one stream entry (its only field and value); None for a field this library does not know."""
    if field == b"message":
        return _open(decode_envelope(value))
    if field == b"status":
        return _decode_status(value)
    if field == b"receipt":
        return _decode_receipt(value)
    return None


def decode_messages(payload: bytes) -> list[Message]:
    """A payload of the messages channel: a JSON array."""
    return [_open(envelope) for envelope in _decode_envelopes(payload)]


def decode_status_payload(payload: bytes) -> StatusEvent | Receipt:
    """A payload of the status channel: one status or receipt object."""
    return _decode_receipt(payload) if b'"commandId"' in payload else _decode_status(payload)


def encode(value: Any) -> bytes:
    """Any struct or JSON value → JSON; lone surrogates become U+FFFD (JSON in UTF-8 has no place for them)."""
    try:
        return encoder.encode(value)
    except UnicodeEncodeError:
        return encoder.encode(_without_surrogates(value))


_NO_CURSOR = len('{"cursor":"",')


def encode_without_cursor(event: StatusEvent) -> bytes:
    """The members of a status whose ``cursor`` is '': a script puts the cursor in front (shared.lua, with_cursor)."""
    return encode(event)[_NO_CURSOR:]


def _without_surrogates(value: Any) -> Any:
    value = value if isinstance(value, str | dict | list) else _to_builtins(value)
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value


def _to_builtins(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        named = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        pairs = {wire: getattr(value, field) for wire, field in named}
        return {wire: item for wire, item in pairs.items() if item is not msgspec.UNSET}
    return value
