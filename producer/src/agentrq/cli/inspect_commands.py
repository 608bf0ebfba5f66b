"""Commands about one stored session: ``show``, ``remove``. Owns how a whole state is printed."""

from __future__ import annotations

import time
from typing import Any, Final

import click

from agentrq.cli.event_text import compact
from agentrq.cli.exit_codes import OK
from agentrq.cli.output import put, put_json
from agentrq.cli.sanitize import one_line
from agentrq.cli.shared_options import SID, connected, shared_options
from agentrq.wire.state import to_wire

_TIMES: Final = ("createdAt", "startedAt", "endedAt", "updatedAt")


@click.command()
@SID
@shared_options
def show(sid: str, url: str | None, as_json: bool) -> int:
    """Show a session's state."""
    with connected(url) as client:
        found = client.session(sid).state()
        state = to_wire(found)
    if as_json:
        put_json(state)
        return OK
    if found.worker_lost:
        state["status"] += " (worker lost)"
    width = max(map(len, state)) + 2
    for name, value in state.items():
        lines = value.splitlines() if name == "stderrTail" else [_shown(name, value)]
        for number, line in enumerate(lines):
            put(f"{'' if number else name:<{width}}{one_line(line)}\n")
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
