"""Lists sessions page by page, the newest start first. Owns where a page begins and ends, and how far one call looks.

Which sessions are wanted says session_filter.py, in which sorted sets they are session_index.py, what a state holds
states.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from agentrq.client.redis_requests import Batch, Context, Operation
from agentrq.client.session_filter import Place, SessionFilter, check_limit, read_before
from agentrq.client.session_index import choose_sets
from agentrq.client.states import PAGE, OwnedState, check_leases, forget, read_states
from agentrq.wire.ids import is_session_id
from agentrq.wire.state import State

MOST_READ: Final = 10_000
"""States that one page looks at, at most: a filter that few sessions pass ends the page before it is full."""


class SessionPage(msgspec.Struct, frozen=True):
    """A page of a list of sessions. Iterating over it yields its states."""

    sessions: list[State]
    """The states, the newest start first."""
    next: str | None = None
    """Give it as ``before`` to get the page that follows; None: this is the last."""

    def __iter__(self) -> Iterator[State]:
        return iter(self.sessions)

    def __len__(self) -> int:
        return len(self.sessions)


def list_sessions(context: Context, wanted: SessionFilter, limit: int, before: str | None) -> Operation[SessionPage]:
    """The sessions that started before a place and that the filter admits: ``limit`` of them at most."""
    check_limit(limit)
    found: list[OwnedState] = []
    place, looked, follows = read_before(before), 0, True
    keys = yield from choose_sets(context, wanted)
    while follows and len(found) < limit and looked < MOST_READ:
        count = min(PAGE, max(limit - len(found), looked))
        places = yield from _read_places(keys, place, count + 1)
        follows, places = len(places) > count, places[:count]
        read = yield from read_states(context, [each.session_id.decode() for each in places])
        by_id = {each.state.session_id: each for each in read.found}
        for each in places:
            place = each
            looked += 1
            known = by_id.pop(each.session_id.decode(), None)
            if known is not None and wanted.admits(known.state):
                found.append(known)
                if len(found) == limit:
                    follows = follows or each is not places[-1]
                    break
        yield from forget(context, read.gone, keys)
    states = yield from check_leases(context, found)
    return SessionPage(states, str(place) if follows and place is not None else None)


def _read_places(keys: list[str], before: Place | None, count: int) -> Operation[list[Place]]:
    """The next sessions of some sorted sets together, newest start first; fewer than ``count``: there are no more."""
    most = "+inf" if before is None else repr(before.start)
    places: set[Place] = set()
    found, offset, asked = dict.fromkeys(keys, 0), 0, count + 1
    while keys:
        # Several may have started in one millisecond: those at the place and above it were on the page before.
        pages = [("ZRANGE", key, most, "-inf", "BYSCORE", "REV", "LIMIT", offset, asked, "WITHSCORES") for key in keys]
        following = []
        for key, answer in zip(keys, (yield Batch(pages)), strict=True):
            pairs = _pairs(answer)
            fitting = [each for each in pairs if is_session_id(each.session_id) and (before is None or each < before)]
            places.update(fitting)
            found[key] += len(fitting)
            if len(pairs) == asked and found[key] < count:
                following.append(key)
        keys, offset = following, offset + asked
    return sorted(places, reverse=True)[:count]


def _pairs(answer: list[Any]) -> list[Place]:
    """An answer with scores, of either version of Redis's protocol."""
    flat = answer if not answer or isinstance(answer[0], bytes) else [part for pair in answer for part in pair]
    return [Place(float(score), member) for member, score in zip(flat[::2], flat[1::2], strict=True)]
