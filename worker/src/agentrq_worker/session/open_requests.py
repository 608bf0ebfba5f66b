"""What an agent has asked and nobody has answered yet, who decided the rest, and what a cut turn left open. Pure.

Owns the requests' ids and fates, and what policy and deadlines say of them (approval_policy.py). Does not own statuses,
messages or the runner's language: session/approvals.py tells those.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from agentrq.wire.approval_policy import Policy
from agentrq.wire.call_targets import NO_DIRECTORIES
from agentrq.wire.codec import encode
from agentrq.wire.messages import ApprovalRequest, Question
from agentrq_worker.session import approval_policy
from agentrq_worker.session_types import InterruptedRequest

REMEMBERED: Final = 1000
"""How many closed requests are remembered, to tell a late answer who was first."""


class _Open:
    """An approval request or question that waits for its answer."""

    def __init__(self, own_id: str, tool_use_id: str | None, deadline: float | None) -> None:
        self.own_id = own_id
        """The runner's id for it."""
        self.tool_use_id = tool_use_id
        self.deadline = deadline
        """In seconds since the epoch, as it outlives workers."""


class AutomaticAnswer(NamedTuple):
    """An answer that needs nobody: of the policy, a deadline, or one that came before the question."""

    answer: Any
    by: str


class OpenRequests:
    """The requests of one writer of a session, by the ids that clients know."""

    def __init__(
        self,
        worker: Policy,
        session: Policy,
        carried: Iterable[InterruptedRequest] = (),
        fates: Mapping[str, str] | None = None,
    ) -> None:
        """``carried`` and ``fates`` are what earlier owners left."""
        self._worker = worker
        self._session = session
        self.directories = NO_DIRECTORIES
        """What the paths of the agent's calls are read against."""
        self._timed = session if session.deadline_s is not None else worker
        self._open: dict[str, _Open] = {}
        self._closed: dict[str, str] = dict(fates or {})
        self._carried = list(carried)

    def __bool__(self) -> bool:
        return bool(self._open)

    @property
    def may_expire(self) -> bool:
        """Requests may be decided by time."""
        return self._timed.deadline_s is not None

    @property
    def pending(self) -> int:
        """How many requests an answer may still be given to."""
        return len(self._open) + sum(carried.answer is None for carried in self._carried)

    @property
    def kept(self) -> bytes:
        """The answers stored for the resumed agent to ask again, as the state has them (see interrupted_turn.py)."""
        kept = {one.request_id: [one.answer, one.by] for one in self._carried if one.answer is not None}
        return encode(kept) if kept else b""

    def ask(self, content: ApprovalRequest | Question) -> tuple[str, AutomaticAnswer | None]:
        """The agent asks: the id that clients know it by, and the answer where one is there already."""
        is_approval = isinstance(content, ApprovalRequest)
        name = content.name if isinstance(content, ApprovalRequest) else ""
        given = approval_policy.plain(content.input if isinstance(content, ApprovalRequest) else content.questions)
        tool = content.tool_use_id if isinstance(content, ApprovalRequest) else None
        earlier = next(
            (one for one in self._carried if approval_policy.same_call(name, given, one.name, one.input)), None
        )
        public, since = content.request_id, time.time()
        if earlier is not None:
            self._carried.remove(earlier)
            if earlier.answer is None:
                # The same request, asked again: who was shown it may still answer it, and no later than before.
                public, since = earlier.request_id, earlier.asked_at / 1000
        self._open[public] = _Open(content.request_id, tool if isinstance(tool, str) else None, self._deadline(since))
        if earlier is not None and earlier.answer is not None:
            return public, AutomaticAnswer(earlier.answer, earlier.by)
        decision = (
            approval_policy.decide(self._worker, self._session, name, given, self.directories) if is_approval else "ask"
        )
        return public, None if decision == "ask" else AutomaticAnswer(decision, "policy")

    def _deadline(self, since: float) -> float | None:
        return None if self._timed.deadline_s is None else since + self._timed.deadline_s

    def expired(self) -> list[tuple[str, AutomaticAnswer]]:
        """The requests whose deadline has passed, each named once, and what is decided then.

        Those of a cut turn, which nobody has asked again yet, are answered by it when they are.
        """
        now, decided = time.time(), AutomaticAnswer(self._timed.on_deadline, "deadline")
        due: list[tuple[str, AutomaticAnswer]] = []
        for request_id, opened in self._open.items():
            if opened.deadline is not None and opened.deadline <= now:
                opened.deadline = None
                due.append((request_id, decided))
        for carried in list(self._carried):
            deadline = self._deadline(carried.asked_at / 1000)
            if deadline is not None and deadline <= now and self.keep_answer(carried.request_id, *decided):
                due.append((carried.request_id, decided))
        return due

    def own_id(self, request_id: str) -> str | None:
        """The runner's id for an open request; None for one that is not open."""
        opened = self._open.get(request_id)
        return None if opened is None else opened.own_id

    def of_runner(self, own_id: str) -> str | None:
        """The id that clients know for a request of the runner's."""
        return next((key for key, opened in self._open.items() if opened.own_id == own_id), None)

    def of_tool(self, tool_use_id: str) -> list[str]:
        """The open requests about one tool call."""
        return [key for key, opened in self._open.items() if opened.tool_use_id == tool_use_id]

    def all_open(self) -> list[str]:
        """Every open request."""
        return list(self._open)

    def close(self, request_id: str, decision: str, by: str) -> None:
        """A request has its fate."""
        self._open.pop(request_id, None)
        self._closed[request_id] = f"{decision} by {by}"
        if len(self._closed) > REMEMBERED:
            del self._closed[next(iter(self._closed))]

    def fate(self, request_id: str) -> str | None:
        """What became of a closed request: decision and by whom."""
        return self._closed.get(request_id)

    def keep_answer(self, request_id: str, answer: Any, by: str) -> bool:
        """An answer to a request of a cut turn: should the resumed agent ask the same again it has it at once."""
        for at, carried in enumerate(self._carried):
            if carried.request_id == request_id and carried.answer is None:
                self._carried[at] = carried._replace(answer=answer, by=by)
                return True
        return False

    def waits_to_be_asked(self, request_id: str) -> InterruptedRequest | None:
        """A request of a cut turn that has no answer yet."""
        return next((one for one in self._carried if one.request_id == request_id and one.answer is None), None)

    def forget_carried(self) -> list[str]:
        """The turn is over: what the resumed agent did not ask again, and nobody answered."""
        unasked = [carried.request_id for carried in self._carried if carried.answer is None]
        self._carried.clear()
        return unasked
