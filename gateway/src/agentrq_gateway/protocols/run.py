"""A run: the part of a session's events that one request of a front end is answered by, and how it ends.

A front end sends a message and reads one response until it is over. A session goes on: its turns queue, other clients
prompt and answer it. `Run` looks at the events one by one and says which of them belong to the response. It depends on
kept events only, so that every gateway finds the same run by its `RunPlace`. Owns no encoding and does no IO.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final, Literal, NamedTuple

from agentrq import Event, Message, Receipt, StatusEvent
from agentrq.wire.ids import ORIGIN, Cursor
from agentrq.wire.messages import ApprovalRequest, ApprovalResolved, Cost, Prompt, Question
from agentrq.wire.status import ENDED

_PLACE: Final = re.compile(
    r"(?P<sid>[A-Za-z0-9_-]{1,64})\.(?P<origin>\d+-\d+)"
    r"\.(?:p\.(?P<command>[A-Za-z0-9_-]{1,64})|a\.(?P<after>\d+-\d+)\.(?P<answers>\d{1,4}))(?P<live>\.live)?"
)
EndingKind = Literal["done", "failed", "interrupted", "waiting"]


class RunPlace(NamedTuple):
    """Where a run is in its session; as text it is the run's id.

    ``origin``: the cursor before its first event, from which it is read. It begins with the prompt ``command_id``; or,
    without one, with what comes after ``after``, where ``answers`` answers are on their way that it may not end before.
    ``live``: live-only pieces were sent with it.
    """

    session_id: str
    origin: Cursor
    command_id: str | None = None
    after: Cursor = ORIGIN
    answers: int = 0
    live: bool = False

    def __str__(self) -> str:
        where = f"a.{self.after}.{self.answers}" if self.command_id is None else f"p.{self.command_id}"
        return f"{self.session_id}.{self.origin}.{where}{'.live' if self.live else ''}"

    @classmethod
    def parse(cls, text: str) -> RunPlace | None:
        """The place that an id names; None for what is not the id of a run."""
        found = _PLACE.fullmatch(text)
        if found is None:
            return None
        try:
            origin, after = Cursor.parse(found["origin"]), Cursor.parse(found["after"] or "0-0")
        except ValueError:
            return None
        return cls(found["sid"], origin, found["command"], after, int(found["answers"] or 0), bool(found["live"]))


class Ending(NamedTuple):
    """How a run ended: the turn is ``done``, has ``failed``, was ``interrupted``, or waits for answers.

    ``message`` says why; ``cost`` are the turn's figures; ``requests`` are what waits.
    """

    kind: EndingKind
    message: str | None = None
    cost: Cost | None = None
    requests: tuple[Message, ...] = ()


class Run:
    """One run: `see` takes the session's kept events from its place's origin on, in order."""

    def __init__(self, place: RunPlace) -> None:
        self.place = place
        self._status = ""
        self._requests: dict[str, Message] = {}
        self._resolved = 0
        self._interrupted = False
        self._opened_by = ORIGIN
        self.begun = place.command_id is None and place.after <= place.origin
        self.ending: Ending | None = None

    def is_over(self) -> bool:
        """Whether it has its ending."""
        return self.ending is not None

    @property
    def key(self) -> str:
        """The cursor of the prompt (else of the status) that opened the turn: names the response in its session."""
        return str(self._opened_by)

    def see(self, event: Event) -> bool:
        """Whether the event is part of the response. Sets `begun` and `ending`."""
        cursor = Cursor.parse(event.cursor or "0-0")
        self.begun = self.begun or self._begins(event, cursor)
        self._follow(event, cursor)
        if self.begun and self._opened_by == ORIGIN:
            self._opened_by = cursor
        if not self.begun or self.ending is not None or cursor <= self.place.after:
            return False
        self.ending = self._find_ending(event)
        return isinstance(event, Message) and not self._is_own(event)

    def _is_own(self, event: Message) -> bool:
        return isinstance(event.content, Prompt) and event.content.command_id == self.place.command_id

    def gone(self, message: str) -> None:
        """No more will come: the session was removed, or the run's events are no longer kept."""
        self.begun = True
        self.ending = self.ending or Ending("failed", message)

    def settle(self, status: str) -> None:
        """All there is has been seen, and with this status of the session nothing more comes by itself."""
        if self.ending is None and status == "waiting" and self._requests:
            self.ending = Ending("waiting", requests=tuple(self._requests.values()))
        elif self.ending is None and (status == "idle" or status in ENDED):
            self.ending = Ending("done")
        self.begun = self.begun or self.ending is not None

    def _begins(self, event: Event, cursor: Cursor) -> bool:
        if self.place.command_id is None:
            return cursor >= self.place.after
        if isinstance(event, Receipt):
            return event.command_id == self.place.command_id and event.outcome != "applied"  # it never begins
        if isinstance(event, StatusEvent):
            return event.status in ENDED
        return isinstance(event.content, Prompt) and event.content.command_id == self.place.command_id

    def _follow(self, event: Event, cursor: Cursor) -> None:
        """Keep the status, what is open, and what opened the turn."""
        if isinstance(event, StatusEvent):
            if event.status == "running" and self._opened_by == ORIGIN:
                self._opened_by = cursor
            self._status = event.status
        elif isinstance(event, Receipt):
            self._interrupted |= self.begun and event.command == "interrupt" and event.outcome == "applied"
        elif isinstance(event.content, Prompt):
            # A prompt that joins a turn under way does not begin another response.
            if not self.begun or self._opened_by == ORIGIN or event.content.command_id == self.place.command_id:
                self._opened_by = cursor
        elif isinstance(event.content, ApprovalRequest | Question):
            self._requests[event.content.request_id] = event
        elif isinstance(event.content, ApprovalResolved):
            self._requests.pop(event.content.request_id, None)
            self._resolved += self.begun

    def _find_ending(self, event: Event) -> Ending | None:
        if isinstance(event, Receipt):
            refused = event.command_id == self.place.command_id and event.outcome != "applied"
            return Ending("failed", event.reason or f"the prompt was {event.outcome}") if refused else None
        if isinstance(event, StatusEvent):
            return self._find_ending_by_status(event)
        content = event.content
        if isinstance(content, Cost) and event.parent_id is None:
            if self._interrupted:
                return Ending("interrupted", "interrupted", content)
            return Ending("failed", _why(content), content) if content.is_error else Ending("done", cost=content)
        return self._waits() if isinstance(content, ApprovalRequest | Question | ApprovalResolved) else None

    def _find_ending_by_status(self, event: StatusEvent) -> Ending | None:
        if event.status == "waiting":
            return self._waits()
        if event.status == "idle":  # without a cost: whoever ran the turn was lost, and nobody goes on with it
            return Ending("interrupted", "interrupted" if self._interrupted else "the turn was cut")
        if event.status == "error":
            return Ending("failed", event.error or event.reason or "the session ended in error")
        if event.status == "done":
            stopped = event.reason == "stopped"
            return Ending("interrupted" if stopped else "done", f"the session has ended: {event.reason or 'done'}")
        return None

    def _waits(self) -> Ending | None:
        if self._status != "waiting" or not self._requests or self._resolved < self.place.answers:
            return None
        return Ending("waiting", requests=tuple(self._requests.values()))


