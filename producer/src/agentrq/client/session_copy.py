"""Copies ended sessions out of one Redis and into another: state, events with their exact cursors, receipts.

Owns the lines of the file (docs/reference/session-files.md) and what may be copied. Does not own where lines are kept
(cli/copy_commands.py). A session that has not ended is not copied: two workers would go on with it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from agentrq.client.redis_requests import Batch, Context, Operation
from agentrq.errors import AgentRQError, SessionExists, SessionNotFound
from agentrq.wire import script_calls
from agentrq.wire.codec import decode_entry, encode
from agentrq.wire.ids import Cursor, check_session_id
from agentrq.wire.script_calls import text
from agentrq.wire.state import read_state

VERSION: Final = 1
PAGE: Final = 200
"""Events that are read, or written, in one round trip."""
UNFINISHED_MS: Final = 3_600_000
"""An import that is cut off leaves its events for so long."""
_KINDS: Final = frozenset({"message", "status", "receipt"})
_OF_OWNER: Final = frozenset({"token", "claim", "jobId", "jobCreatedAt", "nonce", "stop"})
"""Fields of the state that mean something to the owner or to RQ only."""


class SessionAlive(AgentRQError):
    """The session has not ended, so it cannot be copied: stop it first, or wait for its end."""


class BadFile(AgentRQError, ValueError):
    """A line of a file of sessions is not as it should be; the message names the line."""


class Head(msgspec.Struct, rename="camel", kw_only=True):
    """The first line of a session: its state's fields as they are in Redis, and the cursors of its receipts."""

    agentrq: str = "session"
    version: int = VERSION
    session_id: str
    state: dict[str, str]
    commands: dict[str, str] = {}


class EventLine(msgspec.Struct, kw_only=True):
    """One event, byte for byte as it is in the stream."""

    cursor: str
    kind: str
    event: msgspec.Raw


class Tail(msgspec.Struct, rename="camel", kw_only=True):
    """The last line of a session, which says that all of it is there."""

    agentrq: str = "end"
    session_id: str
    events: int


# -- out


def read_head(context: Context, session_id: str) -> Operation[Head]:
    """The first line of a session. Raises `SessionNotFound`, `SessionAlive`."""
    keys = context.keys
    check_session_id(session_id)
    raw, commands = yield Batch([("HGETALL", keys.state(session_id)), ("HGETALL", keys.commands(session_id))])
    state = read_state(session_id, raw)
    if state is None:
        raise SessionNotFound(session_id)
    if not state.ended:
        raise SessionAlive(f"Session {session_id} has not ended ({state.status}): agentrq stop {session_id}")
    fields = {text(name): text(value) for name, value in raw.items()}
    kept = {name: value for name, value in fields.items() if name not in _OF_OWNER}
    return Head(session_id=session_id, state=kept, commands={text(one): text(place) for one, place in commands.items()})


def read_events(context: Context, session_id: str, after: str | None) -> Operation[list[EventLine]]:
    """The next page of its events, the first after None; empty after the last. Raises `SessionNotFound`."""
    begin = "-" if after is None else f"({after}"
    entries, there = yield Batch(
        [
            ("XRANGE", context.keys.events(session_id), begin, "+", "COUNT", PAGE),
            ("EXISTS", context.keys.state(session_id)),
        ]
    )
    if not there:
        raise SessionNotFound(session_id)  # it expired, or was removed, while it was read
    lines = []
    for place, fields in entries:
        ((kind, event),) = fields.items()
        lines.append(EventLine(cursor=text(place), kind=text(kind), event=msgspec.Raw(event)))
    return lines


# -- in


class FileReader:
    """Reads the lines of a file one by one, checked. Raises `BadFile`."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._number = 0

    def heads(self) -> Iterator[Head]:
        """The first line of each session; `events` has to be read to its end before the next one."""
        for line in self._numbered():
            if not line.strip():
                continue
            head = self._decode(line, Head)
            if head.agentrq != "session" or head.version != VERSION:
                raise self._bad(f"not the first line of a session of version {VERSION}")
            try:
                check_session_id(head.session_id)
            except AgentRQError as error:
                raise self._bad(str(error)) from None
            state = read_state(head.session_id, {name.encode(): value.encode() for name, value in head.state.items()})
            if state is None:
                raise self._bad("its state cannot be read")
            if not state.ended:
                raise self._bad(f"session {head.session_id} has not ended ({state.status})")
            yield head

    def events(self, head: Head) -> Iterator[EventLine]:
        """The events that follow a session's first line."""
        last, count = Cursor(-1, 0), 0
        for line in self._numbered():
            if line.startswith(b'{"agentrq"'):
                tail = self._decode(line, Tail)
                if (tail.agentrq, tail.session_id, tail.events) != ("end", head.session_id, count):
                    raise self._bad(f"{count} events of session {head.session_id}, not what its last line says")
                if count == 0:
                    raise self._bad(f"session {head.session_id} has no event")
                return
            event = self._decode(line, EventLine)
            try:
                cursor = Cursor.parse(event.cursor)
                decoded = decode_entry(event.kind.encode(), bytes(event.event)) if event.kind in _KINDS else None
            except ValueError as error:
                raise self._bad(str(error)) from None
            if decoded is None or decoded.cursor != event.cursor or cursor <= last:
                raise self._bad("not the next event of its session")
            last, count = cursor, count + 1
            yield event
        raise self._bad(f"the file ends before session {head.session_id} does")

    def _numbered(self) -> Iterator[bytes]:
        for line in self._lines:
            self._number += 1
            yield line

    def _decode(self, line: bytes, kind: Any) -> Any:
        try:
            return msgspec.json.decode(line, type=kind)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise self._bad(str(error)[:200]) from None

    def _bad(self, why: str) -> BadFile:
        return BadFile(f"line {self._number}: {why}")


def begin_import(context: Context, head: Head) -> Operation[str]:
    """Make sure that the id is free; answers the key that its events are written to. Raises `SessionExists`."""
    (there,) = yield Batch([("EXISTS", context.keys.state(head.session_id))])
    if there:
        raise SessionExists(head.session_id)
    return f"{context.keys.prefix}:{{{head.session_id}}}:import:{secrets.token_hex(8)}"


def write_page(key: str, lines: list[EventLine]) -> Operation[None]:
    """Write a page of events, with their cursors."""
    commands: list[tuple[Any, ...]] = [("XADD", key, each.cursor, each.kind, bytes(each.event)) for each in lines]
    yield Batch([*commands, ("PEXPIRE", key, UNFINISHED_MS)], atomic=True)


def finish_import(context: Context, head: Head, key: str) -> Operation[None]:
    """Give the session its state and its events, in one step. Raises `SessionExists`."""
    state = {name: value for name, value in head.state.items() if name not in _OF_OWNER}
    state["nonce"] = secrets.token_hex(8)
    call = script_calls.import_session(context.keys, head.session_id, key, state, head.commands, context.retention_s)
    outcome = yield call
    if outcome == "exists":
        raise SessionExists(head.session_id)
    if outcome != "imported":
        raise AgentRQError(f"Session {head.session_id}: its events were lost while it was imported: try again")


def drop_import(key: str) -> Operation[None]:
    """Forget what an import that failed has written."""
    yield Batch([("DEL", key)])


def line_of(value: Head | EventLine | Tail) -> bytes:
    """A line of the file, with its end."""
    return encode(value) + b"\n"
