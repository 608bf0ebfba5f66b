"""The command ``list``: a page of the sessions that Redis still has. Owns how a row of it is printed."""

from __future__ import annotations

import shlex
import time
from typing import Any, Final

import click

from agentrq.cli.event_text import dollars
from agentrq.cli.exit_codes import OK, say
from agentrq.cli.output import put, put_json
from agentrq.cli.sanitize import one_line
from agentrq.cli.shared_options import connected, payer_options, shared_options
from agentrq.client import AgentClient
from agentrq.client.diagnosis import duration
from agentrq.client.session_filter import DEFAULT_LIMIT, MAX_LIMIT
from agentrq.wire.commands import PAYERS
from agentrq.wire.state import State, to_wire
from agentrq.wire.status import Status

_HEADS: Final = ("SESSION", "STATUS", "PROVIDER", "MODEL", "WORKER", "TURNS", "COST", "AGE")


def _pairs(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE")
        if pairs.setdefault(name, value) != value:
            raise click.BadParameter(f"no session has two texts {name!r}")
    return pairs


def _statuses(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> list[str]:
    return [name for names in given for name in names.split(",")]


@click.command(name="list")
@click.option("--status", multiple=True, metavar="STATUS", callback=_statuses,
              help=f"Only these: {', '.join(Status)}; several with a comma. Repeatable.")  # fmt: skip
@click.option("--provider", metavar="NAME", help="Only sessions of this provider.")
@click.option("--worker", metavar="NAME", help="Only sessions that this worker owns, or owned last.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", callback=_pairs,
              help="Only sessions with this text in their metadata. Repeatable: all must hold.")  # fmt: skip
@payer_options
@click.option("--text", metavar="TEXT", help="Only sessions with this text in id, cwd, model, error or metadata.")
@click.option("--limit", type=click.IntRange(min=0), default=DEFAULT_LIMIT, show_default=True, metavar="N",
              help="Sessions to list; 0: all of them.")  # fmt: skip
@click.option("--before", metavar="CURSOR", help="Go on after an earlier page, which names the cursor.")
@shared_options
def list_sessions(url: str | None, as_json: bool, limit: int, before: str | None, **wanted: Any) -> int:
    """List the sessions that Redis still has, the newest first."""
    with connected(url) as client:
        states, following = _fetch(client, limit, before, wanted)
    if as_json:
        for state in states:
            put_json(to_wire(state))
    else:
        now = int(time.time() * 1000)
        rows = [_HEADS, *(_row(state, now) for state in states)]
        widths = [max(len(row[place]) for row in rows) for place in range(len(_HEADS))]
        for row in rows:
            put("  ".join(part.ljust(width) for part, width in zip(row, widths, strict=True)).rstrip() + "\n")
    if following is not None:
        say(f"there are more: {shlex.join(['agentrq', 'list', *_repeat(wanted, limit), '--before', following])}")
    return OK


def _fetch(
    client: AgentClient, limit: int, before: str | None, wanted: dict[str, Any]
) -> tuple[list[State], str | None]:
    """``limit`` sessions (0: all), and the cursor of what follows them."""
    states: list[State] = []
    filters = wanted | {"status": wanted["status"] or None}
    while True:
        most = MAX_LIMIT if limit == 0 else min(MAX_LIMIT, limit - len(states))
        page = client.sessions(limit=most, before=before, **filters)
        states += page.sessions
        before = page.next
        if before is None or len(states) == limit:
            return states, before


def _repeat(wanted: dict[str, Any], limit: int) -> list[str]:
    """The options that ask for the same again."""
    again: list[str] = ["--status", ",".join(wanted["status"])] if wanted["status"] else []
    for name in ("provider", "worker", *PAYERS, "text"):
        if wanted[name] is not None:
            again += [f"--{name}", wanted[name]]
    for name, value in wanted["metadata"].items():
        again += ["--metadata", f"{name}={value}"]
    return again + (["--limit", str(limit)] if limit != DEFAULT_LIMIT else [])


def _row(state: State, now: int) -> tuple[str, ...]:
    row = (
        state.session_id,
        state.status + (f" ({state.reason})" if state.reason else " (worker lost)" if state.worker_lost else ""),
        state.provider,
        state.model or "-",
        state.worker or "-",
        str(state.num_turns),
        dollars(state.cost_usd),
        "-" if state.created_at is None else duration(now - state.created_at),
    )
    return tuple(one_line(part) for part in row)
