"""The plain things that pass between a claim, a session and its end. Owns shapes only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from agentrq.wire.commands import Command, Options
from agentrq.wire.messages import SessionTotal
from agentrq.wire.status import Reason, Status


class Outcome(NamedTuple):
    """How a session ended, or ``status`` None: it goes on elsewhere, ``handed_over`` or taken by another owner."""

    status: Status | None
    reason: Reason | None = None
    error: str | None = None
    handed_over: bool = False


class InterruptedRequest(NamedTuple):
    """An approval request or question of an interrupted turn: if the resumed agent asks the same again, it is this one.

    ``name`` is the tool's, empty for a question; ``asked_at`` is in ms since the epoch, by Redis's clock. ``answer`` is
    what somebody answered meanwhile, None so far; ``by`` who did. ``cursor`` is the event's.
    """

    request_id: str
    name: str
    input: Any
    asked_at: int = 0
    answer: Any = None
    by: str = ""
    cursor: str = ""


class InterruptedTurn(NamedTuple):
    """A turn that its owner did not finish: its prompt, and the tool calls (id, parent) without a result.

    ``requests`` are those that are open; ``decisions`` says of the others who decided what, by request id.
    """

    prompt: str
    open_calls: list[tuple[str, str | None]]
    requests: list[InterruptedRequest]
    decisions: dict[str, str]


class ClaimedSession(NamedTuple):
    """A session as its new owner has claimed it, from its state and its stream."""

    session_id: str
    provider: str
    prompt: str
    options: Options
    recovering: bool
    """An earlier owner has handed over the first prompt: this one resumes."""
    interrupted_turn: InterruptedTurn | None
    """The turn of the last owner, if that did not finish it."""
    recoveries: int
    """Owners lost in a row since the last whole turn, or since it was last resumed where no turn was cut."""
    total: SessionTotal
    """The figures of the turns so far."""
    started_at: int
    """When it was first started, in ms since the epoch, by Redis's clock."""
    ran_s: float = 0.0
    """Seconds from the first start to this claim, by Redis's clock."""
    requests: Sequence[InterruptedRequest] = ()
    """The open requests of a turn that an owner before the last one did not finish."""
    decisions: Mapping[str, str] = {}
    """What was decided on the other requests of that turn, as in `InterruptedTurn`."""
    last_turn: str | None = None
    """How the latest turn ended, as in `State`."""
    model: str | None = None
    """The model, as in `State`."""
    checkpoint: str | None = None
    """The latest checkpoint of its workspace, as in `State`."""
    unreadable: str | None = None
    """Why the options of the start cannot be known; then the session must not run."""
    takeover: str = ""
    """Why it comes from another worker: ``lost`` or ``handed_over``; empty where it begins here."""


class InboxCommand(NamedTuple):
    """A command with its place in the inbox."""

    entry: bytes
    command: Command
