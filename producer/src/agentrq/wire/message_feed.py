"""What the feed is told of an agent's messages: that somebody is asked, that a request is decided. Pure.

Owns which messages are told of, and which of their members are. Statuses, turns and ends are told of where they are
written (a worker, the scripts).
"""

from __future__ import annotations

from typing import Any

from agentrq.wire.feed import feed_members
from agentrq.wire.messages import ApprovalRequest, ApprovalResolved, Question


def members_of(content: Any) -> list[bytes]:
    """The members of the feed's entry for a message's content; none for most."""
    if isinstance(content, ApprovalRequest):
        return [feed_members("waiting", requestId=content.request_id, request="approval", name=content.name)]
    if isinstance(content, Question):
        return [feed_members("waiting", requestId=content.request_id, request="question")]
    if isinstance(content, ApprovalResolved):
        decided = feed_members("answered", requestId=content.request_id, decision=content.decision, by=content.by)
        return [decided]
    return []
