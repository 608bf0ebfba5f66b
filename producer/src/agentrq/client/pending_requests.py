"""Which requests of an agent are open and need an answer, found from a session's events. Pure.

Used by ``ask_for_approval`` and by programs that show requests to people.
"""

from __future__ import annotations

from typing import TypeAlias

from agentrq.wire.events import Event, Message, StatusEvent
from agentrq.wire.ids import Cursor
from agentrq.wire.messages import ApprovalRequest, ApprovalResolved, Question
from agentrq.wire.status import Status

OpenRequest: TypeAlias = ApprovalRequest | Question


class PendingRequests:
    """Follows a session from its oldest event on; ``present`` is the state's cursor when following began.

    A request is reported once the session is ``waiting`` for it and ``present`` is reached. Left out is what was
    resolved before, what a policy decides, and what was answered before a resumed agent asked it again.
    """

    def __init__(self, present: str) -> None:
        self._present = Cursor.parse(present)
        self._open: dict[str, OpenRequest] = {}
        self._waiting = False

    def see(self, event: Event) -> list[OpenRequest]:
        """The requests that need an answer now; each is reported once."""
        if isinstance(event, Message):
            content = event.content
            if isinstance(content, ApprovalRequest | Question):
                self._open[content.request_id] = content
            elif isinstance(content, ApprovalResolved):
                self._open.pop(content.request_id, None)
        elif isinstance(event, StatusEvent):
            self._waiting = event.status == Status.WAITING
        if not self._waiting or event.cursor is None or Cursor.parse(event.cursor) < self._present:
            return []
        due, self._open = list(self._open.values()), {}
        return due
