"""Gives public ids to tool calls and requests that the agent numbers. Pure.

An agent's own id is unique only in its span: while the call or request is open, in one turn, in one process. A public
id is unique in the whole session, over turns and over recoveries. Owns the mapping between the two; does not own what
opens or closes a call or a request (each parser's matter).
"""

from __future__ import annotations

import re
from collections.abc import Container, Hashable, Iterator

_HAS_EPOCH = re.compile(r"\d+\.")
_SHORT, _END = 512, 128  # bytes


class SpanIds:
    """The open calls, or the open requests, of one owner of a session.

    The first owner (epoch 1) keeps the agent's id where it can; a later owner prefixes it with its epoch.
    """

    def __init__(self, epoch: int = 1) -> None:
        self._epoch = epoch
        self._open: dict[Hashable, str] = {}
        self._given: dict[str, int] = {}  # each public id ever given, with how often its name was asked for

    def __contains__(self, own: Hashable) -> bool:
        return own in self._open

    def __iter__(self) -> Iterator[str]:
        """The public ids that are open, oldest first."""
        return iter(list(self._open.values()))

    def open(self, own: Hashable, name: str) -> str:
        """Opens ``own``, the key by which the agent tells its open ones apart; returns its new public id.

        ``name`` is the text that the public id is made of. An ``own`` that is open already keeps its public id.
        """
        public = self._open.get(own)
        if public is None:
            public = self._open[own] = self.give(name)
        return public

    def give(self, name: str) -> str:
        """Like `open`, for a call or request that has ended already."""
        first = public = self._first(name)
        while public in self._given:
            self._given[first] += 1
            public = f"{first}~{self._given[first]}"
        self._given[public] = 1
        return public

    def _first(self, name: str) -> str:
        """The public id of the first one that has this name."""
        plain = self._epoch == 1 and not ("0" <= name < ":" and _HAS_EPOCH.match(name))
        return name if plain else f"{self._epoch}.{name}"

    def public(self, own: Hashable) -> str | None:
        """The public id of ``own``; None if it is not open."""
        return self._open.get(own)

    def latest(self, name: str) -> str | None:
        """The public id of the one opened last by this name, open or not; None if there was none."""
        first = self._first(name)
        count = self._given.get(first)
        return None if count is None else first if count == 1 else f"{first}~{count}"

    def close(self, own: Hashable) -> str | None:
        """Closes ``own`` and returns its public id; None if it was not open. ``own`` may be opened again."""
        return self._open.pop(own, None)

    def close_public(self, public: str) -> bool:
        """Closes the call or request with this public id; False if it is not open."""
        own = next((own for own, given in self._open.items() if given == public), None)
        return own is not None and self.close(own) is not None

    def close_all(self, publics: Container[str] | None = None) -> None:
        """Closes every open one, or those that have one of these public ids."""
        kept = {} if publics is None else {own: name for own, name in self._open.items() if name not in publics}
        self._open = kept


class SeenLines:
    """The lines that told of calls, or of results, in one span: an agent may write a line twice.

    A long line is known by its length and its two ends, where agents number it: looking at all of it would cost more
    than reading it.
    """

    def __init__(self) -> None:
        self._first: dict[str, int] = {}
        self._more: set[tuple[str, int]] = set()  # of ids that were used again

    def see(self, own: str, line: bytes) -> bool | None:
        """Whether this very line told of ``own`` before; None where no line did."""
        mark = hash(line if len(line) <= _SHORT else line[:_END] + line[-_END:]) ^ len(line)
        first = self._first.get(own)
        if first is None:
            self._first[own] = mark
            return None
        if first == mark or (own, mark) in self._more:
            return True
        self._more.add((own, mark))
        return False
