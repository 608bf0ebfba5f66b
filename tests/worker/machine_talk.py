"""A session machine with everything around it that a test looks at: a scripted agent, a clock, what was performed."""

from __future__ import annotations

import json
from typing import Any

from agentrq.wire.approval_policy import Policy, read_policy
from agentrq.wire.codec import encode
from agentrq.wire.commands import Command, Options, make_options
from agentrq.wire.messages import ApprovalRequest, Cost, SessionTotal
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.protocol import AgentProtocol, CommandRefused, ProtocolEvent, Sent
from agentrq_worker.session import effects, inputs
from agentrq_worker.session.machine import SessionMachine
from agentrq_worker.session_types import ClaimedSession, InboxCommand, InterruptedRequest, InterruptedTurn, Outcome

REDIS_MS = 1_800_000_000_000


class Scripted(AgentProtocol):
    """An agent that says what a test puts into `says`; what it is asked for is written by its name."""

    def __init__(self) -> None:
        self.says: list[ProtocolEvent] = []
        self.can = True
        self.confirms = False
        """Commands wait for a `Reply` by their name."""
        self.ready = True
        self.leaves: list[DraftMessage] = []
        """What is still to be said when it is gone."""
        self.late_texts: list[DraftMessage] = []
        self.turn_end: list[DraftMessage] = []

    @property
    def is_ready(self) -> bool:
        return self.ready

    def command(self, program: list[str], options: Options) -> list[str]:
        return program

    def prompt(self, text: str) -> bytes:
        return f"prompt {text}".encode()

    def _if_it_can(self, words: str) -> bytes:
        if not self.can:
            raise CommandRefused("it cannot")
        return words.encode()

    def _confirmed(self, words: str) -> Sent:
        return Sent(self._if_it_can(words), words.split(maxsplit=1)[0] if self.confirms else None)

    def steer(self, text: str) -> bytes:
        return self._if_it_can(f"steer {text}")

    def interrupt(self) -> Sent:
        return self._confirmed("interrupt")

    def set_model(self, model: str) -> Sent:
        return self._confirmed(f"model {model}")

    def set_permission_mode(self, mode: str) -> Sent:
        return self._confirmed(f"mode {mode}")

    def answer(self, request_id: str, answer: Any) -> bytes:
        return self._if_it_can(f"answer {request_id} {json.dumps(answer)}")

    def withdraw(self, request_id: str) -> bytes:
        return f"; withdraw {request_id}".encode()

    def stop(self) -> bytes:
        return b"stop"

    def receive(self, line: bytes) -> list[ProtocolEvent]:
        return self.says

    def finish_texts(self) -> list[DraftMessage]:
        texts, self.late_texts = self.late_texts, []
        return texts

    def end_turn(self, reason: str) -> list[DraftMessage]:
        return self.turn_end

    def close(self, reason: str) -> list[DraftMessage]:
        left, self.leaves = self.leaves, []
        return left


