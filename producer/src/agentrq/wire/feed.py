"""The feed: one record of what happens to all sessions. Owns its entries' shape and how they are read and written.

docs/reference/feed.md says what it is. Which event is told of belongs to those who write events: scripts and worker.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from agentrq.errors import InvalidOption
from agentrq.wire.codec import encode
from agentrq.wire.keys import Keys
from agentrq.wire.script_calls import ScriptCall, text

LONGEST_TEXT: Final = 100
"""Characters of a text in an entry; what an agent or a person wrote may be longer."""
_CONSUMER: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_PLACE: Final = re.compile(r"\$|\d{1,19}-\d{1,19}")


class FeedEntry(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True, kw_only=True):
    """What happened to one session. Members that its kind does not have are None."""

    id: str = ""
    """Its place in the feed: ``client.feed(after=…)`` goes on behind it."""
    kind: str
    """``started``, ``status``, ``waiting``, ``answered``, ``turn``, ``ended``, ``removed``; others may follow."""
    session_id: str
    """The session's id."""
    cursor: str = ""
    """The event that it tells of, in its session's stream."""
    time: int = 0
    """When it was written, in ms since the epoch."""
    provider: str | None = None
    """The session's provider."""
    tenant: str | None = None
    """The start option ``tenant``."""
    user: str | None = None
    """The start option ``user``."""
    project: str | None = None
    """The start option ``project``."""
    status: str | None = None
    """The status that the session entered."""
    reason: str | None = None
    """Why the session ended."""
    request_id: str | None = None
    """The request that waits, or was decided."""
    request: str | None = None
    """``approval`` or ``question``."""
    name: str | None = None
    """The tool that an approval is asked for."""
    decision: str | None = None
    """What was decided."""
    by: str | None = None
    """Who decided."""
    turn: str | None = None
    """How the turn ended: ``whole``, ``interrupted``, ``failed``, ``cut``."""
    model: str | None = None
    """The model that the agent reports."""
    basis: str | None = None
    """How its cost is known: ``reported`` by the agent, ``priced`` by its tokens, ``free``, or ``unknown``."""
    cost_nano_usd: int | None = None
    """What the turn cost, in billionths of a USD; None where that is unknown."""
    input_tokens: int | None = None
    """Input tokens of the turn."""
    output_tokens: int | None = None
    """Output tokens of the turn."""

    @property
    def cost_usd(self) -> float | None:
        """What the turn cost, in USD; None where that is unknown."""
        return None if self.cost_nano_usd is None else self.cost_nano_usd / 1e9


class FeedGap(NamedTuple):
    """Entries after ``after`` up to ``through`` were dropped before they were read (or before they were done)."""

    after: str
    through: str


def feed_members(kind: str, **members: Any) -> bytes:
    """What is a kind's own in an entry, as scripts take it: the last part of its JSON (feed.lua writes the first)."""
    shown = {name: _shortened(value) for name, value in members.items() if value is not None}
    return encode({"kind": kind} | shown)[1:]


def _shortened(value: Any) -> Any:
    return value[:LONGEST_TEXT] if isinstance(value, str) else value


def read_entry(entry_id: Any, value: bytes) -> FeedEntry:
    """The entry of one stream entry; one that cannot be read has the kind ``unknown``."""
    try:
        entry = _decode(value)
    except (msgspec.MsgspecError, UnicodeError):
        entry = FeedEntry(kind="unknown", session_id="")
    return msgspec.structs.replace(entry, id=text(entry_id))


_decode: Final = msgspec.json.Decoder(FeedEntry).decode


def check_consumer(name: str, value: object) -> str:
    """The name of a consumer or of one of its processes. Raises `InvalidOption`."""
    if not isinstance(value, str) or not _CONSUMER.fullmatch(value):
        raise InvalidOption(name, f"Expected 1 to 64 of A-Z a-z 0-9 . _ : -, got {value!r}"[:200])
    return value


def check_place(value: object) -> str:
    """A place in the feed: an entry's id, or ``$``: its end. Raises `InvalidOption`."""
    if not isinstance(value, str) or not _PLACE.fullmatch(value):
        raise InvalidOption("after", f"Expected the id of an entry of the feed, or $, got {value!r}"[:200])
    return value


def order(place: str) -> tuple[int, int]:
    """An id of the feed as numbers, which compare in the feed's order."""
    milliseconds, _, sequence = place.partition("-")
    return int(milliseconds), int(sequence)


class FeedPage(NamedTuple):
    """What one reading brought: what was missed before it, then entries; ``last``: the id of the feed's last entry."""

    gap: FeedGap | None
    last: str
    entries: list[FeedEntry]


def read_feed(
    keys: Keys, consumer: str, process: str, most: int, takeover_s: float, begin: str, done: Sequence[str]
) -> ScriptCall[FeedPage]:
    """The next entries for one process of a consumer, after the entries ``done``; ``begin`` as in read_feed.lua."""

    def read(answer: Any) -> FeedPage:
        after, through = text(answer[0]), text(answer[1])
        entries = [read_entry(answer[at], answer[at + 1]) for at in range(3, len(answer), 2)]
        return FeedPage(FeedGap(after, through) if through else None, text(answer[2]), entries)

    arguments = (consumer, process, most, int(takeover_s * 1000), begin, *done)
    return ScriptCall("read_feed", (keys.feed, keys.feed_trimmed), arguments, read)


def leave_feed(keys: Keys, consumer: str, process: str, forget_s: float, done: Sequence[str]) -> ScriptCall[bool]:
    """End a process of a consumer: ``done`` is acknowledged; names silent for ``forget_s`` are forgotten."""
    return ScriptCall("leave_feed", (keys.feed,), (consumer, process, int(forget_s * 1000), *done), bool)


def trim_feed(keys: Keys, most: int, oldest_ms: int, at_once: int) -> ScriptCall[int]:
    """Drop the feed's oldest entries, ``at_once`` at most: those over ``most``, those before ``oldest_ms``."""
    return ScriptCall("trim_feed", (keys.feed, keys.feed_trimmed), (most, oldest_ms, at_once), int)
