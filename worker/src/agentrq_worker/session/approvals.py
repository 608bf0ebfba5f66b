"""The agent asks, and is answered: by the policy, by an answer that came before, by a deadline, or not at all.

Owns what open requests do to status and stream. Which are open and who decides is open_requests.py's; a client's answer
comes by prompt_queue.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from agentrq.wire.approval_policy import Policy, read_policy
from agentrq.wire.commands import Options
from agentrq.wire.messages import ApprovalRequest, ApprovalResolved, Question
from agentrq.wire.status import Status
from agentrq_worker.providers.answers import summarize_answer
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import CommandRefused
from agentrq_worker.session.open_requests import AutomaticAnswer, OpenRequests
from agentrq_worker.session.turn import TurnState
from agentrq_worker.session_types import ClaimedSession, InterruptedTurn, Outcome
from agentrq_worker.stream.event_log import EventLog

log = logging.getLogger(__name__)


class ApprovalFlow(TurnState):
    """A session's standing, with its approvals and questions."""

    def __init__(
        self,
        claimed: ClaimedSession,
        options: Options,
        lane: EventLog,
        worker_policy: Policy,
        write: Callable[[bytes], None],
        over: Callable[[Outcome], None],
    ) -> None:
        super().__init__(lane, write, over)
        self._id = claimed.session_id
        left: InterruptedTurn | ClaimedSession = claimed.cut or claimed
        self.requests = OpenRequests(worker_policy, read_policy(options.approvals), left.asked, left.fates)

    def _asked(self, draft: DraftMessage, content: ApprovalRequest | Question) -> None:
        """The agent asks: policy, an answer that came before, or a person decides."""
        public, decided = self.requests.ask(content)
        content.request_id = public
        self._lane.add_message(draft.type, content, draft.parent_id, {"pendingApprovals": self.requests.pending})
        if decided is not None:
            self._decide(public, decided)
        elif self.status is Status.RUNNING:
            self._move(Status.WAITING)

    def pass_deadlines(self) -> None:
        """Decide what has waited too long, as the policy says."""
        for request_id, decided in self.requests.expired():
            self._decide(request_id, decided)

    def _decide(self, request_id: str, decided: AutomaticAnswer) -> None:
        """Answer the agent without a client's command; one that has not asked again yet has its answer when it does."""
        own_id = self.requests.own_id(request_id)
        try:
            data = b"" if own_id is None else self._speaker().answer(own_id, decided.answer)
        except CommandRefused as refused:
            log.warning("session %s: request %s stays open: %s", self._id, request_id, refused)
            if self.status is Status.RUNNING:
                self._move(Status.WAITING)
            return
        self._resolve(request_id, summarize_answer(decided.answer).decision, decided.by)
        self._send(data)

    def _withdrawn(self, content: ApprovalResolved) -> None:
        public = self.requests.of_runner(content.request_id)
        if public is not None:
            self._resolve(public, content.decision, content.by)

    def _resolve(self, request_id: str, decision: str, by: str) -> None:
        self.requests.close(request_id, decision, by)
        fields = {"pendingApprovals": self.requests.pending, "kept": self.requests.kept}
        self._lane.add_message("approval_resolved", ApprovalResolved(request_id, decision, by), None, fields)
        if not self.requests and self.status is Status.WAITING:
            self._move(Status.RUNNING)
