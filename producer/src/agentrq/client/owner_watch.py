"""Whether a followed session still has an owner, as a reader sees it over time, and whether it is still there at all.

Owns when a reader ends a session as lost, and when it takes one for gone. Pure: operations.
"""

from __future__ import annotations

import time
from typing import Final

from agentrq import rq_commands
from agentrq.client.operations import end, fetch_owner
from agentrq.client.redis_requests import Batch, Context, Operation, run_script
from agentrq.client.subscription import Reader
from agentrq.errors import SessionNotFound
from agentrq.wire import script_calls
from agentrq.wire.status import Reason, Status

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


def check_absent(context: Context, reader: Reader) -> Operation[None]:
    """Raises `SessionNotFound`, unless Redis may have lost a session that its owner will give back."""
    assert reader.absent_since is not None
    (removed,) = yield Batch([("ZSCORE", context.keys.removed, reader.nonce)], apart=True)
    if removed is not None or time.monotonic() - reader.absent_since > RESTORE_S:
        raise SessionNotFound(reader.session_id)
