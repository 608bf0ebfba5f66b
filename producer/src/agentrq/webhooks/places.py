"""What `agentrq deliver` keeps in Redis of each endpoint: its place in the feed, who serves it, its dead letters.

Owns these operations and keys. One process at a time serves an endpoint, by a lease; moving its place compares it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from agentrq.client.redis_requests import Batch, Context, Operation, run_script
from agentrq.webhooks.message import WebhookMessage
from agentrq.wire.ids import is_session_id
from agentrq.wire.script_calls import ScriptCall, text

LEASE_S: Final = 30.0
MOST_DEAD: Final = 10_000
"""Dead letters kept of one endpoint; the oldest are dropped."""


class DeadLetter(NamedTuple):
    """A message that was given up on; ``entry_id`` is its id in the list."""

    entry_id: str
    message: WebhookMessage
    reason: str


def take_lease(context: Context, name: str, token: str) -> Operation[bool]:
    """Serve an endpoint for `LEASE_S` from now on; False where another process does."""
    arguments = (token, int(LEASE_S * 1000))
    call = ScriptCall("renew_lease", (context.keys.webhook(name, "lease"),), arguments, bool)
    return (yield from run_script(call))


def give_lease_back(context: Context, name: str, token: str) -> Operation[None]:
    """Leave an endpoint to another process."""
    yield from run_script(ScriptCall("release_lease", (context.keys.webhook(name, "lease"),), (token,), bool))


def read_place(context: Context, name: str) -> Operation[str | None]:
    """The id of the last entry that is done; None for a new endpoint."""
    (place,) = yield Batch([("GET", context.keys.webhook(name, "place"))])
    return None if place is None else text(place)


def move_place(context: Context, name: str, token: str, place: str) -> Operation[bool]:
    """All up to this entry is done; False where another process serves the endpoint now."""
    keys = (context.keys.webhook(name, "lease"), context.keys.webhook(name, "place"))
    return (yield from run_script(ScriptCall("move_place", keys, (token, place), bool)))


def add_dead_letter(context: Context, name: str, message: WebhookMessage, reason: str) -> Operation[None]:
    """Give up on a message."""
    fields = ("id", message.id, "body", message.body, "reason", reason)
    yield Batch([("XADD", context.keys.webhook(name, "dead"), "MAXLEN", "~", MOST_DEAD, "*", *fields)])


def read_dead_letters(context: Context, name: str, count: int) -> Operation[list[DeadLetter]]:
    """The oldest dead letters of an endpoint."""
    (entries,) = yield Batch([("XRANGE", context.keys.webhook(name, "dead"), "-", "+", "COUNT", count)])
    return [
        DeadLetter(
            text(entry_id), WebhookMessage(text(found.get(b"id", b"")), found.get(b"body", b"")),
            text(found.get(b"reason", b"")),
        )
        for entry_id, found in entries
    ]  # fmt: skip


def drop_dead_letter(context: Context, name: str, entry_id: str) -> Operation[None]:
    """A dead letter was delivered after all."""
    yield Batch([("XDEL", context.keys.webhook(name, "dead"), entry_id)])


def has_metadata(context: Context, session_id: str, wanted: Mapping[str, str]) -> Operation[bool]:
    """Whether a session's metadata has all these texts."""
    if not is_session_id(session_id.encode()):
        return False
    (found,) = yield Batch([("HGET", context.keys.state(session_id), "metadata")])
    try:
        metadata = msgspec.json.decode(found or b"{}", type=dict[str, str])
    except msgspec.MsgspecError:
        return False
    return all(metadata.get(name) == value for name, value in wanted.items())
