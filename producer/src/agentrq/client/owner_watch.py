"""Whether a followed session still has an owner, as a reader sees it over time, and whether it is still there at all.

Owns when a reader ends a session as lost, and when it takes one for gone. Pure: operations.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from agentrq import rq_commands
from agentrq.client.leases import is_lost
from agentrq.client.operations import end, fetch_owner
from agentrq.client.redis_requests import Batch, Context, Operation, run_script
from agentrq.client.subscription import Reader, cursor_of
from agentrq.errors import SessionNotFound
from agentrq.wire import script_calls
from agentrq.wire.ids import Cursor
from agentrq.wire.script_calls import text
from agentrq.wire.status import ENDED, Reason, Status

RESTORE_S: Final = 20.0
"""A session that Redis lost, and nobody removed, is given back by its owner within so many seconds."""


class OwnerWatch:
    """Ends a session that had no owner for the recovery timeout, so that nobody follows it for ever.

    That time counts only while Redis answers and takes writes: after an outage of either, owners need time to renew
    their leases. A monotonic clock measures it.
    """

    def __init__(self, context: Context, session_id: str) -> None:
        self._context = context
        self._session_id = session_id
        self._unowned: tuple[float, str] | None = None
        """Since when, and in which epoch, it has had no owner."""

    def check(self) -> Operation[None]:
        """Check once. To be called every few seconds, while the session is silent."""
        unowned, self._unowned = self._unowned, None  # whatever fails below, the time begins anew
        owner = yield from fetch_owner(self._context, self._session_id)
        if owner.owned or owner.status.ended or owner.status is Status.QUEUED:
            return
        if owner.stop:
            yield from end(self._context, owner, Status.DONE, Reason.STOPPED, "")
            return
        (suspended,) = yield Batch([("EXISTS", rq_commands.SUSPENDED)])
        if suspended:  # no worker takes it on purpose
            return
        yield from run_script(script_calls.check_writes(self._context.keys, owner.session_id))
        if unowned is None or unowned[1] != owner.epoch:
            unowned = (time.monotonic(), owner.epoch)
        if time.monotonic() - unowned[0] >= self._context.recovery_timeout_s:
            error = f"Its worker was lost and no other took it within {self._context.recovery_timeout_s:g} s"
            yield from end(self._context, owner, Status.ERROR, Reason.LOST, error)
        self._unowned = unowned


class SessionPlace(NamedTuple):
    """How far a session has come, as its state says; ``owned``: its owner's lease lives, or it needs no owner."""

    nonce: str
    cursor: Cursor
    owned: bool


def fetch_places(context: Context, session_ids: Sequence[str]) -> Operation[list[SessionPlace | None]]:
    """The places of many sessions; None where Redis refuses to tell. A session without a state has no nonce."""
    names = ("nonce", "cursor", "status", "token", "worker")
    found = yield Batch([("HMGET", context.keys.state(sid), *names) for sid in session_ids], apart=True)
    workers = {text(values[4]) for values in found if not isinstance(values, Exception) and values[4]}
    leases: dict[str, Any] = {}
    if workers:
        answers = yield Batch([("GET", context.keys.worker(name)) for name in workers], apart=True)
        leases = dict(zip(workers, answers, strict=True))
    return [None if isinstance(values, Exception) else _place(values, leases) for values in found]


def _place(values: Sequence[Any], leases: dict[str, Any]) -> SessionPlace:
    nonce, cursor, status, token, worker = (text(value or "") for value in values)
    needs_none = status in ENDED or status == Status.QUEUED
    owned = needs_none or (bool(token and worker) and not is_lost(leases[worker], token))
    return SessionPlace(nonce, cursor_of(cursor), owned)


def check_absent(context: Context, reader: Reader[Any]) -> Operation[None]:
    """Raises `SessionNotFound`, unless Redis may have lost a session that its owner will give back."""
    (removed,) = yield Batch([find_removal(context, reader)], apart=True)
    if is_gone(reader, removed):
        raise SessionNotFound(reader.session_id)


def find_removal(context: Context, reader: Reader[Any]) -> tuple[str, str, str]:
    """The command that tells `is_gone` whether somebody removed a session whose state is not there."""
    return "ZSCORE", context.keys.removed, reader.nonce


def is_gone(reader: Reader[Any], removed: object) -> bool:
    """Whether a session without a state will not come back; ``removed``: the answer to `find_removal`."""
    assert reader.absent_since is not None
    return removed is not None or time.monotonic() - reader.absent_since > RESTORE_S
