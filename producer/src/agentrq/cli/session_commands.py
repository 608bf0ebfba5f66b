"""Commands that start or follow a session: ``start``, ``run``, ``attach``. Owns when following ends, and the exit code.

At a terminal the agent's requests are answered there (interactive.py).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import click

from agentrq.cli.exit_codes import FAILED, INTERRUPTED, OK, UNREACHABLE, CommandFailed, say
from agentrq.cli.interactive import answer_by_key, is_interactive
from agentrq.cli.output import put, put_json
from agentrq.cli.renderers import View, make_view
from agentrq.cli.shared_options import SID, connected, payer_options, shared_options
from agentrq.cli.terminal_renderer import TerminalView
from agentrq.client import AgentClient, Session
from agentrq.client.redis_requests import Batch, Operation
from agentrq.errors import RedisUnavailable
from agentrq.rq_commands import workers_key
from agentrq.wire.commands import make_options, parse_option
from agentrq.wire.events import Event, StatusEvent
from agentrq.wire.ids import Cursor, new_id


def _options(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE")
        options[name] = parse_option(name, value)
    make_options(options)
    return options


def _cursor(_context: click.Context, _parameter: click.Parameter, given: str | None) -> Cursor | None:
    try:
        return None if given is None else Cursor.parse(given)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _start_arguments(command: Any) -> Any:
    decorators = [
        click.argument("provider"),
        click.argument("prompt"),
        click.option("--session-id", metavar="SID", help="Default: a new UUIDv7."),
        click.option("--cwd", metavar="DIR", help="Where the agent works, on the worker's machine."),
        click.option(
            "--option", "options", multiple=True, metavar="NAME=VALUE", callback=_options,
            help="A start option, e.g. model=… or max_turns=3; JSON if it is not a text. Repeatable.",
        ),
        payer_options,
        shared_options,
    ]  # fmt: skip
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def _start(
    client: AgentClient,
    provider: str,
    prompt: str,
    session_id: str | None,
    cwd: str | None,
    options: dict[str, Any],
    **payer: str | None,
) -> Session:
    options |= {name: value for name, value in payer.items() if value is not None}
    if cwd is not None:
        try:
            options = options | {"cwd": os.path.abspath(cwd)}  # the worker's own directory is another
        except FileNotFoundError:
            raise click.UsageError(
                "--cwd: the directory that this was called in is gone: give an absolute path"
            ) from None
    # Named here, so that a start whose answer is lost can be looked up.
    sid = new_id() if session_id is None else session_id
    try:
        return client.start(provider, prompt, sid, **options)
    except RedisUnavailable as error:
        raise CommandFailed(UNREACHABLE, f"{error}; it may have started all the same: agentrq show {sid}") from error


@click.command()
@_start_arguments
def start(url: str | None, as_json: bool, **given: Any) -> int:
    """Start a session and print its id."""
    with connected(url) as client:
        session = _start(client, **given)
    if as_json:
        put_json({"sessionId": session.id})
    else:
        put(f"{session.id}\n")
    return OK


@click.command()
@_start_arguments
def run(url: str | None, as_json: bool, **given: Any) -> int:
    """Start a session and follow it to the end of its turn."""
    view = make_view(as_json)
    with connected(url) as client:
        session = _start(client, **given)
        if not _has_worker(client):
            say(f"no worker serves queue {client.context.queue} now; `agentrq up` starts one")
        return _follow(session, None, view, one_turn=True)


@click.command()
@SID
@click.option("--after", metavar="CURSOR", callback=_cursor, help="Only what follows this event, e.g. 1-7.")
@shared_options
def attach(sid: str, after: Cursor | None, url: str | None, as_json: bool) -> int:
    """Show a session from its beginning, then live, until it ends; Ctrl-C leaves it running."""
    view = make_view(as_json)
    with connected(url) as client:
        return _follow(client.session(sid), after, view, one_turn=False)


def follow_session(session: Session) -> int:
    """What ``attach`` does at a terminal: the session from its beginning, until it ends or Ctrl-C."""
    return _follow(session, None, make_view(as_json=False), one_turn=False)


def _has_worker(client: AgentClient) -> bool:
    """Whether RQ knows a worker for the queue of starts."""

    def count() -> Operation[int]:
        (found,) = yield Batch([("SCARD", workers_key(client.context.queue))])
        return int(found)

    return client.run(count()) > 0


def _follow(session: Session, after: Cursor | None, view: View, *, one_turn: bool) -> int:
    events = session.events(after, deltas=view.deltas)
    try:
        with contextlib.ExitStack() as stack:
            if isinstance(view, TerminalView) and is_interactive():
                events = stack.enter_context(answer_by_key(session, after, events, view))
            return _show(session, events, view, one_turn=one_turn)
    except KeyboardInterrupt:
        view.close()
        say(f"detached; session {session.id} keeps running")
        return INTERRUPTED


def _show(session: Session, events: Iterator[Event], view: View, *, one_turn: bool) -> int:
    try:
        for event in events:
            view.show(event)
            # More prompts may wait: then the state has moved on in the very step that wrote "idle".
            turn_over = one_turn and isinstance(event, StatusEvent) and event.status == "idle"
            if turn_over and session.state().status == "idle":
                view.note(
                    f"Session is idle. Continue: agentrq prompt {session.id} TEXT   Stop: agentrq stop {session.id}"
                )
                return OK
        return FAILED if session.state().status == "error" else OK
    finally:
        view.close()
