"""What ``agentrq top`` shows and what its keys mean: a table of sessions, one of them selected. Pure.

Owns order, filter, selection and the words on the screen. Does not own the terminal nor Redis (top_command.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from agentrq.cli.event_text import dollars
from agentrq.cli.sanitize import one_line
from agentrq.client.diagnosis import duration
from agentrq.client.fleet import Fleet
from agentrq.client.waiting_list import WaitingRequest
from agentrq.wire.messages import ApprovalRequest
from agentrq.wire.state import State
from agentrq.wire.status import Status

HELP: Final = "↑↓ select  a attach  y allow  n deny  i interrupt  s stop  o order  / filter  q quit"
_HEADS: Final = ("SESSION", "STATUS", "PROVIDER", "WORKER", "TURNS", "COST", "SILENT", "AGE", "WAITS FOR")
_URGENCY: Final = {Status.WAITING: 1, Status.RECOVERING: 0, Status.RUNNING: 3, Status.STARTING: 2, Status.QUEUED: 2}
ORDERS: Final[dict[str, Callable[[State], Any]]] = {
    "urgency": lambda state: (
        0 if state.worker_lost else _URGENCY.get(state.status, 4), -(state.updated_at or 0)
    ),
    "age": lambda state: state.created_at or 0,
    "cost": lambda state: -state.cost_usd,
    "silence": lambda state: state.updated_at or 0,
    "name": lambda state: state.session_id,
}  # fmt: skip
"""The orders by name; the first is the one that is shown first."""


class Act(NamedTuple):
    """What a key asks for: ``attach``, ``allow``, ``deny``, ``interrupt``, ``stop`` or ``quit``."""

    kind: str
    session_id: str = ""
    request_id: str = ""


class TopScreen:
    """The screen of one person."""

    def __init__(self) -> None:
        self._states: list[State] = []
        self._waiting: dict[str, WaitingRequest] = {}
        """The oldest open request of each session."""
        self._fleet: Fleet | None = None
        self._order = next(iter(ORDERS))
        self._filter = ""
        self._typing = False
        """The filter is being typed."""
        self._confirms = ""
        """The session that a further `y` stops."""
        self._selected = ""
        self.message = ""
        """What the last key did, or why Redis cannot be read."""

    def update(self, states: Sequence[State], waiting: Sequence[WaitingRequest], fleet: Fleet) -> None:
        """What is in Redis now."""
        self._states, self._fleet, self._waiting = list(states), fleet, {}
        for request in waiting:  # the oldest first
            self._waiting.setdefault(request.session_id, request)

    @property
    def rows(self) -> list[State]:
        """The sessions that are shown, in order."""
        wanted = self._filter.lower()
        found = [state for state in self._states if wanted in _searched(state)]
        return sorted(found, key=ORDERS[self._order])

    @property
    def selected(self) -> str:
        """The id of the selected session; the first one where that is not shown any more; empty where none is."""
        ids = [state.session_id for state in self.rows]
        return self._selected if self._selected in ids else ids[0] if ids else ""

    # -- keys

    def press(self, key: str) -> Act | None:
        """What a key asks for; None where it only changes the screen."""
        if self._typing:
            self._type(key)
            return None
        confirms, self._confirms, self.message = self._confirms, "", ""
        sid = self.selected
        if confirms:
            if key == "y":
                return Act("stop", confirms)
            self.message = "not stopped"
            return None
        if key in ("q", "\x03", "\x04"):
            return Act("quit")
        if key in ("j", "down", "k", "up"):
            self._move(1 if key in ("j", "down") else -1)
        elif key == "o":
            names = list(ORDERS)
            self._order = names[(names.index(self._order) + 1) % len(names)]
        elif key == "/":
            self._typing, self._filter = True, ""
        elif not sid:
            return None
        elif key in ("a", "\r", "\n"):
            return Act("attach", sid)
        elif key == "i":
            return Act("interrupt", sid)
        elif key == "s":
            self._confirms, self.message = sid, f"stop {sid}? y stops it, any other key does not"
        elif key in ("y", "n"):
            return self._answer(sid, "allow" if key == "y" else "deny")
        return None

    def _answer(self, sid: str, decision: str) -> Act | None:
        request = self._waiting.get(sid)
        if request is None:
            self.message = f"{sid} waits for no answer"
        elif not isinstance(request.content, ApprovalRequest):
            self.message = "a question: attach (a) shows it and takes the answer"
        else:
            return Act(decision, sid, request.request.id)
        return None

    def _type(self, key: str) -> None:
        if key in ("\r", "\n", "escape"):
            self._typing = False
            self._filter = "" if key == "escape" else self._filter
        elif key in ("\x7f", "\b"):
            self._filter = self._filter[:-1]
        elif len(key) == 1 and key.isprintable():
            self._filter += key

    def _move(self, step: int) -> None:
        ids = [state.session_id for state in self.rows]
        if ids:
            self._selected = ids[max(0, min(len(ids) - 1, ids.index(self.selected) + step))]

    # -- lines

    def lines(self, width: int, height: int) -> list[str]:
        """The whole screen, each line at most ``width`` wide; the selected row begins with ``>``."""
        rows, now = self.rows, self._fleet.now if self._fleet is not None else int(time.time() * 1000)
        room = max(1, height - 4)
        place = next((at for at, state in enumerate(rows) if state.session_id == self.selected), 0)
        first = max(0, min(place - room // 2, len(rows) - room))
        shown = [_HEADS, *(self._cells(state, now) for state in rows[first : first + room])]
        widths = [max(len(cells[column]) for cells in shown) for column in range(len(_HEADS))]
        table = [
            ("> " if at and cells[0] == one_line(self.selected) else "  ")
            + "  ".join(cell.ljust(size) for cell, size in zip(cells, widths, strict=True))
            for at, cells in enumerate(shown)
        ]
        prompt = f"/{self._filter}" if self._typing or self._filter else ""
        foot = [" ".join(part for part in (prompt, self.message) if part), HELP]
        blank = [""] * (height - 1 - len(table) - len(foot))
        return [line[:width].rstrip() for line in [self._head(len(rows)), *table, *blank, *foot]]

    def _head(self, shown: int) -> str:
        fleet = self._fleet
        if fleet is None:
            return "agentrq top"
        alive = [worker for worker in fleet.workers if worker.alive]
        free = sum(worker.free or 0 for worker in alive)
        suspended = "  RQ IS SUSPENDED" if fleet.suspended else ""
        return (
            f"{shown} of {len(self._states)} sessions by {self._order}  workers {len(alive)}  free slots {free}  "
            f"queued {fleet.queue_length}  waiting {len(self._waiting)}{suspended}"
        )

    def _cells(self, state: State, now: int) -> tuple[str, ...]:
        request = self._waiting.get(state.session_id)
        asks = "" if request is None else request.request.name or "an answer to a question"
        cells = (
            state.session_id,
            f"{state.status} (worker lost)" if state.worker_lost else str(state.status),
            state.provider,
            state.worker or "-",
            str(state.num_turns),
            dollars(state.cost_usd),
            _since(now, state.updated_at),
            _since(now, state.created_at),
            asks,
        )
        return tuple(one_line(cell) for cell in cells)


def _since(now: int, moment: int | None) -> str:
    return "-" if moment is None else duration(now - moment)


def _searched(state: State) -> str:
    parts = (state.session_id, state.status, state.provider, state.worker, state.model, state.cwd, "worker lost")
    texts = parts if state.worker_lost else parts[:-1]
    return " ".join([*(part or "" for part in texts), *state.metadata.values()]).lower()
