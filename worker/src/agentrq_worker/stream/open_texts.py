"""Remembers the texts of one session that are under way, so that a reader who joins in their middle can have them.

Owns what was published of each block so far, as it was published. Does not own where a block begins and ends (the
provider's parser), nor when it is published again (event_log.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from msgspec import Raw

from agentrq.wire.messages import LIVE_ONLY, TextDelta, ThinkingDelta
from agentrq_worker.providers.draft_message import DraftMessage

LARGEST: Final = 1 << 20
"""Characters of a block up to which it is remembered."""
MOST: Final = 64
"""Blocks that are remembered; more are begun only by agents that never end one."""
_JOIN_AT: Final = 512
"""Pieces of a block that are kept one by one."""
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class _OpenText:
    """One block, from its first piece on."""

    __slots__ = ("draft", "pieces", "size")

    def __init__(self, draft: DraftMessage) -> None:
        self.draft = draft
        """Its first delta."""
        self.pieces: list[Any] | None = []
        """Its texts so far; None where they are too long to be remembered."""
        self.size = 0
        """Characters that were joined."""

    def join(self) -> str:
        """All of it; its pieces are one from here on."""
        words = "".join([json.loads(bytes(each)) if isinstance(each, Raw) else each for each in self.pieces or ()])
        # Half a character, as an agent may print it, was published as a replacement character: it stays one.
        text = _SURROGATE.sub("\ufffd", words)
        self.size = len(text)
        self.pieces = [text] if self.size <= LARGEST else None
        return text


class OpenTexts:
    """The open blocks of one session. True while there are any."""

    __slots__ = ("_texts",)

    def __init__(self) -> None:
        self._texts: dict[str, _OpenText] = {}

    def __bool__(self) -> bool:
        return bool(self._texts)

    def begin(self, draft: DraftMessage) -> Callable[[Any], None]:
        """What takes the text of this delta and of those of its block that follow it at once."""
        content: Any = draft.content
        text = self._texts.get(content.block_id)
        if text is None:
            if len(self._texts) >= MOST:
                del self._texts[next(iter(self._texts))]
            text = self._texts[content.block_id] = _OpenText(draft)
        if text.pieces is not None and len(text.pieces) > _JOIN_AT:
            text.join()
        return forget if text.pieces is None else text.pieces.append

    def end(self, block_id: Any) -> None:
        """A block has ended; what is not the id of an open one is ignored."""
        self._texts.pop(block_id, None)

    def see(self, kind: str, content: Any) -> None:
        """A message that is kept: the whole of a block ends it, the end of a turn ends all."""
        if not self._texts:
            return
        if kind == "cost":
            self._texts.clear()
        else:
            self.end(getattr(content, "block_id", None))

    def saw(self, draft: DraftMessage) -> DraftMessage:
        """Like `see`, of what a redactor is given: what it makes of a whole text does not tell the block."""
        if draft.type not in LIVE_ONLY:
            self.see(draft.type, draft.content)
        return draft

    def drafts(self) -> list[DraftMessage]:
        """Each open block as one delta."""
        drafts = []
        for text in self._texts.values():
            words, first = text.join(), text.draft
            content: Any = first.content
            if words and text.pieces is not None and content.offset == 0:
                kind = ThinkingDelta if isinstance(content, ThinkingDelta) else TextDelta
                drafts.append(DraftMessage(first.type, kind(words, content.block_id, 0), first.parent_id))
        return drafts


def forget(_: Any) -> None:
    """Takes a text, and does not keep it."""
