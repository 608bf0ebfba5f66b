"""What an agent has asked and nobody has answered yet, who decided the rest, and what an interrupted turn left. Pure.

Owns the requests' ids, decisions and deadlines. Does not own what policies say (session/approval_policy.py), nor
statuses, messages or the agent's language (session/approvals.py). Times are monotonic, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from agentrq.wire.approval_policy import Policy
from agentrq.wire.call_targets import NO_DIRECTORIES
from agentrq.wire.codec import encode
from agentrq.wire.messages import ApprovalRequest, Question
from agentrq.wire.state import StateRequest
from agentrq_worker.session import approval_policy
from agentrq_worker.session_types import InterruptedRequest

REMEMBERED: Final = 1000
"""How many closed requests are remembered, to tell a late answer who was first."""


class _Open:
    """An approval request or question that waits for its answer."""

    def __init__(
        self, own_id: str, name: str, tool_use_id: str | None, since: float, deadline: float | None, nested: bool
    ) -> None:
        self.own_id = own_id
        """The agent's id for it."""
        self.name = name
        """The tool's; empty for a question."""
        self.tool_use_id = tool_use_id
        self.since = since
        self.deadline = deadline
        self.nested = nested
        """A sub-agent asks."""


class _Carried(NamedTuple):
    """A request of an interrupted turn that the resumed agent has not asked again, and since when it is open."""

    request: InterruptedRequest
    since: float


class AutomaticAnswer(NamedTuple):
    """An automatic answer: from policy, a deadline, or one stored before the agent asked again."""

    answer: Any
    by: str


