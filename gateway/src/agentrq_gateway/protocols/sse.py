"""Server-sent events of the front ends' protocols: one frame, from a JSON object."""

from __future__ import annotations

from typing import Any, Final

from agentrq.wire.codec import encode

DONE: Final = b"data: [DONE]\n\n"
HEARTBEAT: Final = b":\n\n"


def to_frame(chunk: dict[str, Any], frame_id: str | None = None) -> bytes:
    """One frame. JSON has no raw line break, so nothing in it can end the frame; an id is one line of ASCII."""
    head = b"" if frame_id is None else b"id: " + frame_id.encode("ascii") + b"\n"
    return head + b"data: " + encode(chunk) + b"\n\n"
