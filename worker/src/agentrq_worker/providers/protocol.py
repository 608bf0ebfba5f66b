"""How a session speaks with one kind of agent: a pure state machine without any IO.

Owns the interface between a session and its agent's language. Whole lines go in, events and bytes to write come out;
the session writes, waits and publishes. What an agent's own events mean is its parser's (providers/parser.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from agentrq.wire.commands import Options
from agentrq.wire.messages import Error, StatusReport
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.parser import LineInPieces, Spent
from agentrq_worker.providers.refusals import unsupported


class Alive(NamedTuple):
    """The agent shows that it works: a session that is starting is running. Begins no turn (see `TurnStarted`)."""


class TurnStarted(NamedTuple):
    """The agent began a turn, prompted or not: the session is ``running`` until a `Cost` message ends the turn.

    Mere output never begins a turn. An agent that begins turns nobody prompted (a background task reports) says so by
    this event, and only where its format tells it. While a turn is under way the event changes nothing.
    """


class TurnSeemsOver(NamedTuple):
    """The agent shows that it has stopped working, without the message that ends a turn in its format.

    That end may be just behind. The session waits a few seconds for it; then it takes `AgentProtocol.end_turn` for it.
    """

    reason: str


class Ready(NamedTuple):
    """The handshake is over: `AgentProtocol.is_ready` has become true."""


class Reply(NamedTuple):
    """The agent has answered the request that `Sent.confirmation` names: ``error`` None accepts it, a text refuses it.

    The text is the agent's own and becomes the reason of the rejected command.
    """

    confirmation: str
    error: str | None = None


class Background(NamedTuple):
    """The background work of the agent that runs now (tasks, shells), by label; empty when the last of it has ended."""

    open: tuple[str, ...] = ()


class SettingsRefused(NamedTuple):
    """The agent refused settings that had counted as applied: ``options`` (start options by name) hold again."""

    options: dict[str, str | None]


class Ended(NamedTuple):
    """The runner says that its session is over: ``error`` None for a good end."""

    error: str | None = None


class Log(NamedTuple):
    """A line for the worker's log."""

    text: str


class Write(NamedTuple):
    """Lines to write to the runner now: the next step of a handshake, an answer it can be given at once."""

    data: bytes


class Late(NamedTuple):
    """A prompt that was to join a turn and did not: it has the next turn, before all that wait."""

    text: str


ProtocolEvent: TypeAlias = (
    DraftMessage
    | Alive
    | TurnStarted
    | TurnSeemsOver
    | Ready
    | Reply
    | Background
    | SettingsRefused
    | Ended
    | Late
    | Log
    | Write
)


class Sent(NamedTuple):
    """What carries out a command: lines to write, and the id of the `Reply` that tells whether the agent took it.

    ``confirmation`` None: the agent's format has no reply, so the command counts as applied once it is written. With an
    id the receipt waits for the `Reply` of that id; without one in time the command is rejected. Ids are the protocol's
    own, unique while one is awaited.
    """

    data: bytes
    confirmation: str | None = None


class CommandRefused(Exception):
    """A command that this runner cannot be given; the text is the receipt's reason."""


class AgentProtocol(ABC):
    """One session's conversation with its runner. Methods that write raise `CommandRefused` where they cannot.

    ``options.resume`` names the provider's own session to go on with. After a recovery no prompt is handed over until
    somebody sends one, so whatever `open` does must leave the runner idle.
    """

    tells_turn_end: bool = True
    """Whether every turn ends with a `Cost`: then exit code 0 before it means that the turn was cut."""

    unsupported: Sequence[str] = ()
    """Options of the start that have no effect on this agent; told once, when it has begun."""

    def tell_unsupported(self) -> list[DraftMessage]:
        """A `status` for each option that has no effect; empty when asked again."""
        names, self.unsupported = self.unsupported, ()
        return [
            DraftMessage("status", StatusReport("unsupported_option", f"{name}: {unsupported(name)}")) for name in names
        ]

    @abstractmethod
    def command(self, program: list[str], options: Options) -> list[str]:
        """The whole argument vector, from the program's own."""

    def open(self) -> bytes:
        """What is written first, as soon as the runner runs."""
        return b""

    @property
    def is_ready(self) -> bool:
        """Whether the agent owes nothing without which no prompt can be worked on.

        False from `open` (or from the first prompt, where the agent says nothing before) until its answer; the setting
        ``handshake_s`` bounds that time. An agent without a handshake is always ready.
        """
        return True

    @abstractmethod
    def prompt(self, text: str) -> bytes:
        """What hands over a prompt while no turn is under way; kept while the handshake is not over."""

    def steer(self, text: str) -> bytes:
        """What joins a prompt to the running turn, without a confirmation: what the turn does not take is `Late`."""
        raise CommandRefused(unsupported("steer"))

    def interrupt(self) -> Sent:
        """What ends the running turn, not the session. The session withdraws the agent's open requests itself."""
        raise CommandRefused(unsupported("interrupt"))

    def set_model(self, model: str) -> Sent:
        """What has the next turns use another model."""
        raise CommandRefused(unsupported("set_model"))

    def set_permission_mode(self, mode: str) -> Sent:
        """What changes the permission mode from now on."""
        raise CommandRefused(unsupported("set_permission_mode"))

    def answer(self, request_id: str, answer: Any) -> bytes:
        """What answers an open approval request or question; ``answer`` as docs/reference/approvals.md has it."""
        raise CommandRefused(unsupported("answer"))

    def withdraw(self, request_id: str) -> bytes:
        """What tells the agent that nobody will answer its open request: cancelled, or denied. Never raises.

        ``request_id`` as in `answer`. Called at an interrupt and at the session's end for what is open, and at once for
        a request that arrives between an interrupt and the turn's end. Empty where the request is not open.
        """
        try:
            return self.answer(request_id, "deny")
        except CommandRefused:
            return b""

    def stop(self) -> bytes:
        """What asks the runner to end; its stdin is closed after it."""
        return b""

    @abstractmethod
    def receive(self, line: bytes) -> Sequence[ProtocolEvent]:
        """What one line of the runner's stdout means, with its newline or without. Never raises."""

    def receive_lost(self, head: bytes, size: int) -> Sequence[ProtocolEvent]:
        """What a line of ``size`` bytes means that is over the limit: ``head`` is how it begins, the rest is lost.

        Never raises. What the line did is drawn from its head where that can be: the end of a turn, above all.
        """
        return [DraftMessage("error", Error(f"A line of {size} bytes is over the limit", "line_too_long", bytes=size))]

    def receive_pieces(self, found: LineInPieces) -> list[ProtocolEvent]:
        """What a line means that holds several objects, or one among other bytes."""
        return [*found.before, *(event for piece in found.pieces for event in self.receive(piece)), *found.after]

    def end_turn(self, reason: str) -> list[DraftMessage]:
        """The end of a turn that the agent did not tell, its `Cost` included; ``reason`` as in `TurnSeemsOver`."""
        return []

    def finish_texts(self) -> list[DraftMessage]:
        """What has come of unfinished texts, as they stand: asked for once the agent is silent between turns."""
        return []

    def spent(self) -> Spent:
        """What the agent has told of the cost of the turn under way, as `OutputParser.spent`."""
        return Spent()

    @abstractmethod
    def close(self, reason: str) -> list[DraftMessage]:
        """Closes what is open when no more comes: unfinished texts as they stand, results for calls without one."""
