"""How each atomic step is called: which keys and arguments its script takes. Pure; running them is the caller's.

The scripts' heads (scripts/*.lua) say what each answers; `text` reads the answer's byte strings.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from agentrq.wire.codec import encode
from agentrq.wire.commands import MAX_INBOX, MAX_PROMPT_BYTES, Command, Options
from agentrq.wire.keys import Keys
from agentrq.wire.messages import StatusEvent
from agentrq.wire.state import FIELDS
from agentrq.wire.status import Reason, Status, check_move

DEFAULT_RETENTION_S: Final = 86_400.0
DEFAULT_RECOVERY_TIMEOUT_S: Final = 120.0
LARGEST_STATE: Final = 4 * MAX_PROMPT_BYTES
LARGEST_ANSWER: Final = 4 * MAX_PROMPT_BYTES
"""Bytes that one reading of streams brings, and one entry beyond."""


class ScriptCall(NamedTuple):
    """One call of a script: its name in `agentrq.wire.scripts.SOURCES`, keys and arguments."""

    script: str
    keys: Sequence[str]
    args: Sequence[Any]


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def text(value: Any) -> str:
    """A part of a script's answer as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def texts(answer: Sequence[Any]) -> list[str]:
    """A script's answer, each part as text."""
    return [text(part) for part in answer]


def session_keys(keys: Keys, session_id: str) -> tuple[str, str, str, str]:
    """A session's keys in the order every script takes them."""
    return keys.state(session_id), keys.events(session_id), keys.inbox(session_id), keys.commands(session_id)


def open_session(
    keys: Keys,
    session_id: str,
    provider: str,
    prompt: str,
    options: Options,
    nonce: str,
    queue: str,
    job_id: str | None = None,
    also: Iterable[Sequence[Any]] = (),
    job_key: str | None = None,
) -> ScriptCall:
    """The step that gives a new session its state and first event.

    ``queue`` is RQ's queue that its start comes by; ``job_id`` that of RQ's job, if not the session id. ``also``:
    commands that are carried out with it, where the session is new. ``job_key``: RQ's job, without which there is none.
    """
    timestamp = now_ms()
    event = StatusEvent(cursor="0-1", session_id=session_id, status=Status.QUEUED, timestamp=timestamp)
    fields: dict[str, Any] = {
        "provider": provider,
        "prompt": prompt,
        "options": encode(options),
        "queue": queue,
        "createdAt": timestamp,
        "updatedAt": timestamp,
        "costUsd": 0,
        "inputTokens": 0,
        "outputTokens": 0,
        "numTurns": 0,
        "pendingApprovals": 0,
        "metadata": encode(options.metadata or {}),
    }
    if options.cwd is not None:
        fields["cwd"] = options.cwd
    if options.model is not None:
        fields["model"] = options.model
    if job_id is not None:
        fields["jobId"] = job_id
    pairs = [part for pair in fields.items() for part in pair]
    return ScriptCall(
        "open",
        session_keys(keys, session_id) + ((job_key,) if job_key is not None else ()),
        (keys.status_channel(session_id), encode(event), nonce, len(pairs), *pairs, *_counted(also)),
    )


def claim(
    keys: Keys, session_id: str, worker: str, token: str, nonce: str, seen_epoch: int, seen_token: str, seen_nonce: str
) -> ScriptCall:
    """The step by which a worker becomes the owner of a session it saw at an epoch with a token and its start's nonce.

    ``nonce`` is this claim's own: by it a repeat is known.
    """
    return ScriptCall(
        "claim",
        session_keys(keys, session_id),
        (worker, token, nonce, seen_epoch, seen_token, seen_nonce, keys.status_channel(session_id), session_id),
    )


def restore(keys: Keys, session_id: str, epoch: int, fields: dict[str, Any]) -> ScriptCall:
    """The step by which a live owner gives a session back to a Redis that lost it; ``fields`` are the whole state's."""
    pairs = [part for pair in fields.items() for part in pair]
    whose = (fields.get("nonce", ""), session_id, fields.get("createdAt", 0))
    return ScriptCall(
        "restore", (*session_keys(keys, session_id), keys.sessions, keys.removed), (epoch, *whose, *pairs)
    )


def check(places: Sequence[tuple[str, str, str]]) -> ScriptCall:
    """The step that finds which sessions do not stand as their owner believes: keys of states, claims, cursors."""
    return ScriptCall("check", [key for key, _, _ in places], [part for _, *pair in places for part in pair])


class Run(msgspec.Struct, array_like=True, gc=False):
    """Events of one kind (as in write.lua) with consecutive places, ``seq`` the first one's: one JSON for each.

    A receipt, for which the last two count, is always a run of one. (A struct: a NamedTuple takes four times as long
    to make.)
    """

    kind: str
    seq: int
    jsons: list[bytes]
    inbox_entry: bytes = b""
    command_id: str = ""


