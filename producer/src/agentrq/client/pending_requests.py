"""Which requests of an agent are open and to be put to somebody, told from a session's events. Pure.

Used by ``ask_for_approval`` (sync_client.py, asyncio_client.py) and by whoever shows requests to people.
"""

from __future__ import annotations

from typing import TypeAlias

from agentrq.wire.ids import Cursor
from agentrq.wire.messages import ApprovalRequest, ApprovalResolved, Event, Message, Question, StatusEvent
from agentrq.wire.status import Status

Request: TypeAlias = ApprovalRequest | Question


class PendingRequests:
    """Follows a session from its oldest event; what was asked and resolved before ``present`` is nobody's matter.

    ``present`` is the state's cursor when following began. A request is put once the session is ``waiting`` for it:
    what a policy decides, and what was answered before a resumed agent asked it again, is nobody's matter either.
    """

    def __init__(self, present: str) -> None:
        self._present = Cursor.parse(present)
        self._open: dict[str, Request] = {}
        self._waiting = False

    def see(self, event: Event) -> list[Request]:
        """The requests that are to be put now; each is named once."""
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
