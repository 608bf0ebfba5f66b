"""What recovery reads from a stream with the given messages."""

from __future__ import annotations

from typing import Any

from agentrq.wire.codec import encode
from agentrq.wire.events import make_message
from agentrq.wire.messages import TYPE_OF
from agentrq_worker.ownership.interrupted_turn import read_interrupted_turn


async def read_back(*contents: Any, kept: Any = None) -> Any:
    """The interrupted turn of a session whose stream has these contents."""
    stream = [
        (f"1-{seq}".encode(), encode(make_message("s", f"m{seq}", TYPE_OF[type(content)], 0, content)))
        for seq, content in enumerate(contents, 1)
    ]

    async def read(end: str, count: int) -> Any:
        before = len(stream) if end == "+" else int(end.partition("-")[2]) - 1
        return stream[:before][::-1][:count]

    return await read_interrupted_turn(read, kept)
