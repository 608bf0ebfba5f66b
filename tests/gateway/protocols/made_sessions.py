"""Sessions made of recordings: each golden transcript as the events of a session with its prompt, statuses and end."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec

from agentrq import Event, Receipt, StatusEvent
from agentrq.wire.codec import encode
from agentrq.wire.events import MESSAGES
from tests.worker.recordings import TRANSCRIPTS

GOLDEN = sorted((TRANSCRIPTS / "golden").glob("*.messages.ndjson"))
SID = "made"


class MadeSession:
    """Makes events in order, as a worker of epoch 1 would write them."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._seq = itertools.count(1)
        self._piece = itertools.count(1)

    def status(self, status: str, **members: Any) -> None:
        self.events.append(StatusEvent(f"1-{next(self._seq)}", SID, status, 0, **members))

    def receipt(self, command_id: str, command: str, outcome: str = "applied", **members: Any) -> None:
        self.events.append(Receipt(f"1-{next(self._seq)}", SID, command_id, command, outcome, 0, **members))

    def message(self, kind: str, parent: str | None = None, **content: Any) -> str:
        """A kept message; its cursor."""
        cursor = f"1-{next(self._seq)}"
        self._add(kind, content, parent, cursor=cursor, id=cursor)
        return cursor

    def piece(self, kind: str, text: str, block: str, offset: int, abandoned: bool = False) -> None:
        """A live piece of a text or a thought."""
        content = {"text": text, "blockId": block, "offset": offset} | ({"abandoned": True} if abandoned else {})
        self._add(kind, content, None, id=f"1-d{next(self._piece)}")

    def begin(self, command_id: str = "first") -> None:
        """A session's start and its first prompt."""
        self.status("queued")
        self.status("starting")
        self.message("prompt", text="Do it", commandId=command_id)
        self.status("running")

    def end_turn(self, is_error: bool = False, **members: Any) -> None:
        figures: dict[str, Any] = {
            "totalCostUsd": 0.5,
            "durationMs": 1,
            "inputTokens": 2,
            "outputTokens": 3,
            "numTurns": 1,
        }
        self.message("cost", **figures, isError=is_error, **members)
        self.status("idle")

    def _add(self, kind: str, content: dict[str, Any], parent: str | None, **members: Any) -> None:
        value = {"sessionId": SID, "type": kind, "timestamp": 0, "content": content, **members}
        if parent is not None:
            value["parentId"] = parent
        message: Any = msgspec.json.decode(encode(value), type=MESSAGES[kind])
        self.events.append(message)


def from_recording(path: Path) -> list[list[Event]]:
    """The turns of a golden transcript, each as a session of its own."""
    made, turns = MadeSession(), []
    made.begin()
    for line in path.read_bytes().splitlines():
        value = msgspec.json.decode(line)
        kind, content, parent = value["type"], value["content"], value.get("parentId")
        if kind in ("text_delta", "thinking_delta"):
            made.piece(kind, content["text"], content["blockId"], content["offset"], content.get("abandoned", False))
            continue
        if kind == "prompt":
            continue
        made.message(kind, parent, **content)
        if kind in ("approval_request", "question"):
            made.status("waiting")
        elif kind == "approval_resolved":
            made.status("running")
        elif kind == "cost" and parent is None:
            made.status("idle")
            turns.append(made.events)
            made = MadeSession()
            made.begin()
    return turns
