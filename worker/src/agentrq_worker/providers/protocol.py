"""What a dialect is: how one kind of runner is spoken with, as a pure state machine without any IO.

Owns the interface between a session and its runner's language. Bytes to write come out, whole lines go in; the session
does the writing, the waiting and the publishing. What an agent's own events mean is its adapter's
(providers/parser.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from agentrq.wire.commands import Options
from agentrq_worker.providers.draft_message import DraftMessage


class Alive(NamedTuple):
    """The runner began to work: implies ``running``. Not ``by_itself``: only if it was given something."""

    by_itself: bool = True


class Ended(NamedTuple):
    """The runner says that its session is over: well, or with an error."""

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


ProtocolEvent: TypeAlias = DraftMessage | Alive | Ended | Late | Log | Write


class CommandRefused(Exception):
    """A command that this runner cannot be given; the text is the receipt's reason."""


class AgentProtocol(ABC):
    """One session's conversation with its runner. Methods that return bytes raise `CommandRefused` if they cannot.

    ``options.resume`` names the provider's own session to go on with. After a recovery no prompt is handed over until
    somebody sends one, so whatever `open` does must leave the runner idle.
    """

    @abstractmethod
    def command(self, program: list[str], options: Options) -> list[str]:
        """The whole argument vector, from the program's own."""

    def open(self) -> bytes:
        """What is written first, as soon as the runner runs."""
        return b""

    @abstractmethod
    def prompt(self, text: str) -> bytes:
        """What hands over a prompt while no turn is under way. A dialect still shaking hands may keep it until then."""

    def steer(self, text: str) -> bytes:
        """What joins a prompt to the running turn."""
        raise CommandRefused("this provider cannot be steered in a turn")

    def interrupt(self) -> bytes:
        """What ends the running turn, not the session."""
        raise CommandRefused("this provider cannot be interrupted")

    def set_model(self, model: str) -> bytes:
        """What has the next turns use another model."""
        raise CommandRefused("this provider cannot change its model")

    def set_permission_mode(self, mode: str) -> bytes:
        """What changes the permission mode from now on."""
        raise CommandRefused("this provider cannot change its permission mode")

    def answer(self, request_id: str, answer: Any) -> bytes:
        """What answers an open approval request or question; ``answer`` as docs/reference/approvals.md has it."""
        raise CommandRefused("this provider takes no answers")

    def stop(self) -> bytes:
        """What asks the runner to end; its stdin is closed after it."""
        return b""

    @abstractmethod
    def receive(self, line: bytes) -> Sequence[ProtocolEvent]:
        """What one line of the runner's stdout means, with its newline or without. Never raises."""

    @abstractmethod
    def close(self, reason: str) -> list[DraftMessage]:
        """What is left to say when the runner is gone: answers for the tool calls that will get none."""
