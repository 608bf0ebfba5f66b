"""What is said between a session and its runner, and what it means, from the first line to the end.

Owns the meaning of the agent's messages, the beginning and the end. Its rooms: session/turn.py (status),
session/approvals.py (approvals), prompt_queue.py (commands). Reads no pipe and starts nothing: lines come in, bytes go
out by ``write``, the end is told by ``over`` (session/shell.py does both).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from agentrq.wire.approval_policy import Policy
from agentrq.wire.call_targets import NO_DIRECTORIES, Directories
from agentrq.wire.commands import Options
from agentrq.wire.messages import (
    LIVE_ONLY,
    ApprovalRequest,
    ApprovalResolved,
    Cost,
    Error,
    Init,
    Question,
    SessionTotal,
    ToolResult,
)
from agentrq.wire.status import Reason, Status, check_move
from agentrq_worker.process.framing import LineTooLong
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import (
    AgentProtocol,
    Alive,
    Ended,
    Late,
    Log,
    ProtocolEvent,
    TurnStarted,
    Write,
)
from agentrq_worker.session.prompt_queue import PromptQueue
from agentrq_worker.session_types import ClaimedSession, InterruptedTurn, Outcome
from agentrq_worker.start_policy import EVERYTHING, StartPolicy
from agentrq_worker.stream.event_log import EventLog

log = logging.getLogger(__name__)

CONTINUE: Final = "You were interrupted in the middle of your work. Continue where you left off."
_BEGINS_TURN: Final = frozenset(
    {"text", "thinking", "text_delta", "thinking_delta", "tool_call", "approval_request", "question"}
)
_PLAIN: Final = LIVE_ONLY | {
    "text", "thinking", "tool_call", "status", "compaction", "rate_limit", "error", "unknown"
}  # fmt: skip
"""Types that mean nothing to a session that is ``running`` already."""


class SessionMachine(PromptQueue):
    """One writer's part of a session's talk, from its runner's first line to the end."""

    def __init__(
        self,
        claimed: ClaimedSession,
        options: Options,
        lane: EventLog,
        worker_policy: Policy,
        write: Callable[[bytes], None],
        over: Callable[[Outcome], None],
        start_policy: StartPolicy = EVERYTHING,
    ) -> None:
        super().__init__(claimed, options, lane, worker_policy, write, over, start_policy)
        self.said_over = False
        self._options = options

    # -- the beginning

    def begin(
        self, dialect: AgentProtocol, pid: int, enforced: str = "", directories: Directories = NO_DIRECTORIES
    ) -> None:
        """The runner runs: hand over the first prompt, or resume. ``enforced``: what its sandbox holds it to.

        ``directories``: what the paths of its calls are read against.
        """
        self._dialect = dialect
        self.requests.directories = directories
        claimed, cut = self._claimed, self._claimed.cut
        fields: dict[str, Any] = {"pid": pid}
        if enforced or claimed.recovering:  # the last owner may have held it to something else
            fields["enforced"] = enforced
        if claimed.recovering:
            fields["pendingApprovals"] = self.requests.pending
        self._write(dialect.open())
        if not claimed.recovering:
            self._hand_over(claimed.prompt, self._id, None, fields | {"prompted": 1})
        elif cut is not None and self._options.on_interrupt == "continue":
            text = CONTINUE if self._options.resume is not None else cut.prompt or claimed.prompt
            self._hand_over(text, f"{self._id}-continue-{self._lane.epoch}", None, fields)
        else:
            if cut is None:  # it was idle and is again: the loss was not its doing
                fields["recoveries"] = 0
            self._move(Status.IDLE, fields)
            self._next_turn()
        early, self._early = self._early, []
        for waiting in early:
            self.deliver(waiting)

    def close_cut_turn(self, cut: InterruptedTurn) -> None:
        """Say that the last owner's turn was cut; no tool call stays without an answer."""
        for call, parent in cut.open_calls:
            answer = ToolResult(call, "Interrupted: the session's worker ended before the tool answered", True)
            self._lane.add_message("tool_result", answer, parent)
        interrupted = Error("The turn was interrupted: its worker ended", "turn_interrupted")
        self._lane.add_message("error", interrupted, None, {"turn": 0})

    # -- what the runner says

    def lines(self, lines: Iterable[bytes | LineTooLong]) -> None:
        """Lines of the runner's stdout that came together."""
        assert self._dialect is not None
        receive = self._dialect.receive
        plain: list[DraftMessage] = []
        for line in lines:
            for said in receive(line) if isinstance(line, bytes) else _too_long(line):
                if type(said) is DraftMessage and said.type in _PLAIN and self.status is Status.RUNNING:
                    plain.append(said)
                    continue
                if plain:
                    self._lane.add_messages(plain)
                    plain.clear()
                if type(said) is DraftMessage:
                    self._publish(said)
                else:
                    self._heed(said)
        if plain:
            self._lane.add_messages(plain)

    def _heed(self, said: ProtocolEvent) -> None:
        """What a line means beside messages."""
        if isinstance(said, TurnStarted):
            self._alive()
        elif isinstance(said, Alive):
            if said.by_itself or self.busy or self.status is not Status.IDLE:
                self._alive()
        elif isinstance(said, Write):
            self._write(said.data)
        elif isinstance(said, Late):
            self._came_late(said.text)
        elif isinstance(said, Log):
            log.info("session %s: runner: %s", self._id, said.text)
        elif isinstance(said, Ended):
            self.said_over = True
            if said.error is not None:
                self._finish(Outcome(Status.ERROR, Reason.FAILED, said.error))
            else:
                self._finish(Outcome(Status.DONE, Reason.COMPLETED))

    def _publish(self, draft: DraftMessage) -> None:
        """One message of the agent, and what it means for the session."""
        kind, content = draft.type, draft.content
        if self.status is Status.STARTING or (self.status is Status.IDLE and kind in _BEGINS_TURN):
            self._alive()
        if kind in LIVE_ONLY:
            self._lane.add_messages((draft,))
        elif isinstance(content, ApprovalRequest | Question):
            self._asked(draft, content)
        elif isinstance(content, ApprovalResolved):
            self._withdrawn(content)
        elif isinstance(content, Cost):
            self._turn_over(content)
        else:
            fields = None
            if isinstance(content, Init):
                fields = _texts(providerSessionId=content.provider_session_id, model=content.model, cwd=content.cwd)
            self._lane.add_message(kind, content, draft.parent_id, fields)
            if isinstance(content, ToolResult) and self.requests:
                for request_id in self.requests.of_tool(content.tool_use_id):  # it needs no approval any more
                    self._resolve(request_id, "withdrawn", "agent")

    def _turn_over(self, cost: Cost) -> None:
        fields: dict[str, Any] = {"turn": 0, "recoveries": 0}
        if self.requests.kept:
            fields["kept"] = ""
        for request_id in [*self.requests.all_open(), *self.requests.forget_carried()]:
            self._resolve(request_id, "withdrawn", "agent")
        total = cost.session_total
        if isinstance(total, SessionTotal):
            fields |= {"costUsd": total.cost_usd, "inputTokens": total.input_tokens,
                       "outputTokens": total.output_tokens, "numTurns": total.num_turns}  # fmt: skip
        self._lane.add_message("cost", cost, None, fields)
        self.busy = False
        self.turn_began = None
        most = self._options.max_turns
        if most is not None and isinstance(total, SessionTotal) and total.num_turns >= most:
            self._finish(Outcome(Status.DONE, Reason.MAX_TURNS))
        if self.leaving and not self._late:
            self._finish(Outcome(None, handed_over=True))
        if not self._next_turn() and self.status is not Status.IDLE:
            self.idle_since = time.monotonic()
            self._move(Status.IDLE)

    # -- the end

    def farewell(self) -> bytes:
        """What asks the runner to end."""
        return b"" if self._dialect is None else self._dialect.stop()

    def close_calls(self, reason: str) -> None:
        """No tool call stays without an answer."""
        if self._dialect is not None:
            for draft in self._dialect.close(reason):
                self._lane.add_message(draft.type, draft.content, draft.parent_id)

    def end(self, outcome: Outcome, exit_code: int | None) -> None:
        """Write the end, or that the session moves on."""
        if outcome.status is None:
            self.close_calls("Interrupted: the session moves to another worker")
            # Without token and claim the state knows no owner: this is the last that is written from here.
            self._move(
                Status.RECOVERING, {"worker": "", "token": "", "claim": "", "pendingApprovals": self.requests.pending}
            )
            return
        assert outcome.reason is not None
        self.close_calls("Interrupted: the session ended before the tool answered")
        check_move(self.status, outcome.status, outcome.reason)
        fields = {} if exit_code is None else {"exitCode": exit_code}
        self._lane.add_end(outcome.status, outcome.reason, outcome.error, fields)


def _too_long(line: LineTooLong) -> tuple[DraftMessage]:
    text = f"A line of {line.bytes} bytes is over the limit"
    return (DraftMessage("error", Error(text, "line_too_long", bytes=line.bytes)),)


def _texts(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if isinstance(value, str)}
