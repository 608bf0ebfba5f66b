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
    """An approval request or question of a cut turn: should the resumed agent ask the same again, it is this one.

    ``name`` is the tool's, empty for a question; ``asked_at`` is in ms since the epoch. ``answer`` is what came for it
    meanwhile, if anything did; ``by`` who gave it.
    """

    request_id: str
    name: str
    input: Any
    asked_at: int = 0
    answer: Any = None
    by: str = ""


class InterruptedTurn(NamedTuple):
    """A turn its owner did not finish: its prompt, the tool calls (id, parent) without a result, what was asked.

    ``fates`` has what became of the requests that are not open any more, by id: decision and by whom.
    """

    prompt: str
    open_calls: list[tuple[str, str | None]]
    asked: list[InterruptedRequest]
    fates: dict[str, str]


class ClaimedSession(NamedTuple):
    """What a claim brought: the session as the state has it."""

    session_id: str
    provider: str
    prompt: str
    options: Options
    recovering: bool
    """The first prompt was handed to a runner before: this one resumes."""
    cut: InterruptedTurn | None
    recoveries: int
    """Owners lost in a row since the last whole turn, or since it was last resumed where no turn was cut."""
    total: SessionTotal
    started_at: int
    ran_s: float = 0.0
    """Seconds from the first start to this claim, by Redis's clock."""
    asked: Sequence[InterruptedRequest] = ()
    """What was asked in a turn that an owner before the last one did not finish, and is not answered yet."""
    fates: Mapping[str, str] = {}
    """What became of the other requests of that turn, as in `InterruptedTurn`."""
    last_turn: str | None = None
    """How the latest turn ended, as in `State`."""
    unreadable: str | None = None
    """Why it is not known what the start asked for; then it must not run."""


class InboxCommand(NamedTuple):
    """A command with its place in the inbox."""

    entry: bytes
    command: Command
