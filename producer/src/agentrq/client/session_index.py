"""Which sorted sets a list reads: the indexes of what its filter asks for, or the set of all sessions. Owns the choice.

An index may have sessions that the filter does not admit, never lack one that it does. So before one is used, sessions
that have started since, which clients of an older version do not index, are indexed.
"""

from __future__ import annotations

from typing import Final

from agentrq.client.redis_requests import Batch, Context, Operation
from agentrq.client.session_filter import SessionFilter
from agentrq.client.states import try_script
from agentrq.wire import script_calls
from agentrq.wire.index_names import index_name, metadata_names
from agentrq.wire.keys import Keys

PAGE: Final = 500
MOST_PAGES: Final = 20
"""A list indexes up to so many pages of sessions; where more are to be indexed, it reads the set of all sessions."""


def choose_sets(context: Context, wanted: SessionFilter) -> Operation[list[str]]:
    """The sorted sets that together have each session which the filter admits, as few members as may be."""
    everything = [context.keys.sessions]
    choices = _choices(context.keys, wanted)
    if not choices or not (yield from index_new_sessions(context)):
        return everything
    keys = list(dict.fromkeys(key for choice in choices for key in choice))
    answers = yield Batch([("ZCARD", key) for key in keys], apart=True)
    if any(isinstance(answer, Exception) for answer in answers):  # a key of another type, or not to be read
        return everything
    sizes = dict(zip(keys, answers, strict=True))
    return min(choices, key=lambda choice: sum(sizes[key] for key in choice))


def _choices(keys: Keys, wanted: SessionFilter) -> list[list[str]]:
    """For each thing that the filter asks for, the sets that together have all sessions with it."""
    choices: list[list[str]] = []
    if wanted.statuses:
        # A session that has just ended is still among the living.
        ended = [index_name("status", status) for status in sorted(wanted.statuses) if status.ended]
        choices.append([keys.live, *map(keys.index, ended)])
    if wanted.worker is not None:
        choices.append([keys.live, keys.index(index_name("worker", wanted.worker))])
    if wanted.provider is not None:
        choices.append([keys.index(index_name("provider", wanted.provider))])
    choices += ([keys.index(name) for name in metadata_names(*pair)] for pair in wanted.metadata)
    return choices


def index_new_sessions(context: Context) -> Operation[bool]:
    """Index the sessions that have started since this was done last; whether all are indexed now."""
    keys = context.keys
    (through,) = yield Batch([("ZSCORE", keys.live, "")], apart=True)
    if isinstance(through, Exception):
        return False
    if through is not None:
        (new,) = yield Batch([("ZRANGE", keys.sessions, f"({float(through)!r}", "+inf", "BYSCORE", "LIMIT", 0, 1)])
        if not new:
            return True
    for _ in range(MOST_PAGES):
        more = yield from try_script(script_calls.index_new_sessions(keys, PAGE))
        if not more:
            return more is not None
    return False
