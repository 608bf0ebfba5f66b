"""Which sessions a list is to have: what a caller gave, checked; and whether a state is one of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from agentrq.errors import InvalidOption
from agentrq.wire.state import State
from agentrq.wire.status import Status

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 1000
_BEFORE: Final = re.compile(r"(0|[1-9][0-9]{0,15})\.([A-Za-z0-9_-]{1,64})")


class Place(NamedTuple):
    """A place in the order of a list: a session's start in ms, then its id, both falling."""

    start: float
    session_id: bytes

    def __str__(self) -> str:
        """The place as a cursor that `read_before` reads."""
        return f"{max(0.0, min(self.start, 1e15)):.0f}.{self.session_id.decode()}"


class SessionFilter(NamedTuple):
    """What a session of the list must have; an empty member asks for nothing."""

    statuses: frozenset[Status] = frozenset()
    provider: str | None = None
    worker: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    text: str | None = None
    """Folded, as `str.casefold` does."""

    def admits(self, state: State) -> bool:
        """Whether the session is one of the list."""
        return (
            (not self.statuses or state.status in self.statuses)
            and (self.provider is None or state.provider == self.provider)
            and (self.worker is None or state.worker == self.worker)
            and all(state.metadata.get(name) == value for name, value in self.metadata)
            and (self.text is None or self._has_text(state, self.text))
        )

    @staticmethod
    def _has_text(state: State, wanted: str) -> bool:
        places = (state.session_id, state.provider, state.cwd, state.model, state.error, *state.metadata.values())
        return any(wanted in place.casefold() for place in places if place is not None)


def make_filter(
    status: str | Iterable[str] | None,
    provider: str | None,
    worker: str | None,
    metadata: Mapping[str, str] | None,
    tenant: str | None,
    text: str | None,
    user: str | None = None,
    project: str | None = None,
) -> SessionFilter:
    """Check what a caller asks for. Raises `InvalidOption` naming the parameter."""
    payer = {"tenant": tenant, "user": user, "project": project}
    for name, value in (("provider", provider), ("worker", worker), *payer.items(), ("text", text)):
        if value is not None:
            _check_text(name, value)
    given: Any = {} if metadata is None else metadata
    if not isinstance(given, Mapping):
        raise InvalidOption("metadata", f"Expected texts by name, got {given!r}"[:200])
    pairs = dict(given)
    for name, value in pairs.items():
        _check_text("metadata", name)
        _check_text("metadata", value)
    for name, value in payer.items():  # the state's metadata has who pays
        if value is not None and pairs.setdefault(name, value) != value:
            raise InvalidOption(name, "metadata names another one")
    return SessionFilter(
        _statuses(status), provider, worker, tuple(sorted(pairs.items())), text.casefold() if text else None
    )


def check_limit(limit: Any) -> int:
    """How many sessions a page may have, from 1 to `MAX_LIMIT`. Raises `InvalidOption`."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidOption("limit", f"Expected a whole number from 1 to {MAX_LIMIT}, got {limit!r}"[:200])
    return limit


def read_before(before: Any) -> Place | None:
    """The place that a page's ``next`` names; None: at the newest. Raises `InvalidOption`."""
    if before is None:
        return None
    known = _BEFORE.fullmatch(before) if isinstance(before, str) else None
    if known is None:
        raise InvalidOption("before", f"Expected the `next` of a page, got {before!r}"[:200])
    return Place(float(known[1]), known[2].encode())


def _statuses(given: Any) -> frozenset[Status]:
    if given is None:
        return frozenset()
    if not isinstance(given, Iterable):
        raise InvalidOption("status", f"Expected a status or several, got {given!r}"[:200])
    named = [given] if isinstance(given, str) else list(given)
    try:
        return frozenset(Status(name) for name in named)
    except ValueError:
        unknown = next(name for name in named if name not in list(Status))
        raise InvalidOption("status", f"Expected one of {', '.join(Status)}, got {unknown!r}"[:200]) from None


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise InvalidOption(name, f"Expected a text, got {value!r}"[:200])
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidOption(name, "has a lone surrogate, which no UTF-8 can carry") from None
