"""The atomic steps in Redis: each function builds one script's call, and the call reads the script's answer.

Owns the order of keys and arguments and the shape of every answer, as the heads of scripts/*.lua say them; what only a
session's owner calls is in owner_calls.py. Pure: whoever runs a call does ``call.read(answer)``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

from agentrq.wire.codec import encode
from agentrq.wire.commands import MAX_INBOX, MAX_PROMPT_BYTES, Command, Options, payers
from agentrq.wire.keys import Keys
from agentrq.wire.state import FIELDS
from agentrq.wire.status import Reason, Status, check_move

DEFAULT_RETENTION_S: Final = 86_400.0
DEFAULT_RECOVERY_TIMEOUT_S: Final = 120.0
LARGEST_STATE: Final = 4 * MAX_PROMPT_BYTES

T_co = TypeVar("T_co", covariant=True)
RedisCommand = Sequence[Any]


class ScriptCall(NamedTuple, Generic[T_co]):
    """One call of a script: its name in `agentrq.wire.scripts.SOURCES`, keys, arguments, and how its answer is read."""

    script: str
    keys: Sequence[str]
    args: Sequence[Any]
    read: Callable[[Any], T_co]


def now_ms() -> int:
    """Milliseconds since the epoch, by this machine's clock: for people to read, never to compare with another's."""
    return time.time_ns() // 1_000_000


def text(value: Any) -> str:
    """Bytes from Redis as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def session_keys(keys: Keys, session_id: str) -> tuple[str, str, str, str]:
    """A session's keys in the order every script takes them."""
    return keys.state(session_id), keys.events(session_id), keys.inbox(session_id), keys.commands(session_id)


# -- a session's beginning

OpenOutcome = Literal["created", "exists", "gone", "canceled", "full sessions", "full queued", "full starts"]


def open_session(
    keys: Keys,
    session_id: str,
    provider: str,
    prompt: str,
    options: Options,
    nonce: str,
    queue: str,
    job_id: str | None = None,
    extra_commands: Iterable[RedisCommand] = (),
    job_key: str | None = None,
    job_created_at: str = "",
) -> ScriptCall[OpenOutcome]:
    """Give a new session its state, its first event and its place in the index.

    ``queue``: the RQ queue that its start goes through. ``job_id``: its RQ job's id, if not the session id.
    ``extra_commands`` run in the same step, if the session is new. ``job_key``: the RQ job that asks for it; if that is
    gone or canceled, nothing is done. ``job_created_at``: when that job was created, as RQ writes it: by this it is
    known among others of its id.
    """
    fields: dict[str, Any] = {
        "provider": provider,
        "prompt": prompt,
        "options": encode(options),
        "queue": queue,
        "costUsd": 0,
        "inputTokens": 0,
        "outputTokens": 0,
        "numTurns": 0,
        "pendingApprovals": 0,
        "metadata": encode((options.metadata or {}) | payers(options)),
        **payers(options),
    }
    if options.cwd is not None:
        fields["cwd"] = options.cwd
    if options.model is not None:
        fields["model"] = options.model
    if job_id is not None:
        fields["jobId"] = job_id
    if job_created_at:
        fields["jobCreatedAt"] = job_created_at
    pairs = flat(fields)
    return ScriptCall(
        "open_session",
        (*session_keys(keys, session_id), keys.sessions, *((job_key,) if job_key is not None else ())),
        (session_id, keys.status_channel(session_id), nonce, len(pairs), *pairs, *counted(extra_commands)),
        word,
    )


# -- reading


def fetch_session(keys: Keys, session_id: str) -> ScriptCall[dict[bytes, bytes]]:
    """Read a session's state and bookkeeping: the hash as HGETALL has it, {} where there is none.

    Reading the answer raises ValueError for a state over `LARGEST_STATE` bytes.
    """

    def read(answer: Any) -> dict[bytes, bytes]:
        if isinstance(answer, int):
            raise ValueError(f"its state has {answer} bytes, over {LARGEST_STATE}")
        return {name.encode(): value for name, value in zip(FIELDS, answer, strict=True) if value is not None}

    return ScriptCall("fetch_session", (keys.state(session_id),), (LARGEST_STATE, *FIELDS), read)


# -- commands, ends


class SendAnswer(NamedTuple):
    """``detail``: a ``known`` command's receipt, by its cursor ('': not yet); the status of an ``ended`` session."""

    outcome: Literal["sent", "not open", "known", "ended", "full", "missing"]
    detail: str


