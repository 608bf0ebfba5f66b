"""Commands that copy ended sessions: ``export``, ``import``. Owns files and what is said; not the lines' format."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import BinaryIO

import click

from agentrq.cli.exit_codes import FAILED, OK, REFUSED, USAGE, CommandFailed, say
from agentrq.cli.output import put, put_bytes, put_json
from agentrq.cli.shared_options import REDIS, connected, shared_options
from agentrq.client import AgentClient
from agentrq.client.session_copy import (
    PAGE,
    BadFile,
    EventLine,
    FileReader,
    Head,
    SessionAlive,
    Tail,
    begin_import,
    drop_import,
    finish_import,
    line_of,
    read_events,
    read_head,
    write_page,
)
from agentrq.errors import SessionExists, SessionNotFound


@click.command(name="export")
@click.argument("sids", nargs=-1, metavar="[SID]...")
@click.option("--all", "everything", is_flag=True, help="All sessions that have ended; the others are named on stderr.")
@REDIS
def export_sessions(sids: tuple[str, ...], everything: bool, url: str | None) -> int:
    """Print ended sessions as lines of JSON, to be kept or imported elsewhere: state, events, receipts."""
    if bool(sids) is everything:
        raise click.UsageError("Give session ids, or --all")
    with connected(url) as client:
        for sid in sids or [state.session_id for state in client.states()]:
            try:
                _export(client, sid)
            except (SessionAlive, SessionNotFound) as error:
                if not everything:
                    raise
                say(f"left out: {error}")
    return OK


def _export(client: AgentClient, sid: str) -> None:
    context, count, after = client.context, 0, None
    put_bytes(line_of(client.run(read_head(context, sid))))
    while page := client.run(read_events(context, sid, after)):
        put_bytes(b"".join(map(line_of, page)))
        count, after = count + len(page), page[-1].cursor
    put_bytes(line_of(Tail(session_id=sid, events=count)))


@click.command(name="import")
@click.argument("file", metavar="FILE")
@click.option("--skip", is_flag=True, help="Leave out sessions whose id is there already, instead of stopping there.")
@shared_options
def import_sessions(file: str, skip: bool, url: str | None, as_json: bool) -> int:
    """Read sessions that `agentrq export` printed, from FILE or - for stdin; they are kept as if they ended now."""
    with connected(url) as client, _opened(file) as lines:
        reader = FileReader(lines)
        try:
            for head in reader.heads():
                if not _import(client, head, reader, skip):
                    say(f"left out: session {head.session_id} is there already")
                elif as_json:
                    put_json({"sessionId": head.session_id})
                else:
                    put(f"{head.session_id}\n")
        except BadFile as error:
            raise CommandFailed(USAGE, f"{file}: {error}") from None
        except SessionExists as error:
            raise CommandFailed(REFUSED, f"{error}; what came before it in the file is imported (--skip)") from None
        except OSError as error:
            raise CommandFailed(FAILED, f"{file}: {error.strerror}") from None
    return OK


@contextlib.contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        opened = open(file, "rb")  # noqa: SIM115 - closed below; only opening it may fail here
    except OSError as error:
        raise CommandFailed(USAGE, f"{file}: {error.strerror}") from None
    with opened:
        yield opened


def _import(client: AgentClient, head: Head, reader: FileReader, skip: bool) -> bool:
    """Import one session, whole or not at all; False: it is there already. Raises `SessionExists`, `BadFile`."""
    try:
        key = client.run(begin_import(client.context, head))
    except SessionExists:
        if not skip:
            raise
        for _ in reader.events(head):
            pass
        return False
    try:
        page: list[EventLine] = []
        for event in reader.events(head):
            page.append(event)
            if len(page) == PAGE:
                client.run(write_page(key, page))
                page = []
        if page:
            client.run(write_page(key, page))
        client.run(finish_import(client.context, head, key))
    except BaseException:
        client.run(drop_import(key))
        raise
    return True
