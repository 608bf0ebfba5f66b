"""Commands that control a live session: ``prompt``, ``answer``, ``interrupt``, ``stop``. Owns what they print."""

from __future__ import annotations

import json
from typing import Any

import click

from agentrq.cli.exit_codes import OK
from agentrq.cli.output import put, put_json
from agentrq.cli.shared_options import SID, connected, shared_options
from agentrq.wire.events import Receipt

WAIT = click.option("--wait", is_flag=True, help="Wait for the receipt: exit 5 unless the command is applied.")


def _answer(_context: click.Context, _parameter: click.Parameter, given: str) -> Any:
    if given in ("allow", "deny"):
        return given
    try:
        answer = json.loads(given)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise click.BadParameter(f"{given[:80]!r} is neither allow nor deny nor a JSON object")
    return answer


def _print_result(sid: str, sent: str | Receipt, as_json: bool) -> int:
    if isinstance(sent, str):
        if as_json:
            put_json({"sessionId": sid, "commandId": sent})
        else:
            put(f"sent {sent}\n")
    elif as_json:
        put_json(sent)
    else:
        put(f"{sent.outcome} {sent.command_id}\n")
    return OK


@click.command()
@SID
@click.argument("text")
@click.option(
    "--mode",
    type=click.Choice(["queue", "steer", "interrupt"]),
    default="queue",
    show_default=True,
    help="After the turns that wait; into the turn under way; or in its place.",
)
@WAIT
@shared_options
def prompt(sid: str, text: str, mode: Any, wait: bool, url: str | None, as_json: bool) -> int:
    """Send a prompt to a session."""
    with connected(url) as client:
        session = client.session(sid)
        sent: str | Receipt = session.prompt(text, mode, wait=True) if wait else session.prompt(text, mode)
    return _print_result(sid, sent, as_json)


@click.command()
@SID
@click.argument("request_id")
@click.argument("reply", metavar="allow|deny|JSON", callback=_answer)
@WAIT
@shared_options
def answer(sid: str, request_id: str, reply: Any, wait: bool, url: str | None, as_json: bool) -> int:
    """Answer an approval request or a question."""
    with connected(url) as client:
        sent = client.session(sid).answer(request_id, reply, wait)
    return _print_result(sid, sent, as_json)


@click.command()
@SID
@WAIT
@shared_options
def interrupt(sid: str, wait: bool, url: str | None, as_json: bool) -> int:
    """End the current turn; the session goes on."""
    with connected(url) as client:
        sent = client.session(sid).interrupt(wait)
    return _print_result(sid, sent, as_json)


@click.command()
@SID
@shared_options
def stop(sid: str, url: str | None, as_json: bool) -> int:
    """Stop a session, whichever worker owns it."""
    with connected(url) as client:
        sent = client.session(sid).stop()
    return _print_result(sid, sent, as_json)
