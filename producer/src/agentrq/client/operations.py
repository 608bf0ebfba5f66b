"""What a client does, as plain generators: each yields the Redis work it needs and is sent the answers.

The two clients only run these, so that no rule of the product stands in both. Owns no connection. States are read by
states.py, lists of sessions by session_list.py; who owns a followed session is owner_watch.py's matter, the reading of
its events subscription.py's.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from msgspec import to_builtins

from agentrq import rq_commands
from agentrq.client.leases import is_lost
from agentrq.client.redis_requests import Batch, Context, Operation, Pause, pauses, run_script
from agentrq.errors import (
    AgentRQError,
    CommandRejected,
    InboxFull,
    SessionEnded,
    SessionExists,
    SessionNotFound,
    TenantFull,
)
from agentrq.wire import script_calls
from agentrq.wire.codec import decode_entry
from agentrq.wire.commands import MAX_INBOX, Command, Options, check_text, make_command, make_options
from agentrq.wire.events import Receipt
from agentrq.wire.ids import check_session_id, new_id
from agentrq.wire.script_calls import EndOutcome, text
from agentrq.wire.status import Reason, Status

ANSWER_CHECK_S: Final = 5.0
"""How long an answer to a request that is not open waits for the receipt that says so, in seconds."""


# -- starts


def start(
    context: Context, provider: str, prompt: str, session_id: str | None, given: dict[str, Any]
) -> Operation[str]:
    """Open a session and enqueue its start; answers the session id."""
    sid = check_session_id(new_id() if session_id is None else session_id)
    options = make_options(given)
    check_text("provider", provider)
    check_text("prompt", prompt)
    # In one step: a state without a job would be a start that nobody sees.
    created_at = datetime.now(UTC)
    outcome = yield from run_script(script_calls.open_session(
        context.keys, sid, provider, prompt, options, new_id(), context.queue,
        extra_commands=enqueue(context.queue, sid, provider, prompt, options, created_at),
        job_created_at=rq_commands.format_time(created_at),
    ))  # fmt: skip
    if outcome == "exists":
        raise SessionExists(sid)
    if outcome.startswith("full"):
        raise TenantFull(options.tenant or "", outcome.removeprefix("full "))
    return sid


def enqueue(
    queue: str, session_id: str, provider: str, prompt: str, options: Options, created_at: datetime
) -> list[tuple[Any, ...]]:
    """The commands that enqueue a session's start."""
    arguments = [session_id, provider, prompt, to_builtins(options)]
    return rq_commands.start_job(queue, session_id, arguments, created_at)


# -- owners


class SessionOwner(NamedTuple):
    """Who owns a session, as it was read: little of its state, which may hold megabytes of prompt and metadata."""

    session_id: str
    status: Status
    epoch: str
    token: str
    nonce: str
    stop: bool
    """Somebody asked for its end."""
    owned: bool
    """Its owner's lease lives."""


def fetch_owner(context: Context, session_id: str) -> Operation[SessionOwner]:
    """Who owns a session; raises `SessionNotFound`."""
    check_session_id(session_id)
    names = ("status", "epoch", "token", "nonce", "stop", "worker")
    (values,) = yield Batch([("HMGET", context.keys.state(session_id), *names)])
    status, epoch, token, nonce, stop, worker = (text(value or "") for value in values)
    try:
        known = Status(status)
    except ValueError:
        raise SessionNotFound(session_id) from None
    owned = False
    if token and worker:
        (lease,) = yield Batch([("GET", context.keys.worker(worker))])
        owned = not is_lost(lease, token)
    return SessionOwner(session_id, known, epoch, token, nonce, bool(stop), owned)


# -- commands


def send(context: Context, session_id: str, command: Command) -> Operation[str]:
    """One command into the session's inbox; answers the command's id.

    An answer to a request that is not open raises `CommandRejected`, if the session's owner says so in time.
    """
    check_session_id(session_id)
    make_command(command)
    outcome, detail = yield from run_script(script_calls.send_command(context.keys, session_id, command))
    if outcome == "missing":
        raise SessionNotFound(session_id)
    if outcome == "ended":
        raise SessionEnded(session_id, detail)
    if outcome == "full":
        raise InboxFull(session_id, MAX_INBOX)
    if outcome == "not open":
        for pause in pauses(ANSWER_CHECK_S):
            known = yield from receipt(context, session_id, command.command_id)
            if known is not None:
                check_applied(known)
                break
            yield pause
    return command.command_id