class Talk:
    """One owner's session from the claim on."""

    def __init__(
        self,
        *,
        cut: InterruptedTurn | None = None,
        recovering: bool = False,
        worker: Policy | None = None,
        claimed: dict[str, Any] | None = None,
        handshake_s: float = 60.0,
        **options: Any,
    ) -> None:
        self.now = 1000.0
        self.written: list[str] = []
        self.seen: list[dict[str, Any]] = []
        """Every event, as JSON objects."""
        self.state: dict[str, Any] = {}
        self.timer: float | None = None
        self.ended: list[str] = []
        """What `EndRunner` said, each time."""
        self.effects: list[effects.Effect] = []
        self.agent = Scripted()
        chosen = make_options(options)
        session = ClaimedSession("s", "x", "first", chosen, recovering, cut, 0, SessionTotal(), REDIS_MS)
        self.machine = SessionMachine(
            session._replace(**claimed or {}), chosen, 1, worker_policy=worker or read_policy(None),
            handshake_s=handshake_s, now=self.now, redis_ms=REDIS_MS,
        )  # fmt: skip
        self._entries = 0

    # -- what happens

    def feed(self, given: inputs.Input) -> Talk:
        for effect in self.machine.handle(given, self.now):
            self.effects.append(effect)
            self._perform(effect)
        return self

    def begin(self) -> Talk:
        self.feed(inputs.Opened())
        if self.outcome is None:
            self.feed(inputs.RunnerStarted(self.agent, 7))
        return self

    def say(self, *said: ProtocolEvent) -> Talk:
        """One line that means all this."""
        self.agent.says = list(said)
        return self.feed(inputs.LinesRead([b"{}"]))

    def command(self, kind: Any, *, unsent: Any = 0, **members: Any) -> str:
        self._entries += 1
        command_id = f"c{self._entries}"
        waiting = InboxCommand(b"%d-0" % self._entries, Command(command_id, kind, **members))
        self.feed(inputs.CommandReceived(waiting, unsent))
        return command_id

    def wait(self, seconds: float) -> Talk:
        """Time passes; the timer fires whenever it was set for."""
        until = self.now + seconds
        while self.timer is not None and self.timer <= until:
            self.now, self.timer = max(self.now, self.timer), None
            self.feed(inputs.TimerFired())
        self.now = until
        return self

    def leave(self, *, at_once: bool = False) -> Talk:
        return self.feed(inputs.LeaveRequested(at_once))

    def gone(self, code: int | None = 0) -> Talk:
        """The runner has ended, and all that it wrote has been read."""
        self.feed(inputs.RunnerExited())
        return self.feed(inputs.RunnerGone(code))

    def _perform(self, effect: effects.Effect) -> None:
        if isinstance(effect, effects.PublishMessages):
            for draft in effect.drafts:
                self._message(draft)
        elif isinstance(effect, effects.PublishMessage):
            self._message(effect.draft)
            self.state |= effect.fields
        elif isinstance(effect, effects.PublishStatus):
            self.seen.append({"status": effect.status.value})
            self.state |= effect.fields
        elif isinstance(effect, effects.PublishReceipt):
            self.seen.append({"commandId": effect.command_id, "outcome": effect.outcome, "reason": effect.reason})
            self.state |= effect.fields
        elif isinstance(effect, effects.PublishEnd):
            self.seen.append({"status": effect.status.value, "reason": effect.reason.value, "error": effect.error})
            self.state |= effect.fields
        elif isinstance(effect, effects.WriteStdin | effects.WriteStdinAfterCommit):
            self.written.append(effect.data.decode())
        elif isinstance(effect, effects.EndRunner):
            self.ended.append(effect.farewell.decode())
        elif isinstance(effect, effects.SetTimer):
            self.timer = effect.at

    def _message(self, draft: DraftMessage) -> None:
        self.seen.append({"type": draft.type, "content": json.loads(encode(draft.content))})

    # -- what came out

    @property
    def outcome(self) -> Outcome | None:
        return self.machine.outcome

    @property
    def is_over(self) -> bool:
        """The session's end is known."""
        return self.outcome is not None

    @property
    def statuses(self) -> list[str]:
        return [event["status"] for event in self.seen if "status" in event]

    def receipts(self) -> list[tuple[str, str, str | None]]:
        return [(e["commandId"], e["outcome"], e["reason"]) for e in self.seen if "outcome" in e]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [event["content"] for event in self.seen if event.get("type") == kind]

    @property
    def end(self) -> tuple[str, str, str | None]:
        """The last event: status, reason and error."""
        return self.seen[-1]["status"], self.seen[-1]["reason"], self.seen[-1]["error"]


def cost(turns: int = 1, *, is_error: bool = False) -> DraftMessage:
    total = SessionTotal(0.0, 0, 0, turns)
    return DraftMessage("cost", Cost(0.0, 1, 0, 0, 1, is_error, session_total=total))


def asks(request_id: str = "r1", command: str = "ls") -> DraftMessage:
    return DraftMessage("approval_request", ApprovalRequest(request_id, "Bash", {"command": command}, "t1"))


def cut(*asked: InterruptedRequest) -> InterruptedTurn:
    return InterruptedTurn("first", [("t9", None)], list(asked), {})
