"""Commands about stored sessions: ``list``, ``show``, ``remove``. Owns how a state is printed."""

from __future__ import annotations

import time
from typing import Any, Final

import click

from agentrq.cli.event_text import compact, dollars
from agentrq.cli.exit_codes import OK
from agentrq.cli.output import put, put_json
from agentrq.cli.sanitize import one_line
from agentrq.cli.shared_options import SID, connected, shared_options
from agentrq.wire.state import State, to_wire

_TIMES: Final = ("createdAt", "startedAt", "endedAt", "updatedAt")
_HEADS: Final = ("SESSION", "STATUS", "PROVIDER", "MODEL", "WORKER", "TURNS", "COST", "CREATED")


@click.command(name="list")
@shared_options
def list_sessions(url: str | None, as_json: bool) -> int:
    """List all sessions that Redis still has, the oldest first."""
    with connected(url) as client:
        states = client.states()
    if as_json:
        for state in states:
            put_json(to_wire(state))
        return OK
    rows = [_HEADS, *(_row(state) for state in states)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEADS))]
    for row in rows:
        put("  ".join(part.ljust(width) for part, width in zip(row, widths, strict=True)).rstrip() + "\n")
    return OK


@click.command()
@SID
@shared_options
def show(sid: str, url: str | None, as_json: bool) -> int:
    """Show a session's state."""
    with connected(url) as client:
        state = to_wire(client.session(sid).state())
    if as_json:
        put_json(state)
        return OK
    width = max(map(len, state)) + 2
    for name, value in state.items():
        put(f"{name:<{width}}{_shown(name, value)}\n")
    return OK


@click.command()
@SID
@shared_options
def remove(sid: str, url: str | None, as_json: bool) -> int:
    """Delete a session at once; a live one is stopped first."""
    with connected(url) as client:
        client.session(sid).remove()
    if as_json:
        put_json({"sessionId": sid})
    else:
        put(f"removed {sid}\n")
    return OK


def _row(state: State) -> tuple[str, ...]:
    row = (
        state.session_id,
        state.status + (f" ({state.reason})" if state.reason else " (worker lost)" if state.worker_lost else ""),
        state.provider,
        state.model or "-",
        state.worker or "-",
        str(state.num_turns),
        dollars(state.cost_usd),
        _moment(state.created_at),
    )
    return tuple(one_line(part) for part in row)


def _moment(timestamp: int | None) -> str:
    """A time in ms since the epoch as local date and time."""
    try:
        return "-" if timestamp is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(timestamp / 1000))
    except (OverflowError, ValueError, OSError):
        return "-"


def _shown(name: str, value: Any) -> str:
    if name in _TIMES:
        return _moment(value)
    return one_line(value if isinstance(value, str) else compact(value))