def send_awaited(context: Context, session_id: str, command: Command) -> Operation[tuple[str, Receipt | None]]:
    """Like `send`; returns the cursor after which the receipt will come, and the receipt if it is there already."""
    check_session_id(session_id)
    (before,) = yield Batch([("HGET", context.keys.state(session_id), "cursor")])
    if before is None:
        raise SessionNotFound(session_id)
    yield from send(context, session_id, command)
    return text(before), (yield from receipt(context, session_id, command.command_id))


def receipt(context: Context, session_id: str, command_id: str) -> Operation[Receipt | None]:
    """The receipt of a command, None while it waits. Raises `AgentRQError` where it is not kept any more."""
    check_session_id(session_id)
    (cursor,) = yield Batch([("HGET", context.keys.commands(session_id), command_id)])
    if not cursor:
        return None
    (entries,) = yield Batch([("XRANGE", context.keys.events(session_id), cursor, cursor)])
    for _, fields in entries:
        event = decode_entry(*next(iter(fields.items())))
        if isinstance(event, Receipt):
            return event
    raise AgentRQError(f"The receipt of command {command_id} of session {session_id} is no longer kept")


def check_applied(receipt: Receipt) -> Receipt:
    """The receipt, if its command was applied. Raises `CommandRejected` otherwise."""
    if receipt.outcome != "applied":
        raise CommandRejected(receipt.session_id, receipt.command_id, receipt.outcome, receipt.reason)
    return receipt


# -- ends


def stop(context: Context, session_id: str, command_id: str | None = None) -> Operation[str]:
    """Stop a session: its owner is told; without a live owner the end is written here. An ended session is stopped."""
    command = Command(command_id=command_id or new_id(), command="stop", timestamp=script_calls.now_ms())
    for _ in range(20):
        try:
            yield from send(context, session_id, command)
        except SessionEnded:
            return command.command_id
        owner = yield from fetch_owner(context, session_id)
        if owner.owned or owner.status.ended:
            return command.command_id
        outcome = yield from end(context, owner, Status.DONE, Reason.STOPPED, "")
        if outcome != "changed":
            return command.command_id
    raise AgentRQError(f"Session {session_id} changes its owner too often to be stopped: try again")


def end(context: Context, owner: SessionOwner, status: Status, reason: Reason, error: str) -> Operation[EndOutcome]:
    """End a session without a live owner, unless its owner changed since it was read; answers the outcome."""
    sid = owner.session_id
    # In one step: from its end on the id may be another session's, whose job must not be canceled.
    extra_commands = rq_commands.cancel_job(context.queue, sid) if owner.status is Status.QUEUED else []
    return (yield from run_script(script_calls.end_session(
        context.keys, sid, owner.epoch, owner.token, owner.nonce, status, reason, error, context.retention_s,
        extra_commands,
    )))  # fmt: skip


def remove(context: Context, session_id: str, timeout: float | None) -> Operation[None]:
    """Delete a session; a live one is stopped first. Raises `SessionNotFound`, TimeoutError after ``timeout`` seconds.

    Once it was seen it is removed, whoever did it: a try whose answer was lost is repeated, and finds nothing.
    """
    check_session_id(session_id)
    status, nonce = (yield Batch([("HMGET", context.keys.state(session_id), "status", "nonce")]))[0]
    # In one step: from then on the id is free, and what is named after it may be another session's.
    extra = [("ZREM", context.keys.sessions, session_id), *rq_commands.delete_job(context.queue, session_id)]
    call = script_calls.remove_session(context.keys, session_id, text(nonce or ""), extra)
    outcome = yield from run_script(call)
    if status is None and outcome == "missing":
        raise SessionNotFound(session_id)
    if outcome != "live":
        return
    try:
        yield from stop(context, session_id)
    except SessionNotFound:
        return
    # Asked again and again: a user who may remove need not be allowed to follow.
    for pause in itertools.chain((Pause(0.0),), pauses(timeout)):
        yield pause
        if (yield from run_script(call)) != "live":
            return
    raise TimeoutError(f"Session {session_id} took longer than {timeout} s")
