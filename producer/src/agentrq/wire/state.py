"""The session's state hash as a struct. Owns its fields and their types; who writes them is the scripts' matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from agentrq.wire.status import ENDED, Status


class StateRequest(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True, kw_only=True):
    """One request of the agent that waits for an answer. Times are ms since the epoch, by Redis's clock."""

    id: str
    """The request's id, by which it is answered."""
    kind: Literal["approval", "question"]
    """What it is: the event's message is an `approval_request` or a `question`."""
    name: str = ""
    """The tool that the agent asks for; empty for a question."""
    asked_at: int
    """When it was asked first."""
    deadline: int | None = None
    """When it is decided without an answer; absent without such a time."""
    cursor: str = ""
    """The cursor of the event that asks, where the input or the questions stand; absent where it is not known."""


class State(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True, kw_only=True):
    """Where a session stands. Times are ms since the epoch; costs in USD; figures are the session's totals."""

    session_id: str
    """The session's id; in Redis it is part of the key, not a field."""
    provider: str
    """The provider's name."""
    status: Status
    """Where the session stands, as in its latest status event."""
    epoch: int
    """The current epoch: it rises by one whenever another writer takes over."""
    cursor: str
    """The cursor of the last event."""
    error: str | None = None
    """Why the session ended in error."""
    reason: str | None = None
    """Why the session ended."""
    worker: str | None = None
    """The name of the worker that owns the session."""
    pid: int | None = None
    """The runner's process id on that worker's machine."""
    provider_session_id: str | None = None
    """The agent's own id of the conversation."""
    model: str | None = None
    """The model that the agent reports."""
    cwd: str | None = None
    """The working directory that the agent reports."""
    cost_usd: float = 0.0
    """What all turns so far cost, in USD."""
    input_tokens: int = 0
    """Input tokens of all turns so far."""
    output_tokens: int = 0
    """Output tokens of all turns so far."""
    num_turns: int = 0
    """Turns so far."""
    exit_code: int | None = None
    """The runner's exit code."""
    stderr_tail: str | None = None
    """The last lines of its stderr where the session ended in error: at most 20 and 2000 characters, known secrets
    taken out.
    """
    created_at: int | None = None
    """When the session was created, in ms since the epoch."""
    started_at: int | None = None
    """When a worker first started it, in ms since the epoch."""
    ended_at: int | None = None
    """When it ended, in ms since the epoch."""
    updated_at: int | None = None
    """When the state was last written, in ms since the epoch."""
    pending_approvals: int = 0
    """How many requests and questions wait for an answer."""
    requests: tuple[StateRequest, ...] = ()
    """The requests and questions that wait for an answer, as JSON. Absent where an older worker owns the session."""
    trimmed_through: str | None = None
    """The newest cursor that is no longer kept; absent while every event is."""
    metadata: dict[str, str] = {}
    """The `metadata` of the start with its `tenant`, `user` and `project`, as JSON."""
    tenant: str | None = None
    """Who pays, as the start says: the customer."""
    user: str | None = None
    """Who pays: the person."""
    project: str | None = None
    """Who pays: the project."""
    enforced: str = ""
    """What the runner's sandbox holds it to, for people; empty without one."""
    worker_lost: bool = False
    """Its owner's lease is over, so nobody runs it now: another worker takes it, or it ends. Not in the hash."""
    last_turn: str | None = None
    """How the latest turn ended: ``whole``, ``interrupted`` (somebody ended it), ``failed`` (the agent reports an
    error), ``cut`` (its process, its worker or its time ended first); absent before the first end.
    """

    checkpoint: str | None = None
    """The latest checkpoint of the session's workspace: its turn and its commit, with a blank between."""

    @property
    def id(self) -> str:
        """The session id."""
        return self.session_id

    @property
    def ended(self) -> bool:
        """True once the session is done or in error."""
        return self.status.ended

    def without_worker(self) -> State:
        """The same state of a session whose worker is lost."""
        return msgspec.structs.replace(self, worker_lost=True)


