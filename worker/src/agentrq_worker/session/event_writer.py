"""Writes the events that a session machine wants published into the session's log.

Owns which effect becomes which entry, and where the events of open requests stand. Does not own what is published
(session/machine.py), nor how the log reaches Redis (stream/).
"""

from __future__ import annotations

from agentrq_worker.session import effects
from agentrq_worker.session.effects import Effect
from agentrq_worker.session.request_places import RequestPlaces
from agentrq_worker.stream.event_log import EventLog


class EventWriter:
    """Writes one owner's events. What comes with no field goes past it, straight to the log."""

    def __init__(self, lane: EventLog) -> None:
        self._lane = lane
        self._request_places = RequestPlaces()

    def write(self, effect: Effect) -> bool:
        """Write an event; False for an effect that is none."""
        lane, places = self._lane, self._request_places
        if isinstance(effect, effects.PublishMessage):
            draft = effect.draft
            places.note(draft.content, lane.next_cursor)
            lane.add_message(
                draft.type, draft.content, draft.parent_id, places.encode(effect.fields) or None, feed=effect.feed,
                atomic_with_next=effect.atomic_with_next,
            )  # fmt: skip
        elif isinstance(effect, effects.PublishStatus):
            lane.add_status(effect.status, places.encode(effect.fields), effect.feed)
        elif isinstance(effect, effects.PublishReceipt):
            lane.add_receipt(
                effect.command_id, effect.command, effect.outcome, effect.reason, effect.entry,
                places.encode(effect.fields) or None,
            )  # fmt: skip
        elif isinstance(effect, effects.PublishEnd):
            lane.add_end(effect.status, effect.reason, effect.error, places.encode(effect.fields), effect.feed)
        else:
            return False
        return True