def write_part(
    session_id: str,
    epoch: int,
    claim: str,
    channels: tuple[str, str],
    fields: dict[str, Any],
    runs: Iterable[Run],
) -> list[Any]:
    """One session's share of the arguments of ``write``: ``fields`` of its state, and its events in order."""
    part: list[Any] = [0, session_id, epoch, claim, *channels, 2 * len(fields)]
    for pair in fields.items():
        part += pair
    kind, following, place = "", -1, 0  # of the last run, which the next may go on
    for run in runs:
        count = len(run.jsons)
        if run.kind == kind and (run.seq == following or kind == "d") and kind != "r":
            part[place] += count
        else:
            kind, place = run.kind, len(part) + 2
            part += (kind, run.seq, count)
        part += run.jsons
        following = run.seq + count
        if kind == "r":
            part += (run.inbox_entry, run.command_id)
    part[0] = len(part) - 1
    return part


def look(keys: Keys, session_id: str) -> ScriptCall:
    """The step that reads a state of any size; see `look_answer`."""
    return ScriptCall("look", (keys.state(session_id),), (LARGEST_STATE, *FIELDS))


def look_answer(answer: Any) -> dict[bytes, bytes]:
    """The hash as HGETALL has it, from the answer to `look`. Raises ValueError where it is too large."""
    if isinstance(answer, int):
        raise ValueError(f"its state has {answer} bytes, over {LARGEST_STATE}")
    return {name.encode(): value for name, value in zip(FIELDS, answer, strict=True) if value is not None}


def read(
    streams: Sequence[str],
    starts: Sequence[str | bytes],
    field: str,
    *,
    most: int,
    largest: int,
    backwards: bool = False,
) -> ScriptCall:
    """The step that reads entries of streams, each from its start on: ``most`` at most, none over ``largest`` bytes."""
    way = ("XREVRANGE", "-") if backwards else ("XRANGE", "+")
    return ScriptCall("read", tuple(streams), (*way, field, most, largest, LARGEST_ANSWER, *starts))


def entries(answer: Any) -> tuple[list[tuple[bytes, bytes | int]], bool]:
    """One stream's part of what ``read`` answers: ids with values (a size in bytes in the place of one too large).

    And whether there may be more. Raises ValueError for a stream that cannot be read.
    """
    _, more, *found = answer
    if isinstance(more, bytes):
        raise ValueError(text(more))
    return list(zip(found[::2], found[1::2], strict=True)), bool(more)


def send(keys: Keys, session_id: str, command: Command) -> ScriptCall:
    """The step that appends a command to a session's inbox and wakes its owner."""
    return ScriptCall(
        "send",
        session_keys(keys, session_id),
        (command.command_id, encode(command), command.command, MAX_INBOX, session_id, keys.worker("")),
    )


def end(
    keys: Keys,
    session_id: str,
    epoch: int,
    token: str,
    nonce: str,
    status: Status,
    reason: Reason,
    error: str,
    retention_s: float,
    also: Iterable[Sequence[Any]] = (),
) -> ScriptCall:
    """The step that ends a session no live worker owns, as it was seen: its epoch, token and start's nonce.

    ``also``: commands that are carried out with it, if it does.
    """
    check_move(Status.RECOVERING, status, reason)
    channel, retention = keys.status_channel(session_id), int(retention_s * 1000)
    return ScriptCall(
        "end",
        session_keys(keys, session_id),
        (epoch, token, nonce, session_id, channel, status, reason, error, retention, *_counted(also)),
    )


def remove(keys: Keys, session_id: str, also: Iterable[Sequence[Any]] = ()) -> ScriptCall:
    """The step that deletes an ended session's keys; ``also``: commands that are carried out with it, if it does."""
    return ScriptCall("remove", (*session_keys(keys, session_id), keys.removed), _counted(also))


def prune(keys: Keys, session_ids: Sequence[str]) -> ScriptCall:
    """The step that takes sessions which have no state out of the index."""
    return ScriptCall("prune", [keys.sessions, *map(keys.state, session_ids)], session_ids)


def when(
    keys: Keys, session_id: str, nonce: str | None, status: Status | None, commands: Iterable[Sequence[Any]]
) -> ScriptCall:
    """The step that carries commands out, if a session still is as it was seen; answers whether it did, 1 or 0.

    ``nonce``: its start's, None where there was no session; ``status`` None: whichever it has now.
    """
    seen = ("gone", "") if nonce is None else (status or "", nonce)
    return ScriptCall("when", (keys.state(session_id),), (*seen, *_counted(commands)))


def _counted(commands: Iterable[Sequence[Any]]) -> list[Any]:
    return [word for command in commands for word in (len(command), *command)]
