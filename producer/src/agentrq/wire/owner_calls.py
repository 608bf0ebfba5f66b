"""The atomic steps that only a session's owner takes: claim, write, restore, read streams, end in the state, leases.

As script_calls.py: owns keys, arguments and answers, runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from agentrq.wire.commands import MAX_PROMPT_BYTES
from agentrq.wire.ids import Cursor
from agentrq.wire.keys import Keys
from agentrq.wire.script_calls import ScriptCall, flat, session_keys, text, word
from agentrq.wire.status import Reason, Status, check_move

LARGEST_ANSWER: Final = 4 * MAX_PROMPT_BYTES
"""Bytes that one reading of streams brings, and one entry beyond."""


class ClaimAnswer(NamedTuple):
    """``cursor``: the last event, ``starting`` after a claim. ``claimed_at``: in ms by Redis, 0 where it was not."""

    outcome: Literal["claimed", "taken", "ended", "canceled", "missing"]
    cursor: str
    claimed_at: int


def claim_session(
    keys: Keys,
    session_id: str,
    worker: str,
    token: str,
    nonce: str,
    seen_epoch: int,
    seen_token: str,
    seen_nonce: str,
    job_key: str,
) -> ScriptCall[ClaimAnswer]:
    """Make a worker the owner of a session, if its epoch, token and start's nonce are still those that it read.

    ``nonce`` is this claim's own: a repeated call is known by it. ``job_key``: its RQ job, which must not be canceled.
    """

    def read(answer: Any) -> ClaimAnswer:
        return ClaimAnswer(word(answer[0]), text(answer[2]), int(answer[3]) if len(answer) > 3 else 0)

    return ScriptCall(
        "claim_session",
        (*session_keys(keys, session_id), job_key),
        (worker, token, nonce, seen_epoch, seen_token, seen_nonce, keys.status_channel(session_id), session_id),
        read,
    )


# -- what its owner writes


class Run(msgspec.Struct, array_like=True, gc=False):
    """Events of one kind (as in write_events.lua) with consecutive seqs, ``seq`` the first one's: one JSON for each.

    A receipt, for which ``inbox_entry`` and ``command_id`` count, is always a run of one; so is an event that the feed
    is told with (``feed``, see `agentrq.wire.feed`). (A struct: a NamedTuple takes four times as long to make.)
    """

    kind: str
    seq: int
    jsons: list[bytes]
    inbox_entry: bytes = b""
    command_id: str = ""
    feed: list[bytes] | None = None


class WriteTarget(NamedTuple):
    """Where one owner writes: the session's keys, as in `session_keys`, and its channels; ``claim`` is the fence."""

    session_id: str
    epoch: int
    claim: str
    keys: tuple[str, str, str, str]
    messages_channel: str
    status_channel: str


class WriteAnswer(NamedTuple):
    """What became of one session's events; ``cursor``: where its stream stands, '' where it need not be known.

    ``left``: nothing was written, and without ``quick`` it will be, or be told why not.
    """

    outcome: Literal["ok", "left", "gap", "fenced", "ended", "missing", "behind"]
    cursor: str


_WRITTEN: Final = WriteAnswer("ok", "")
_LEFT: Final = WriteAnswer("left", "")


class WriteLimits(NamedTuple):
    """The most events and bytes that a stream keeps, and how long an ended session is kept."""

    events: int
    bytes: int
    retention_ms: int


