"""Lists the requests of all agents that wait for an answer, the oldest first. Owns how they are found and put together.

Which sessions wait is in an index, which requests a session's state says, and what is asked the events that ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from agentrq.client.redis_requests import Batch, Context, Operation
from agentrq.client.states import PAGE, check_leases, read_states, try_script
from agentrq.wire import script_calls
from agentrq.wire.codec import decode_entry
from agentrq.wire.events import Message
from agentrq.wire.ids import is_session_id
from agentrq.wire.messages import ApprovalRequest, ApprovalResolved, Question
from agentrq.wire.script_calls import text
from agentrq.wire.state import State, StateRequest

EVENTS_PAGE: Final = 50
"""Events that are read in one round trip: an agent may ask about megabytes."""
SEARCHED: Final = 200
"""The newest events of a session that are searched for requests that its state does not tell of."""
UNKNOWN: Final = "0-1"
"""A cursor that no request has."""


class WaitingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request or question that waits for an answer, and the session whose agent asks."""

    state: State
    """The session's state, with its ``cwd``, ``provider`` and ``metadata``."""
    request: StateRequest
    """The request: its ``id``, ``name``, ``asked_at``, ``deadline`` and ``cursor``."""
    content: ApprovalRequest | Question | None = None
    """What is asked, with the tool's ``input`` or the ``questions``; None where the event is no longer kept."""

    @property
    def session_id(self) -> str:
        """The id of the session."""
        return self.state.session_id


def list_waiting(context: Context) -> Operation[list[WaitingRequest]]:
    """All that waits. A session that waits no more is taken out of the index."""
    (members,) = yield Batch([("ZRANGE", context.keys.waiting, 0, -1)])
    ids = [text(member) for member in members if is_session_id(member)]
    waiting: list[WaitingRequest] = []
    stale: list[str] = []
    for at in range(0, len(ids), PAGE):
        page = ids[at : at + PAGE]
        read = yield from read_states(context, page)
        states = yield from check_leases(context, read.found)
        asking = [state for state in states if state.pending_approvals and not state.ended]
        stale += set(page).difference(state.session_id for state in asking)
        told = [WaitingRequest(state=state, request=request) for state in asking for request in state.requests]
        waiting += yield from _with_content(context, told)
        waiting += yield from _search_streams(context, [state for state in asking if not state.requests])
    if stale:
        yield from try_script(script_calls.index_waiting(context.keys, stale))
    return sorted(waiting, key=lambda each: (each.request.asked_at, each.session_id, each.request.id))


def _with_content(context: Context, told: list[WaitingRequest]) -> Operation[list[WaitingRequest]]:
    """The same requests, each with what its event asks."""
    complete: list[WaitingRequest] = []
    for at in range(0, len(told), EVENTS_PAGE):
        page = told[at : at + EVENTS_PAGE]
        ranges = [(context.keys.events(each.session_id), each.request.cursor or UNKNOWN) for each in page]
        answers = yield Batch([("XRANGE", events, cursor, cursor) for events, cursor in ranges], apart=True)
        for each, entries in zip(page, answers, strict=True):
            contents = (message.content for message in _messages(entries))
            asked = next((one for one in contents if isinstance(one, ApprovalRequest | Question)), None)
            complete.append(msgspec.structs.replace(each, content=asked))
    return complete


def _search_streams(context: Context, states: list[State]) -> Operation[list[WaitingRequest]]:
    """The requests of sessions whose owners, older ones, do not say in the state which they are."""
    if not states:
        return []
    ranges = [("XREVRANGE", context.keys.events(state.session_id), "+", "-", "COUNT", SEARCHED) for state in states]
    answers = yield Batch(ranges, apart=True)
    return [each for state, entries in zip(states, answers, strict=True) for each in _search(state, entries)]


def _search(state: State, entries: Any) -> list[WaitingRequest]:
    """The open requests among the newest entries of a session's stream, the newest first."""
    found: list[WaitingRequest] = []
    closed: set[str] = set()
    for message in _messages(entries):
        content = message.content
        if isinstance(content, ApprovalResolved):
            closed.add(content.request_id)
        elif isinstance(content, ApprovalRequest | Question) and content.request_id not in closed:
            closed.add(content.request_id)
            name = content.name if isinstance(content, ApprovalRequest) else ""
            request = StateRequest(
                id=content.request_id, kind="approval" if name else "question", name=name,
                asked_at=message.timestamp, cursor=message.cursor or "",
            )  # fmt: skip
            found.append(WaitingRequest(state=state, request=request, content=content))
    return found[: state.pending_approvals]


def _messages(entries: Any) -> Iterator[Message]:
    """The messages among entries of a stream that can be read."""
    for _, fields in entries if isinstance(entries, list) else ():
        try:
            event = decode_entry(*next(iter(fields.items())))
        except (ValueError, StopIteration):
            continue
        if isinstance(event, Message):
            yield event
