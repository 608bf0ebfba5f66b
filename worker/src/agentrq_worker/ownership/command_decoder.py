"""Decodes and checks the entries of inboxes, whoever wrote them. Pure.

Owns the reading. Does not own when inboxes are read (ownership.py) nor what a command does (prompt_queue.py).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from agentrq.wire.commands import MAX_PROMPT_BYTES, Command, check_command_id, make_command

LONGEST: Final = 2 * MAX_PROMPT_BYTES  # bytes; a prompt or an answer with the JSON around it
_REASON: Final = 300


class _Probe(msgspec.Struct, rename="camel"):
    command_id: str
    command: Any = None


_decode = msgspec.json.Decoder(Command).decode
_probe = msgspec.json.Decoder(_Probe).decode


class Unreadable(NamedTuple):
    """An entry that is not a valid command; ``command_id`` is empty where its id cannot be read either."""

    command_id: str
    command: str
    reason: str


def read_command(data: bytes | int) -> Command | Unreadable:
    """Decode one entry as `owner_calls.read_streams` reads it: its field ``command``, or its size if it is too large.

    Never raises.
    """
    if isinstance(data, int):
        return Unreadable("", "", f"{data} bytes are over {LONGEST}")
    if not data:
        return Unreadable("", "", "it has no field named command")
    try:
        return make_command(_decode(data))
    except RecursionError:
        return _unreadable(data, "nested too deeply")
    except ValueError as error:
        return _unreadable(data, str(error)[:_REASON])


def _unreadable(data: bytes, reason: str) -> Unreadable:
    try:
        found = _probe(data)
        name = found.command if isinstance(found.command, str) and found.command else "unknown"
        return Unreadable(check_command_id(found.command_id), name[:_REASON], reason)
    except (ValueError, RecursionError):
        return Unreadable("", "", reason)
