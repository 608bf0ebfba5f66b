"""Reads the feed for one reader or one process of a consumer: as plain operations, which both clients run.

Owns the place, what is done and what is missed. Does not own the waiting (the clients), nor the entries' shape
(agentrq.wire.feed).
"""

from __future__ import annotations

import os
import secrets
import socket
from typing import Final

from agentrq.client.redis_requests import Batch, Context, Operation, Wait, run_script
from agentrq.errors import InvalidOption
from agentrq.wire import feed
from agentrq.wire.feed import FeedEntry, FeedGap
from agentrq.wire.script_calls import text

PAGE: Final = 100
"""Entries that one reading brings; as many may come again after a process of a consumer was killed."""
WAIT_S: Final = 3.0
"""One wait for a new entry; then entries of dead processes are looked for."""
FORGET_S: Final = 86_400.0
"""Names of a consumer's processes that were silent for so long and have no entries are forgotten."""
_START: Final = "0-0"


class FeedReader:
    """A reader of the feed. Without a ``consumer`` its place is its own, and begins behind ``after``.

    Raises `InvalidOption`.
    """

    def __init__(
        self, context: Context, consumer: str | None, after: str | None, process: str | None, takeover_s: float
    ) -> None:
        if consumer is None and process is not None:
            raise InvalidOption("process", "Only a consumer has processes: give its name")
        if not 0.001 <= takeover_s < 1e9:
            raise InvalidOption("takeover_s", f"Expected seconds above 0, got {takeover_s!r}"[:200])
        self._keys = context.keys
        self._consumer = None if consumer is None else feed.check_consumer("consumer", consumer)
        self._process = feed.check_consumer("process", process or _name_of_this_process())
        self._takeover_s = takeover_s
        self._after = "" if after is None else feed.check_place(after)
        self._seen = _START
        self._done: list[str] = []

    @property
    def place(self) -> str:
        """Without a consumer: the id behind which it reads on; '' before the first reading."""
        return self._after

    def done(self, entry: FeedEntry | FeedGap) -> None:
        """Note that an entry need not come again."""
        if isinstance(entry, FeedEntry) and self._consumer is not None:
            self._done.append(entry.id)

    def read(self) -> Operation[list[FeedEntry | FeedGap]]:
        """What comes next, at most `PAGE` entries; [] where there is nothing new."""
        if self._consumer is None:
            return (yield from self._read_alone())
        done = list(self._done)
        page = yield from run_script(feed.read_feed(
            self._keys, self._consumer, self._process, PAGE, self._takeover_s, self._after, done
        ))  # fmt: skip
        del self._done[: len(done)]
        self._seen = page.last
        return [*([page.gap] if page.gap is not None else []), *page.entries]

    def _read_alone(self) -> Operation[list[FeedEntry | FeedGap]]:
        if self._after in ("", "$"):
            newest, trimmed = yield Batch(
                [("XREVRANGE", self._keys.feed, "+", "-", "COUNT", 1), ("GET", self._keys.feed_trimmed)], atomic=True
            )
            place = text(trimmed or _START)
            if self._after == "$" and newest:
                place = text(newest[0][0])
            self._after = place
        entries, trimmed = yield Batch(
            [("XRANGE", self._keys.feed, f"({self._after}", "+", "COUNT", PAGE), ("GET", self._keys.feed_trimmed)],
            atomic=True,
        )
        found: list[FeedEntry | FeedGap] = []
        dropped = text(trimmed or _START)
        if feed.order(self._after) < feed.order(dropped):
            found.append(FeedGap(self._after, dropped))
            self._after = dropped
        for entry_id, fields in entries:
            found.append(feed.read_entry(entry_id, next(iter(fields.values()), b"")))
            self._after = text(entry_id)
        self._seen = self._after
        return found

    def wait(self) -> Operation[None]:
        """Return when there is something new, or after `WAIT_S`."""
        command = ("XREAD", "COUNT", 1, "BLOCK", int(WAIT_S * 1000), "STREAMS", self._keys.feed, self._seen)
        yield Wait(command, WAIT_S)

    def close(self) -> Operation[None]:
        """Give back what is done: this process reads no more."""
        if self._consumer is not None:
            call = feed.leave_feed(self._keys, self._consumer, self._process, FORGET_S, self._done)
            yield from run_script(call)

    def shrink(self) -> bool:
        """As `Reader.shrink`: its pages are small, so that they are not to blame for a Redis that is slow."""
        return False


def _name_of_this_process() -> str:
    host = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in socket.gethostname())
    return f"{host[:40]}:{os.getpid()}:{secrets.token_hex(4)}"
