"""Takes known secrets out of a session's messages, where pieces of a text are one text again.

Lines are redacted as they come (session/shell.py); this finds what a runner printed in pieces. Owns the texts under
way: a live piece is published without an end that the next piece could make a secret. Does not own the forms of a
secret (process/redact.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from msgspec import Raw

from agentrq.wire.codec import encode
from agentrq.wire.messages import TextDelta, ThinkingDelta
from agentrq_worker.process.redact import Redactor
from agentrq_worker.providers.draft_message import DraftMessage

_NOT_THE_RUNNERS: Final = frozenset({"prompt", "approval_resolved"})
"""Types of messages whose words are a client's."""
_MOST_TEXTS: Final = 64
"""Texts under way that are remembered; more are begun only by agents that never end one."""


class _Growing:
    """A text of which pieces have come."""

    def __init__(self, offset: int) -> None:
        self.next_offset = offset
        """Where the next piece stands in the text, as the provider counts."""
        self.published = offset
        """Where the next piece stands in what is published."""
        self.held = ""


class MessageRedactor:
    """Redacts the messages of one session."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._growing: dict[str, _Growing] = {}

    def content(self, kind: str, content: Any) -> Any:
        """The content of a message that is kept, as JSON; what a client wrote is left as it is."""
        if kind in _NOT_THE_RUNNERS:
            return content
        if kind == "cost":  # the end of a turn
            self._growing.clear()
        block_id = getattr(content, "block_id", None)
        if isinstance(block_id, str):
            self._growing.pop(block_id, None)
        return Raw(self._redactor.json(encode(content)))

    def drafts(self, drafts: Iterable[DraftMessage]) -> Iterator[DraftMessage]:
        """Returns the messages redacted; some live pieces may be held back."""
        for draft in drafts:
            content: Any = draft.content
            if not isinstance(content, TextDelta | ThinkingDelta):
                yield DraftMessage(draft.type, self.content(draft.type, content), draft.parent_id)
            elif (piece := self._piece(content)) is not None:
                yield DraftMessage(draft.type, piece, draft.parent_id)

    def text(self, text: str) -> str:
        """A text that is no message: the session's error."""
        return self._redactor.text(text)

    def _piece(self, delta: TextDelta | ThinkingDelta) -> TextDelta | ThinkingDelta | None:
        """The part of an unfinished text that may be published now; None if nothing may."""
        if delta.abandoned:
            begun = self._growing.pop(delta.block_id, None)
            return type(delta)("", delta.block_id, begun.published if begun else delta.offset, abandoned=True)
        given: Any = delta.text
        text: str = json.loads(bytes(given)) if isinstance(given, Raw) else given  # takes half a character, too
        growing = self._growing.get(delta.block_id)
        if growing is None or growing.next_offset != delta.offset:
            if len(self._growing) >= _MOST_TEXTS:
                self._growing.pop(next(iter(self._growing)))
            growing = self._growing[delta.block_id] = _Growing(delta.offset)
        growing.next_offset += len(text)
        data = (growing.held + text).encode("utf-8", "surrogatepass")
        settled = self._redactor.settled(data)
        growing.held = data[settled:].decode("utf-8", "surrogatepass")
        clean = self._redactor.line(data[:settled]).decode("utf-8", "surrogatepass")
        if not clean:
            return None
        offset, growing.published = growing.published, growing.published + len(clean)
        return type(delta)(text=clean, block_id=delta.block_id, offset=offset)
