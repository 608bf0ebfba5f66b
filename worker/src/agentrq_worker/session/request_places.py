"""Where the events of open requests stand: the state's field ``requests`` names their cursors.

Owns these cursors, which the session machine does not know, and the field's JSON. Which requests are open is
session/open_requests.py's matter.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agentrq.wire.codec import encode
from agentrq.wire.messages import ApprovalRequest, Question


class RequestPlaces:
    """The cursors of the requests that one owner of a session has published."""

    def __init__(self) -> None:
        self._cursors: dict[str, str] = {}

    def note(self, content: Any, cursor: str) -> None:
        """Note the cursor that a message gets, if it is a request."""
        if isinstance(content, ApprovalRequest | Question):
            self._cursors[content.request_id] = cursor

    def encode(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields of the state as Redis gets them."""
        if "requests" not in fields:
            return fields
        known, self._cursors = self._cursors, {}
        placed = []
        for request in fields["requests"]:
            cursor = self._cursors[request.id] = known.get(request.id, request.cursor)
            placed.append(msgspec.structs.replace(request, cursor=cursor))
        return fields | {"requests": encode(placed)}
