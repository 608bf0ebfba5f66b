"""The agent asks and is answered: by policy, by a stored answer, by a deadline, by people, or not at all.

Owns what requests mean for the stream and the agent. Which are open and who decides is session/open_requests.py's; the
statuses that follow are session/machine.py's.
"""

from __future__ import annotations

from msgspec.structs import replace

from agentrq.wire.codec import encode
from agentrq.wire.messages import ApprovalRequest, ApprovalResolved, Question
from agentrq_worker.providers.answers import changed_input, lets_ask_less, read_decision, summarize_answer
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import AgentProtocol, CommandRefused
from agentrq_worker.session.effects import Output, WriteLog
from agentrq_worker.session.open_requests import AutomaticAnswer, OpenRequests
from agentrq_worker.session_types import InboxCommand


class ApprovalFlow:
    """The requests of one owner of a session, asked, answered and told."""

    def __init__(self, requests: OpenRequests, output: Output) -> None:
        self.requests = requests
        self._output = output

    def set_fields(self) -> None:
        """The state says which requests are open, and which answers are stored."""
        ids = self.requests.ids
        self._output.set_field("pendingApprovals", len(ids))
        self._output.set_field("openRequests", encode(ids))
        self._output.set_field("requests", self.requests.states)
        self._output.set_field("kept", self.requests.kept)

    def ask(
        self,
        protocol: AgentProtocol,
        draft: DraftMessage,
        content: ApprovalRequest | Question,
        now: float,
        *,
        withdrawn: bool,
    ) -> None:
        """The agent asks. ``withdrawn``: its turn is interrupted, so nobody will answer."""
        own_id = content.request_id
        public, decided = self.requests.ask(content, now, nested=draft.parent_id is not None)
        self.set_fields()
        self._output.message(replace(draft, content=replace(content, request_id=public)))
        if withdrawn:
            self._resolve(public, "withdrawn", "client")
            self._output.write_after_commit(protocol.withdraw(own_id))
        elif decided is not None:
            self._decide(protocol, public, decided)

    def expire(self, protocol: AgentProtocol, now: float) -> bool:
        """Decide what has waited too long, as the policy says; True if that is of an interrupted turn."""
        due = self.requests.expire(now)
        resumes = any(self.requests.own_id(request_id) is None for request_id, _ in due)
        for request_id, decided in due:
            self._decide(protocol, request_id, decided)
        return resumes

    def _decide(self, protocol: AgentProtocol, request_id: str, decided: AutomaticAnswer) -> None:
        """Answer the agent without a client's command; one that has not asked again yet has its answer when it does."""
        own_id = self.requests.own_id(request_id)
        try:
            data = b"" if own_id is None else protocol.answer(own_id, decided.answer)
        except CommandRefused as refused:
            self._output.add(WriteLog(f"request {request_id} stays open: {refused}"))
            return
        self._resolve(request_id, summarize_answer(decided.answer).decision, decided.by)
        self._output.write_after_commit(data)

    def answer(self, protocol: AgentProtocol, waiting: InboxCommand) -> bool:
        """Somebody answers; True if that is of an interrupted turn, whose agent has to ask again.

        Raises `CommandRefused` for what cannot be, or was, answered.
        """
        command = waiting.command
        request_id, answer = command.request_id or "", command.answer
        own_id, carried = self.requests.own_id(request_id), self.requests.carried(request_id)
        if own_id is None and carried is None:
            decided = self.requests.decision_on(request_id)
            raise CommandRefused(f"answered already: {decided}" if decided else "no such request is open")
        changed = changed_input(answer)
        if changed is not None and self.requests.denies(request_id, changed):
            raise CommandRefused("the worker's policy denies the call with this input")
        if self.requests.worker_denies_calls and lets_ask_less(answer):
            raise CommandRefused("the worker's policy has to be asked each time: answer this one call alone")
        data = b"" if own_id is None else protocol.answer(own_id, answer)
        said, by = summarize_answer(answer)
        if carried is not None:
            if carried.name:
                read_decision(answer)
            self.requests.keep_answer(request_id, answer, by)
            self.set_fields()
        self._output.receipt(waiting, "applied")
        self._resolve(request_id, said, by)
        self._output.write_after_commit(data)
        return carried is not None

    def close(self, own_id: str, decision: str, by: str) -> None:
        """The agent says that one of its requests is closed."""
        public = self.requests.public_id(own_id)
        if public is not None:
            self._resolve(public, decision, by)

    def close_of_tool(self, protocol: AgentProtocol, tool_use_id: str) -> None:
        """A tool call has its result, so it needs no approval any more; the agent is told, as it may still wait."""
        ids = self.requests.of_tool(tool_use_id)
        data = self.withdrawals(protocol, ids)
        for request_id in ids:
            self._resolve(request_id, "withdrawn", "agent")
        self._output.write_after_commit(data)

    def withdraw(self, protocol: AgentProtocol | None, by: str, *, but_nested: bool = False) -> bytes:
        """Nobody will answer what is open: it is told, and the agent is, by the bytes that come back.

        ``but_nested``: leave open what sub-agents have asked.
        """
        ids = [one for one in self.requests.ids if not (but_nested and self.requests.is_nested(one))]
        data = b"" if protocol is None else self.withdrawals(protocol, ids)
        self.requests.forget_carried()
        for request_id in ids:
            self._resolve(request_id, "withdrawn", by)
        self.set_fields()
        return data

    def withdrawals(self, protocol: AgentProtocol, ids: list[str]) -> bytes:
        """What tells the agent that nobody will answer these requests."""
        own_ids = (self.requests.own_id(request_id) for request_id in ids)
        return b"".join(protocol.withdraw(own_id) for own_id in own_ids if own_id is not None)

    def _resolve(self, request_id: str, decision: str, by: str) -> None:
        self.requests.close(request_id, decision, by)
        self.set_fields()
        self._output.message(DraftMessage("approval_resolved", ApprovalResolved(request_id, decision, by)))