class EventWrites:
    """One call of ``write_events``: sessions are added, then ``keys`` and ``args`` are sent and the answer read."""

    def __init__(self, limits: WriteLimits, now_ms: int) -> None:
        self._limits = limits
        self._now_ms = now_ms
        self._quick: list[int] = []  # the places of these sessions, in the order of adding
        self._quick_keys: list[str] = []
        self._quick_args: list[Any] = []
        self._keys: list[str] = []
        self._args: list[Any] = []
        self._count = 0

    def add(self, target: WriteTarget, fields: dict[str, Any], runs: Sequence[Run], *, quick: bool) -> None:
        """Write one session's events in their order, ``fields`` of its state with them.

        ``quick``: it runs, as far as its owner knows. Then plain messages take a shorter way, which leaves the session
        alone where anything is not as expected.
        """
        if not (quick and not fields and self._add_quick(target, runs)):
            self._keys += target.keys
            self._args += _arguments(target, fields, runs)
        self._count += 1

    def _add_quick(self, target: WriteTarget, runs: Sequence[Run]) -> bool:
        """Add the session to those that write_running writes; False if its events are no single run of messages."""
        kind, first, jsons = runs[0].kind, runs[0].seq, runs[0].jsons
        if kind not in ("m", "d") or runs[0].feed:
            return False
        if len(runs) > 1:
            jsons = []
            for run in runs:
                if run.kind != kind or run.feed or (kind == "m" and run.seq != first + len(jsons)):
                    return False
                jsons += run.jsons
        epoch, count = target.epoch, len(jsons)
        last, room, place = first, "", ""
        if kind == "m":
            place, last = str(first), first + count - 1
            first -= 1
            # In its first epoch a stream has no more entries than the next place: no need to ask.
            if epoch != 1 or last >= self._limits.events:
                room = str(self._limits.events - count)
        self._quick.append(self._count)
        self._quick_keys += target.keys[:2]
        self._quick_args += (
            target.claim, target.messages_channel, f"{epoch}-{first}", f"{epoch}-{last}", room, place, count, *jsons,
        )  # fmt: skip
        return True

    @property
    def keys(self) -> list[str]:
        """The keys of the call."""
        return self._quick_keys + self._keys

    @property
    def args(self) -> list[Any]:
        """The arguments of the call."""
        return [*self._limits, self._now_ms, len(self._quick), *self._quick_args, *self._args]

    def read(self, answer: Sequence[Any]) -> list[WriteAnswer]:
        """One answer for each session, in the order in which they were added."""
        left, others = answer
        answers = [_WRITTEN] * len(self._quick)
        for number in left:
            answers[number - 1] = _LEFT
        if not others:
            return answers
        found = [WriteAnswer(word(others[at]), text(others[at + 1])) for at in range(0, len(others), 2)]
        for place, each in zip(self._quick, answers, strict=True):
            found.insert(place, each)
        return found


def _arguments(target: WriteTarget, fields: dict[str, Any], runs: Iterable[Run]) -> list[Any]:
    """One session's share of the arguments of ``write_events``: ``fields`` of its state, and its events in order."""
    channels = (target.messages_channel, target.status_channel)
    part: list[Any] = [0, target.session_id, target.epoch, target.claim, *channels, 2 * len(fields)]
    for pair in fields.items():
        part += pair
    kind, following, place = "", -1, 0  # of the last run, which the next may continue
    for run in runs:
        count = len(run.jsons)
        if run.feed:
            kind = ""
            part += ("f", run.seq, len(run.feed), *run.feed)
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


class RestoreAnswer(NamedTuple):
    """``cursor``: where the session's stream stands in Redis."""

    outcome: Literal["restored", "kept", "removed"]
    cursor: Cursor


def restore_session(keys: Keys, session_id: str, epoch: int, fields: dict[str, Any]) -> ScriptCall[RestoreAnswer]:
    """Write a live owner's session again in a Redis that lost it; ``fields`` are the whole state's.

    Reading the answer raises ValueError where the stream's last id is not a cursor.
    """

    def read(answer: Any) -> RestoreAnswer:
        return RestoreAnswer(word(answer[0]), Cursor.parse(answer[1]))

    identity = (fields.get("nonce", ""), session_id, fields.get("createdAt", 0))
    return ScriptCall(
        "restore_session",
        (*session_keys(keys, session_id), keys.sessions, keys.removed),
        (epoch, *identity, *flat(fields)),
        read,
    )