def _why(cost: Cost) -> str:
    errors = cost.errors if isinstance(cost.errors, list) else []
    told = "; ".join(errors) or (cost.result if isinstance(cost.result, str) else "")
    return told or "the agent reports an error"


def opens_turn(event: Event) -> bool:
    """Whether a response may begin with this event: a prompt."""
    return isinstance(event, Message) and isinstance(event.content, Prompt)


def closes_turn(event: Event) -> bool:
    """Whether what comes after this event belongs to another turn."""
    if isinstance(event, StatusEvent):
        return event.status in ("queued", "idle") or event.status in ENDED
    return isinstance(event, Message) and isinstance(event.content, Cost) and event.parent_id is None


def find_pause(session_id: str, origin: Cursor, events: Sequence[Event], requests: Collection[str]) -> Cursor | None:
    """Where a response ended that waited for one of these requests; None where none of a turn's ``events`` did.

    Who answers late, after a deadline or somebody else, goes on from there.
    """
    after = origin
    while True:
        run = Run(RunPlace(session_id, origin, None, after))
        for event in events:
            run.see(event)
            if run.ending is not None:
                break
        if run.ending is None or run.ending.kind != "waiting":
            return None
        after = Cursor.parse(event.cursor or "0-0")
        if any(_request_id(request) in requests for request in run.ending.requests):
            return after


def _request_id(message: Message) -> str:
    content = message.content
    return content.request_id if isinstance(content, ApprovalRequest | Question) else ""


def find_origin(events: Sequence[Event], running: bool) -> Cursor | None:
    """The cursor before the last turn of these consecutive events; None where it began before all of them.

    ``running``: a turn is under way, which may have begun without a prompt; else the last one that a prompt began.
    """
    for event in reversed(events):
        cursor = Cursor.parse(event.cursor or "0-0")
        if isinstance(event, Message) and isinstance(event.content, Prompt):
            return Cursor(cursor.epoch, max(0, cursor.seq - 1))
        if running and _closes_turn(event):
            return cursor
    return None


def _closes_turn(event: Event) -> bool:
    """Whether what comes after this event belongs to another turn."""
    if isinstance(event, StatusEvent):
        return event.status in ("queued", "idle") or event.status in ENDED
    return isinstance(event, Message) and isinstance(event.content, Cost) and event.parent_id is None