class OpenRequests:
    """The requests that wait for an answer under one owner of a session, by their public ids."""

    def __init__(
        self,
        worker: Policy,
        session: Policy,
        carried: Iterable[tuple[InterruptedRequest, float]] = (),
        decisions: Mapping[str, str] | None = None,
        redis_zero_ms: float = 0.0,
    ) -> None:
        """``carried``: requests that earlier owners left, each with its time of opening; ``decisions``: theirs too.

        ``redis_zero_ms``: what Redis's clock, in ms, shows when the monotonic one shows 0.
        """
        self._worker = worker
        self._session = session
        self.directories = NO_DIRECTORIES
        """Directories that relative paths of calls refer to; set at the runner's launch."""
        self._timed = session if session.deadline_s is not None else worker
        self.open: dict[str, _Open] = {}
        """Requests that the agent waits for."""
        self._closed: dict[str, str] = dict(decisions or {})
        self._carried = [_Carried(request, since) for request, since in carried]
        self._redis_zero_ms = redis_zero_ms

    @property
    def ids(self) -> list[str]:
        """Requests that can still be answered, including those of an interrupted turn."""
        return [*self.open, *(one.request.request_id for one in self._carried if one.request.answer is None)]

    @property
    def states(self) -> tuple[StateRequest, ...]:
        """The same requests as the session's state has them; the cursors of those asked here are not known here."""
        asked = [
            self._state(request_id, opened.name, opened.since, opened.deadline)
            for request_id, opened in self.open.items()
        ]
        carried = [
            self._state(request.request_id, request.name, since, self._deadline(since), request.cursor)
            for request, since in self._carried
            if request.answer is None
        ]
        return (*asked, *carried)

    def _state(
        self, request_id: str, name: str, since: float, deadline: float | None, cursor: str = ""
    ) -> StateRequest:
        return StateRequest(
            id=request_id,
            kind="approval" if name else "question",
            name=name,
            asked_at=self._redis_ms(since),
            deadline=None if deadline is None else self._redis_ms(deadline),
            cursor=cursor,
        )

    def _redis_ms(self, moment: float) -> int:
        return round(self._redis_zero_ms + moment * 1000)

    @property
    def waits_for_people(self) -> bool:
        """A request of an interrupted turn has no answer yet."""
        return any(one.request.answer is None for one in self._carried)

    @property
    def kept(self) -> bytes:
        """The answers stored for the resumed agent to ask again, as the state has them."""
        kept = {one.request_id: [one.answer, one.by] for one, _ in self._carried if one.answer is not None}
        return encode(kept) if kept else b""

    @property
    def deadline(self) -> float | None:
        """When the next request reaches its deadline."""
        if self._timed.deadline_s is None:
            return None
        due = [opened.deadline for opened in self.open.values() if opened.deadline is not None]
        due += [one.since + self._timed.deadline_s for one in self._carried if one.request.answer is None]
        return min(due, default=None)

    def ask(
        self, content: ApprovalRequest | Question, now: float, *, nested: bool = False
    ) -> tuple[str, AutomaticAnswer | None]:
        """The agent asks: the id that clients know it by, and the answer where there is one already.

        ``nested``: one of its sub-agents does.
        """
        is_approval = isinstance(content, ApprovalRequest)
        name = content.name if isinstance(content, ApprovalRequest) else ""
        given = approval_policy.plain(content.input if isinstance(content, ApprovalRequest) else content.questions)
        tool = content.tool_use_id if isinstance(content, ApprovalRequest) else None
        earlier = next(
            (
                one
                for one in self._carried
                if approval_policy.same_call(name, given, one.request.name, one.request.input)
            ),
            None,
        )
        since, public = now, content.request_id
        if earlier is not None:
            self._carried.remove(earlier)
            if earlier.request.answer is None:
                # The same request, asked again: who was shown it may still answer it, and no later than before.
                public, since = earlier.request.request_id, earlier.since
        if earlier is None or earlier.request.answer is not None:
            public = self._unused(public)
        tool = tool if isinstance(tool, str) else None
        self.open[public] = _Open(content.request_id, name, tool, since, self._deadline(since), nested)
        if earlier is not None and earlier.request.answer is not None:
            return public, AutomaticAnswer(earlier.request.answer, earlier.request.by)
        if not is_approval:
            return public, None
        decision = approval_policy.decide(self._worker, self._session, name, given, self.directories)
        return public, None if decision == "ask" else AutomaticAnswer(decision, "policy")

    def _unused(self, request_id: str) -> str:
        """The id itself, or one made of it where the session has given it before."""
        known = {*self.open, *self._closed, *(one.request.request_id for one in self._carried)}
        public, count = request_id, 1
        while public in known:
            count += 1
            public = f"{request_id}~{count}"
        return public

    def _deadline(self, since: float) -> float | None:
        return None if self._timed.deadline_s is None else since + self._timed.deadline_s

    def expire(self, now: float) -> list[tuple[str, AutomaticAnswer]]:
        """The requests whose deadline has passed, each named once, and what is decided then.

        Those of an interrupted turn, which nobody has asked again yet, are answered by it when they are.
        """
        decided = AutomaticAnswer(self._timed.on_deadline, "deadline")
        due: list[tuple[str, AutomaticAnswer]] = []
        for request_id, opened in self.open.items():
            if opened.deadline is not None and opened.deadline <= now:
                opened.deadline = None
                due.append((request_id, decided))
        for request, since in list(self._carried):
            deadline = self._deadline(since)
            if deadline is not None and deadline <= now and self.keep_answer(request.request_id, *decided):
                due.append((request.request_id, decided))
        return due

    def own_id(self, request_id: str) -> str | None:
        """The agent's id for an open request; None for one that is not open."""
        opened = self.open.get(request_id)
        return None if opened is None else opened.own_id

    def is_nested(self, request_id: str) -> bool:
        """Whether an open request is a sub-agent's."""
        opened = self.open.get(request_id)
        return opened is not None and opened.nested

    def public_id(self, own_id: str) -> str | None:
        """The id that clients know for an open request of the agent."""
        return next((key for key, opened in self.open.items() if opened.own_id == own_id), None)

    def of_tool(self, tool_use_id: str) -> list[str]:
        """The open requests about one tool call."""
        return [key for key, opened in self.open.items() if opened.tool_use_id == tool_use_id]

    def close(self, request_id: str, decision: str, by: str) -> None:
        """A request is decided or withdrawn."""
        self.open.pop(request_id, None)
        self._closed[request_id] = f"{decision} by {by}"
        if len(self._closed) > REMEMBERED:
            del self._closed[next(iter(self._closed))]

    def decision_on(self, request_id: str) -> str | None:
        """What became of a closed request: decision and by whom."""
        return self._closed.get(request_id)

    def keep_answer(self, request_id: str, answer: Any, by: str) -> bool:
        """An answer to a request of an interrupted turn: the resumed agent has it at once if it asks the same again."""
        for at, (request, since) in enumerate(self._carried):
            if request.request_id == request_id and request.answer is None:
                self._carried[at] = _Carried(request._replace(answer=answer, by=by), since)
                return True
        return False

    @property
    def worker_denies_calls(self) -> bool:
        """Whether there are calls that the worker's policy denies."""
        return self._worker.default == "deny" or any(rule.decision == "deny" for rule in self._worker.rules)

    def denies(self, request_id: str, given: Any) -> bool:
        """Whether the worker's policy denies the open request if its input is ``given`` in place of the agent's."""
        opened, carried = self.open.get(request_id), self.carried(request_id)
        name = opened.name if opened is not None else carried.name if carried is not None else ""
        return bool(name) and self._worker.decide(name, given, self.directories) == "deny"

    def carried(self, request_id: str) -> InterruptedRequest | None:
        """A request of an interrupted turn that has no answer yet."""
        return next(
            (one for one, _ in self._carried if one.request_id == request_id and one.answer is None),
            None,
        )

    def forget_carried(self) -> None:
        """The turn is over: what the resumed agent did not ask again is not asked any more."""
        self._carried.clear()
