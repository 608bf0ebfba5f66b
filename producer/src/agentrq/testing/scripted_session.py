"""One session of a scripted agent: takes the steps of a turn, and carries out what clients ask.

Owns the turn, the prompts that wait, the open requests and the figures; the rules are those of docs/reference
(commands.md, approvals.md, events.md), as far as a backend sees them. Writing is session_writer.py's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Final

import msgspec

from agentrq.testing.session_writer import Claim, SessionWriter
from agentrq.testing.steps import Ask, Die, End, EndTurn, Hold, Say, Step, cost
from agentrq.wire.codec import encode
from agentrq.wire.commands import Command
from agentrq.wire.feed import feed_members
from agentrq.wire.messages import ApprovalRequest, ApprovalResolved, Cost, Error, Prompt, SessionTotal
from agentrq.wire.state import StateRequest
from agentrq.wire.status import Reason, Status

CONTINUE: Final = "Continue from where you were interrupted."


class WorkerDied(Exception):
    """The script has the worker die."""


class ScriptedSession:
    """One session, owned by the scripted agent's worker."""

    def __init__(
        self, writer: SessionWriter, claim: Claim, next_turn: Callable[[str, str], Generator[Step, Any, None]]
    ) -> None:
        """``next_turn`` gives the steps of the turn that a session and a prompt begin."""
        self.writer = writer
        self.ended = False
        self.holding = False
        """The turn waits for `go_on`."""
        self._claim = claim
        self._next_turn = next_turn
        self._turn: Generator[Step, Any, None] | None = None
        self._prompts: deque[tuple[bytes, Command]] = deque()
        self._requests: dict[str, StateRequest] = {}
        self._decided: dict[str, str] = {}
        self._total = SessionTotal()
        self._seen: set[bytes] = set()

    def begin(self) -> None:
        """Work on the first prompt; a session that was taken over from a lost worker goes on."""
        if self._claim.prompt and self.writer.epoch > 1 and not self._claim.cut:
            self._settle()
            return
        if self._claim.cut:
            self.writer.message("error", Error("Its worker was lost in the middle of this turn", "turn_interrupted"))
            self._begin_turn(CONTINUE, f"{self.writer.session_id}-continue-{self.writer.epoch}")
        else:
            self._begin_turn(self._claim.prompt, self.writer.session_id)

    def go_on(self) -> None:
        """End a hold."""
        if self.holding:
            self.holding = False
            self._advance(None)

    def fail(self, error: str) -> None:
        """End in error: the script cannot be played."""
        if not self.ended:
            self._end(End(Status.ERROR, Reason.FAILED, error))

    # -- commands

    def read_inbox(self) -> None:
        """Carry out the commands that wait and were not carried out yet."""
        for entry, data in self.writer.inbox():
            if entry in self._seen or self.ended:
                continue
            self._seen.add(entry)
            self._carry_out(entry, msgspec.json.decode(data, type=Command))

    def _carry_out(self, entry: bytes, command: Command) -> None:
        kind = command.command
        if kind == "stop":
            self._end(End(Status.DONE, Reason.STOPPED))
        elif kind == "prompt":
            self._prompt(entry, command)
        elif kind == "answer":
            self._answer(entry, command)
        elif kind == "interrupt" and self._turn is None:
            self._reject(entry, command, "idle")
        else:
            self._apply(entry, command)
            if kind == "interrupt":
                self._end_turn(cost().cost, "interrupted")
                self._next_prompt()

    def _prompt(self, entry: bytes, command: Command) -> None:
        if self._turn is not None and command.mode == "steer":
            self.writer.message("prompt", Prompt(command.text or "", command.command_id))
            self._apply(entry, command)
            return
        if self._turn is not None and command.mode == "interrupt":
            self._prompts.appendleft((entry, command))
            self._end_turn(cost().cost, "interrupted")
        else:
            self._prompts.append((entry, command))
        self._next_prompt()

    def _answer(self, entry: bytes, command: Command) -> None:
        request_id, answer = command.request_id or "", command.answer
        request = self._requests.get(request_id)
        if request is None:
            decided = self._decided.get(request_id)
            self._reject(entry, command, f"answered already: {decided}" if decided else "no such request is open")
            return
        given = answer if isinstance(answer, dict) else {"decision": answer}
        decision = given.get("decision")
        if request.kind == "approval" and decision not in ("allow", "deny"):
            why = 'an approval is answered by "allow" or "deny", or an object with a decision'
            self._reject(entry, command, why)
            return
        self._apply(entry, command)
        self._resolve(request_id, decision if decision in ("allow", "deny") else "answer", given.get("by") or "client")
        self._settle()
        self._advance(answer)

    def _apply(self, entry: bytes, command: Command) -> None:
        self.writer.receipt(entry, command.command_id, command.command, "applied")

    def _reject(self, entry: bytes, command: Command, reason: str) -> None:
        self.writer.receipt(entry, command.command_id, command.command, "rejected", reason)

    # -- the turn

    def _begin_turn(self, prompt: str, command_id: str, waiting: tuple[bytes, Command] | None = None) -> None:
        self.writer.message("prompt", Prompt(prompt, command_id), {"turn": 1, "prompted": 1})
        if waiting is not None:
            self._apply(*waiting)
        self._turn = self._next_turn(self.writer.session_id, prompt)
        self._settle()
        self._advance(None)

    def _next_prompt(self) -> None:
        if self._turn is None and self._prompts and not self.ended:
            entry, command = self._prompts.popleft()
            self._begin_turn(command.text or "", command.command_id, (entry, command))
        else:
            self._settle()

    def _advance(self, value: Any) -> None:
        """Take steps until one waits, or the turn or the session is over."""
        while self._turn is not None:
            try:
                step = self._turn.send(value)
            except StopIteration:
                step = cost()
            value = None
            if isinstance(step, Say):
                for kind, content in step.messages:
                    self.writer.message(kind, content)
            elif isinstance(step, Ask):
                self._ask(step.content)
                return
            elif isinstance(step, Hold):
                self.holding = True
                return
            elif isinstance(step, EndTurn):
                self._end_turn(step.cost, "failed" if step.cost.is_error else "whole")
                self._next_prompt()
                return
            elif isinstance(step, End):
                self._end(step)
            elif isinstance(step, Die):
                raise WorkerDied
            else:
                raise TypeError(f"A turn is made of steps (agentrq.testing.steps), got {step!r}"[:200])

    def _end_turn(self, figures: Cost, how: str) -> None:
        self._close_turn()
        total = self._total = SessionTotal(
            self._total.cost_usd + figures.total_cost_usd,
            self._total.input_tokens + figures.input_tokens,
            self._total.output_tokens + figures.output_tokens,
            self._total.num_turns + figures.num_turns,
        )
        fields = {
            "turn": 0, "lastTurn": how, "costUsd": total.cost_usd, "inputTokens": total.input_tokens,
            "outputTokens": total.output_tokens, "numTurns": total.num_turns,
        }  # fmt: skip
        self.writer.message("cost", msgspec.structs.replace(figures, session_total=total), fields)
        told = feed_members(
            "turn", turn=how, inputTokens=figures.input_tokens, outputTokens=figures.output_tokens,
            costUsd=figures.total_cost_usd or None,
        )  # fmt: skip
        self._settle(feed=[told])

    def _close_turn(self) -> None:
        turn, self._turn, self.holding = self._turn, None, False
        if turn is not None:
            turn.close()
        for request_id in list(self._requests):
            self._resolve(request_id, "withdrawn", "agent")

    def _end(self, step: End) -> None:
        in_turn = self._turn is not None
        self._close_turn()
        fields = {"turn": 0, "lastTurn": "cut"} if in_turn else {}
        self.writer.end(step.status, step.reason, step.error, fields)
        self.ended = True

    # -- requests

    def _ask(self, content: Any) -> None:
        approval = isinstance(content, ApprovalRequest)
        place = f"{self.writer.epoch}-{self.writer.seq + 1}"
        self._requests[content.request_id] = StateRequest(
            id=content.request_id,
            kind="approval" if approval else "question",
            name=content.name if approval else "",
            asked_at=self.writer.now_ms(),
            cursor=place,
        )
        self.writer.message("approval_request" if approval else "question", content, self._request_fields())
        self._settle()

    def _resolve(self, request_id: str, decision: str, by: str) -> None:
        del self._requests[request_id]
        self._decided[request_id] = f"{decision} by {by}"
        resolved = ApprovalResolved(request_id, decision, by)
        self.writer.message("approval_resolved", resolved, self._request_fields())

    def _request_fields(self) -> dict[str, Any]:
        return {
            "pendingApprovals": len(self._requests),
            "openRequests": encode(list(self._requests)),
            "requests": encode(list(self._requests.values())),
        }

    def _settle(self, feed: list[bytes] | None = None) -> None:
        """Bring the status in line with what is open."""
        status = Status.WAITING if self._requests else Status.RUNNING if self._turn is not None else Status.IDLE
        self.writer.enter(status, feed or [])
