"""What is told of one session beside its events, from what its machine wants done: figures, and log lines.

Owns which effect begins and ends what is timed or logged. Does not own the figures (measurements.py); decides nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

from agentrq.wire.messages import ApprovalRequest, ApprovalResolved, Prompt, Question, ToolCall, ToolResult
from agentrq_worker.logs import event
from agentrq_worker.measurements import Measurements
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.session import effects
from agentrq_worker.session.effects import Effect
from agentrq_worker.session_types import ClaimedSession

log = logging.getLogger(__name__)

MOST_OPEN: Final = 1000
"""Calls and requests of one session that are timed at the same time; an agent may name any number of them."""
_DECISIONS: Final = frozenset({"allow", "deny", "withdrawn"})


class SessionObserver:
    """Observes one owner of a session. Times are monotonic, in seconds."""

    def __init__(self, measurements: Measurements, claimed: ClaimedSession, epoch: int, now: float) -> None:
        self._figures = measurements
        self._session_id = claimed.session_id
        self._epoch = epoch
        self._provider = claimed.provider
        self._takeover = claimed.takeover
        self._turn = claimed.total.num_turns
        """The number of the turn that began last."""
        self.awaits_output = True
        """The runner has printed nothing yet."""
        self._claimed_at = now
        self._turn_began: float | None = None
        self._last_turn = claimed.last_turn or ""
        self._model = ""
        self._total: dict[str, float] = {
            "costUsd": claimed.total.cost_usd,
            "inputTokens": claimed.total.input_tokens,
            "outputTokens": claimed.total.output_tokens,
        }
        self._tools: dict[str, float] = {}
        self._requests: dict[str, float] = {}

    def output_began(self, now: float) -> None:
        """The runner has printed its first bytes."""
        if self.awaits_output:
            self._figures.claim_to_output.add(now - self._claimed_at, self._provider)
            self.awaits_output = False

    def tools(self, drafts: Iterable[DraftMessage], now: float) -> None:
        """Messages among which there may be tool calls and results."""
        for draft in drafts:
            if draft.type in ("tool_call", "tool_result"):
                self._message(draft, now)

    def effect(self, effect: Effect, now: float, redis_ms: int) -> None:
        """Any other effect; ``redis_ms``: ``now`` by Redis's clock."""
        if isinstance(effect, effects.PublishMessage):
            self._message(effect.draft, now)
        if isinstance(effect, effects.PublishReceipt):
            self._figures.commands.add(effect.command, effect.outcome)
            arrived, _, _ = effect.entry.partition(b"-")
            if arrived.isdigit():
                self._figures.receipt.add((redis_ms - int(arrived)) / 1000, effect.command)
            kind, outcome = effect.command, effect.outcome
            self._log("command_done", f"{kind} {outcome}", command=effect.command_id, kind=kind, outcome=outcome)
        fields: dict[str, Any] = getattr(effect, "fields", {})
        if fields:
            self._changed(fields, now)
        if isinstance(effect, effects.PublishMessage) and isinstance(effect.draft.content, Prompt):
            command = effect.draft.content.command_id
            self._log("turn_began", "a prompt is handed over", turn=self._turn, command=command)

    def _message(self, draft: DraftMessage, now: float) -> None:
        content = draft.content
        if isinstance(content, ToolCall):
            _begin(self._tools, content.tool_use_id, now)
        elif isinstance(content, ToolResult):
            began = self._tools.pop(content.tool_use_id, None)
            if began is not None:
                self._figures.tool.add(now - began, self._provider)
        elif isinstance(content, ApprovalRequest | Question):
            _begin(self._requests, content.request_id, now)
        elif isinstance(content, ApprovalResolved):
            began = self._requests.pop(content.request_id, None)
            if began is not None:
                decision = content.decision if content.decision in _DECISIONS else "answer"
                self._figures.approval_wait.add(now - began, self._provider, decision)

    def _changed(self, fields: dict[str, Any], now: float) -> None:
        """State fields that change with an event."""
        if "pid" in fields:
            self._log_start()
        model = fields.get("model")
        if model is not None:
            self._model = model
        self._last_turn = fields.get("lastTurn", self._last_turn)
        if fields.get("turn") == 1:
            self._turn_began = now
            self._turn += 1
        elif fields.get("turn") == 0:
            self._figures.turns.add(self._provider, self._last_turn)
            if self._turn_began is not None:
                self._figures.turn.add(now - self._turn_began, self._provider, self._last_turn)
            self._turn_began = None
            self._tools.clear()
            self._log("turn_ended", f"the turn is {self._last_turn}", turn=self._turn, outcome=self._last_turn)
        for name, before in self._total.items():
            if name in fields:
                self._spent(name, fields[name] - before)
                self._total[name] = fields[name]

    def _log_start(self) -> None:
        """The runner runs: of a start that is refused nothing has begun."""
        members = {"provider": self._provider, "epoch": self._epoch}
        if self._takeover:
            log.info("session %s: taken over (%s), provider %s", self._session_id, self._takeover.replace("_", " "),
                     self._provider, extra=event("session_taken_over", cause=self._takeover, **members))  # fmt: skip
        else:
            log.info("session %s: started, provider %s", self._session_id, self._provider,
                     extra=event("session_started", **members))  # fmt: skip

    def _log(self, name: str, text: str, **members: Any) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("session %s: %s", self._session_id, text, extra=event(name, epoch=self._epoch, **members))

    def _spent(self, name: str, amount: float) -> None:
        if name == "costUsd":
            self._figures.cost.add(self._provider, self._model, amount=amount)
        else:
            direction = name.removesuffix("Tokens")
            self._figures.tokens.add(self._provider, self._model, direction, amount=amount)


def _begin(open_since: dict[str, float], one: Any, now: float) -> None:
    if isinstance(one, str) and len(open_since) < MOST_OPEN:
        open_since[one] = now