def send_command(keys: Keys, session_id: str, command: Command, job_key: str | None = None) -> ScriptCall[SendAnswer]:
    """Append a command to a session's inbox and wake its owner. ``job_key``: its RQ job, which must not be canceled."""

    def read(answer: Any) -> SendAnswer:
        return SendAnswer(word(answer[0]), text(answer[1]))

    return ScriptCall(
        "send_stop" if command.command == "stop" else "send_command",
        session_keys(keys, session_id) + ((job_key,) if job_key is not None else ()),
        (
            command.command_id,
            encode(command),
            command.command,
            MAX_INBOX,
            session_id,
            keys.worker(""),
            command.request_id or "",
        ),
        read,
    )


EndOutcome = Literal["ok", "changed", "ended", "missing"]


def end_session(
    keys: Keys,
    session_id: str,
    epoch: int | str,
    token: str,
    nonce: str,
    status: Status,
    reason: Reason,
    error: str,
    retention_s: float,
    extra_commands: Iterable[RedisCommand] = (),
) -> ScriptCall[EndOutcome]:
    """End a session that no live worker owns, if its epoch, token and start's nonce are still those that were read.

    ``extra_commands`` run in the same step, if it is ended.
    """
    check_move(Status.RECOVERING, status, reason)
    channel, retention = keys.status_channel(session_id), int(retention_s * 1000)
    return ScriptCall(
        "end_session",
        session_keys(keys, session_id),
        (epoch, token, nonce, session_id, channel, status, reason, error, retention, *counted(extra_commands)),
        lambda answer: word(answer[0]),
    )


RemoveOutcome = Literal["removed", "missing", "live"]


def remove_session(
    keys: Keys, session_id: str, nonce: str, extra_commands: Iterable[RedisCommand] = ()
) -> ScriptCall[RemoveOutcome]:
    """Delete an ended session's keys. ``nonce``: its start's, as it was read; '' for whichever session has the id.

    ``extra_commands`` run in the same step, if it is deleted.
    """
    keys_ = (*session_keys(keys, session_id), keys.removed)
    return ScriptCall("remove_session", keys_, (nonce, *counted(extra_commands)), word)


def prune_index(keys: Keys, session_ids: Sequence[str], sets: Sequence[str] = ()) -> ScriptCall[int]:
    """Take sessions that have no state out of all indexes; answers how many. ``sets``: where else they were found."""
    return ScriptCall("prune_index", [keys.sessions, *map(keys.state, session_ids), *sets], session_ids, int)


def index_sessions(
    keys: Keys, session_ids: Sequence[str], *, settled: bool = False, again: bool = False
) -> ScriptCall[int]:
    """Have the indexes say what the states of these sessions say; answers how many sessions these are.

    ``settled``: those that have ended leave the living. ``again``: entries are written that should be there.
    """
    return ScriptCall("index_sessions", [*map(keys.state, session_ids)], (int(settled), int(again)), int)


def index_new_sessions(keys: Keys, most: int, look_back_ms: int = 0) -> ScriptCall[bool]:
    """Index ``most`` sessions that have started since this was done last; answers whether there may be more."""
    return ScriptCall("index_new_sessions", [keys.sessions, keys.live], (most, look_back_ms), bool)


def index_waiting(keys: Keys, session_ids: Sequence[str]) -> ScriptCall[int]:
    """Put sessions into the index of those that wait for an answer, or take them out, as their states say."""
    return ScriptCall("index_waiting", [keys.state(sid) for sid in session_ids], (), int)


def check_writes(keys: Keys, session_id: str) -> ScriptCall[bool]:
    """Changes nothing, and is refused where Redis takes no writes (full memory apart: owners renew leases in it)."""
    return ScriptCall("check_writes", (keys.state(session_id),), (), bool)


def word(answer: Any) -> Any:
    """One of a script's own words; its type is what the caller declares."""
    return text(answer)


def flat(fields: dict[str, Any]) -> list[Any]:
    """Fields and values in turn, as HSET takes them."""
    return [part for pair in fields.items() for part in pair]


def counted(commands: Iterable[RedisCommand]) -> list[Any]:
    """Commands as the script function run_commands takes them: the count of each one's words before them."""
    return [word for command in commands for word in (len(command), *command)]


def import_session(
    keys: Keys, session_id: str, events: str, state: dict[str, str], commands: dict[str, str], retention_s: float
) -> ScriptCall[str]:
    """Give an exported session its state, and the stream ``events``; ``commands``: cursors of receipts by command id.

    Answers ``imported``, ``exists`` or ``gone`` (the stream).
    """
    fields = [piece for pair in state.items() for piece in pair]
    receipts = [piece for pair in commands.items() for piece in pair]
    return ScriptCall(
        "import_session",
        [*session_keys(keys, session_id), keys.sessions, events],
        [session_id, int(retention_s * 1000), len(fields), *fields, *receipts],
        text,
    )