class Inner(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """The state's own bookkeeping, of no use outside agentrq: the owner's token, what a start asked for.

    ``recoveries`` counts lost owners since the last whole turn; ``prompted``: the first prompt was handed to a
    runner; ``turn``: a turn is under way; ``job_id``: RQ's job where it is not the session's id;
    ``queue``: the RQ queue it came by; ``stop``: somebody asked for its end, so no owner begins anything any more;
    ``job_created_at``: when RQ's job was created, by its client's clock: compared for equality only, it tells the
    session's own job from others by its id; ``kept``: JSON, the answers by request id that came before a resumed agent
    has asked again; ``nonce`` tells the session from others by its id; ``lost_at``: when a worker last found its owner
    lost, in ms since the epoch, by Redis's clock; ``open_requests``: JSON, the ids of the open requests, which a worker
    that does not know ``requests`` keeps as well.
    """

    token: str = ""
    prompt: str = ""
    options: str = "{}"
    recoveries: int = 0
    prompted: bool = False
    turn: bool = False
    job_id: str = ""
    job_created_at: str = ""
    queue: str = ""
    stop: bool = False
    kept: str = ""
    nonce: str = ""
    lost_at: int = 0
    open_requests: str = ""


_DERIVED: Final = ("sessionId", "workerLost")
STATE_FIELDS: Final = tuple(name for name in State.__struct_encode_fields__ if name not in _DERIVED)
"""The names of the hash's fields that make a `State`."""
FIELDS: Final = (*STATE_FIELDS, *Inner.__struct_encode_fields__)
"""The names of the hash's fields that mean anything here."""

_ALWAYS = frozenset({"costUsd", "inputTokens", "outputTokens", "numTurns", "pendingApprovals"})


def _texts(raw: Mapping[bytes, bytes]) -> dict[str, Any]:
    """As text; an empty value is an absent member (the owner that handed over)."""
    return {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in raw.items() if value}


def read_state(session_id: str, raw: Mapping[bytes, bytes]) -> State | None:
    """An HGETALL of the state → `State`; None when the hash is absent or is no state (never raises)."""
    if not raw:
        return None
    fields = _texts(raw)
    open_requests = fields.pop("openRequests", None)
    try:
        fields["metadata"] = msgspec.json.decode(fields.get("metadata") or "{}", type=dict[str, str])
        ended = fields.get("status") in ENDED
        fields["requests"] = () if ended else _read_requests(fields.get("requests"), open_requests)
        return msgspec.convert(fields | {"sessionId": session_id}, State, strict=False)
    except (msgspec.MsgspecError, UnicodeError):
        return None


def _read_requests(requests: str | None, open_requests: str | None) -> tuple[StateRequest, ...]:
    """The open requests. A worker that does not know ``requests`` leaves there what it has seen answered."""
    try:
        read = msgspec.json.decode(requests, type=tuple[StateRequest, ...]) if requests else ()
        ids = msgspec.json.decode(open_requests, type=list[str]) if open_requests else None
    except (msgspec.MsgspecError, UnicodeError):
        return ()
    return read if ids is None else tuple(each for each in read if each.id in ids)


def read_inner(raw: Mapping[bytes, bytes]) -> Inner:
    """The bookkeeping part of the same hash; what is ill-typed counts as absent."""
    try:
        return msgspec.convert(_texts(raw), Inner, strict=False)
    except msgspec.ValidationError:
        return Inner()


def to_wire(state: State) -> dict[str, Any]:
    """The state as a JSON object: camelCase, the figures always there, other absent members omitted."""
    shown: dict[str, Any] = msgspec.to_builtins(state)
    for field, name in zip(state.__struct_fields__, state.__struct_encode_fields__, strict=True):
        if name in _ALWAYS:
            shown[name] = getattr(state, field)
    return shown