class ChangedSession(NamedTuple):
    """A session whose state is not its owner's any more; '' is what its state does not have."""

    number: int
    """Its number, from 0, among the sessions asked about."""
    epoch: str
    claim: str
    cursor: str
    status: str
    nonce: str


def find_changed_sessions(places: Sequence[tuple[str, str, str]]) -> ScriptCall[list[ChangedSession]]:
    """Find the sessions whose state differs from what their owner knows: the state's key, claim and cursor of each."""

    def read(answer: Any) -> list[ChangedSession]:
        return [ChangedSession(position - 1, *map(text, seen)) for position, *seen in answer]

    return ScriptCall(
        "find_changed_sessions",
        [key for key, _, _ in places],
        [part for _, *pair in places for part in pair],
        read,
    )


def find_owned_sessions(keys: Keys, session_ids: Sequence[str], token: str) -> ScriptCall[list[str]]:
    """Find those of these sessions that the worker with this token owns and that have not ended."""

    def read(answer: Any) -> list[str]:
        return [session_ids[position - 1] for position in answer]

    return ScriptCall("find_owned_sessions", [keys.state(sid) for sid in session_ids], (token,), read)


def release_session(keys: Keys, session_id: str, epoch: int, token: str, nonce: str) -> ScriptCall[bool]:
    """Take a session from an owner that does not host it, if epoch, token and start's nonce are those read."""
    return ScriptCall("release_session", (keys.state(session_id),), (epoch, token, nonce), bool)


class StreamPage(NamedTuple):
    """What was read of one stream."""

    number: int
    """Its number, from 0, among the streams asked for."""
    entries: list[tuple[bytes, bytes | int]]
    """Ids with values; where a value is too large, its size in bytes stands in its place."""
    more: bool
    """Whether there may be more."""
    error: str | None = None
    """Why the stream cannot be read."""


def read_streams(
    streams: Sequence[str],
    starts: Sequence[str | bytes],
    field: str,
    *,
    most: int,
    largest: int,
    backwards: bool = False,
) -> ScriptCall[list[StreamPage]]:
    """Read entries of streams, each from its start on: ``most`` of each at most, none over ``largest`` bytes.

    Streams without such entries are left out of the answer.
    """

    def read(answer: Any) -> list[StreamPage]:
        return [_stream_page(*part) for part in answer]

    direction = ("XREVRANGE", "-") if backwards else ("XRANGE", "+")
    return ScriptCall("read_streams", streams, (*direction, field, most, largest, LARGEST_ANSWER, *starts), read)


def _stream_page(position: int, more: int | bytes, *found: Any) -> StreamPage:
    if isinstance(more, bytes):
        return StreamPage(position - 1, [], False, text(more))
    return StreamPage(position - 1, list(zip(found[::2], found[1::2], strict=True)), bool(more))


def end_unwritable_session(
    keys: Keys,
    session_id: str,
    epoch: int,
    token: str,
    nonce: str,
    status: Status,
    reason: Reason,
    error: str,
    retention_s: float,
) -> ScriptCall[bool]:
    """Like `end_session`, in the state alone: the stream cannot be written. False: another writer came first."""
    check_move(Status.RECOVERING, status, reason)
    args = (epoch, token, nonce, status, reason, error, int(retention_s * 1000), session_id)
    return ScriptCall("end_unwritable_session", session_keys(keys, session_id), args, bool)


# -- leases


def renew_lease(keys: Keys, worker: str, token: str, lease_s: float) -> ScriptCall[bool]:
    """Have a worker's lease last for ``lease_s`` from now; False where another process has taken the name."""
    return ScriptCall("renew_lease", (keys.worker(worker),), (token, int(lease_s * 1000)), bool)


def release_lease(keys: Keys, worker: str, token: str) -> ScriptCall[bool]:
    """Give a worker's lease back; False where it was not this process's any more."""
    return ScriptCall("release_lease", (keys.worker(worker),), (token,), bool)
