"""Events as the bytes that crossed Redis, for programs that pass them on: only what tells their place is read.

Owns `RawEvent` and how one is read from a stream entry or a payload. Whole events are codec.py's.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from agentrq.wire.codec import decode_entry, decode_envelope, decode_status_payload, encode
from agentrq.wire.events import Event, Message, Receipt


class RawEvent(msgspec.Struct, frozen=True, gc=False):
    """One event, not decoded: ``json`` is the object as its writer encoded it (UTF-8).

    ``kind``: ``message``, ``status``, ``receipt``, or ``delta`` for a message that is live only. ``cursor``: its place;
    None for a delta. ``type``: a message's type, '' otherwise.
    """

    kind: Literal["message", "status", "receipt", "delta"]
    cursor: str | None
    type: str
    json: bytes

    def decode(self) -> Event:
        """The whole event."""
        event = decode_entry(b"message" if self.kind == "delta" else self.kind.encode(), self.json)
        assert event is not None  # each kind names a field of the stream
        return event


_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode


def raw_entry(field: bytes, value: bytes) -> RawEvent | None:
    """Like `agentrq.wire.codec.decode_entry`."""
    if field == b"message":
        return _raw_message(value)
    return raw_status_payload(value) if field in (b"status", b"receipt") else None


def raw_messages(payload: bytes) -> list[RawEvent]:
    """Like `agentrq.wire.codec.decode_messages`."""
    return [_raw_message(raw) for raw in _decode_raws(payload)]


def raw_status_payload(payload: bytes) -> RawEvent:
    """Like `agentrq.wire.codec.decode_status_payload`."""
    event = decode_status_payload(payload)
    return RawEvent("receipt" if isinstance(event, Receipt) else "status", event.cursor, "", payload)


def raw_of(message: Message) -> RawEvent:
    """A message made here, encoded."""
    return _raw_message(encode(message))


def _raw_message(value: bytes | msgspec.Raw) -> RawEvent:
    envelope = decode_envelope(value)
    return RawEvent("delta" if envelope.cursor is None else "message", envelope.cursor, envelope.type, bytes(value))
