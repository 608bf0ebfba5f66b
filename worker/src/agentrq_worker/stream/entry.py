"""Entries: events of one session that are written together, and what they cost in memory.

Owns the shape. Does not own where entries wait (buffer.py) nor what an event says (event_log.py).
"""

from __future__ import annotations

from typing import Any, Final

from agentrq.wire.owner_calls import Run

ENTRY_BYTES: Final = 300
"""What an entry takes in memory beside its JSON, about, in bytes."""
EVENT_BYTES: Final = 64
"""What each further event of a run takes beside its JSON, about, in bytes."""


class Entry(Run, array_like=True, gc=False):
    """One event, or a run of consecutive messages (or of deltas), written together.

    ``size``: the bytes of their JSON in all. ``fields`` go into the state with them. ``atomic_with_next``: written in
    one step with the next entry, or neither is.
    """

    size: int = 0
    fields: dict[str, Any] | None = None
    atomic_with_next: bool = False

    @property
    def last(self) -> int:
        """The last one's place."""
        return self.seq if self.kind == "d" else self.seq + len(self.jsons) - 1

    @property
    def cost(self) -> int:
        """Its share of memory, in bytes."""
        return self.size + ENTRY_BYTES + EVENT_BYTES * (len(self.jsons) - 1)
