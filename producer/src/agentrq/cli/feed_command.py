"""The command ``feed``: what happens to all sessions, one line an entry. Owns how an entry is printed."""

from __future__ import annotations

import time

import click
from msgspec import to_builtins

from agentrq.cli.event_text import dollars
from agentrq.cli.exit_codes import INTERRUPTED, OK
from agentrq.cli.output import put, put_json
from agentrq.cli.sanitize import one_line
from agentrq.cli.shared_options import connected, shared_options
from agentrq.wire.feed import FeedEntry, FeedGap


@click.command()
@click.option("--consumer", metavar="NAME", help="Keep the place in Redis under this name, and go on from there.")
@click.option("--process", metavar="NAME", help="This process of the consumer; default: a new name.")
@click.option("--after", metavar="ID", help="Begin behind this entry ($: with what comes from now on).")
@click.option("--no-follow", is_flag=True, help="End where there is nothing more now.")
@shared_options
def feed(
    consumer: str | None, process: str | None, after: str | None, no_follow: bool, url: str | None, as_json: bool
) -> int:
    """Show what happens to all sessions: starts, waits, turns, ends."""
    with connected(url) as client:
        try:
            for entry in client.feed(consumer, after=after, process=process, follow=not no_follow):
                _put(entry, as_json)
        except KeyboardInterrupt:
            return INTERRUPTED
    return OK


def _put(entry: FeedEntry | FeedGap, as_json: bool) -> None:
    if as_json:
        put_json({"gap": entry._asdict()} if isinstance(entry, FeedGap) else to_builtins(entry))
    elif isinstance(entry, FeedGap):
        put(f"-- entries after {entry.after} up to {entry.through} are no longer kept\n")
    else:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time / 1000))
        payer = "/".join(part or "-" for part in (entry.tenant, entry.user, entry.project)).rstrip("/-")
        put(one_line(f"{moment}  {entry.session_id}  {entry.kind:<8} {_detail(entry)}  {payer}").rstrip() + "\n")


def _detail(entry: FeedEntry) -> str:
    if entry.kind == "turn":
        cost = "" if entry.cost_usd is None else f" {dollars(entry.cost_usd)}"
        return f"{entry.turn}{cost} {entry.input_tokens} in, {entry.output_tokens} out"
    parts = (entry.status, entry.reason, entry.request, entry.name, entry.request_id, entry.decision, entry.by)
    return " ".join(part for part in parts if part)
