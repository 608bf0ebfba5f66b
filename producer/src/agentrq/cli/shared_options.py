"""Options that all commands share: ``--redis``, ``--json``, the SID argument; and the client they use.

Owns where the Redis URL comes from and how its failures are reported.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from agentrq.cli.exit_codes import REFUSED, CommandFailed
from agentrq.client import AgentClient
from agentrq.connection import BadUrl, connect, hide_arguments
from agentrq.wire.commands import PAYERS, check_payer
from agentrq.wire.ids import check_session_id

F = TypeVar("F", bound=Callable[..., Any])

REDIS = click.option(
    "--redis", "url", metavar="URL", help="Redis; default AGENTRQ_REDIS_URL, else the private embedded server."
)
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object a line, exactly the wire's.")


def _checked(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    return check_session_id(value)


SID = click.argument("sid", callback=_checked)


def _checked_payer(_context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    return None if value is None else check_payer(f"--{parameter.name}", value)


def payer_options(command: F) -> F:
    """Give a command ``--tenant``, ``--user`` and ``--project``: who pays."""
    for name in reversed(PAYERS):
        text = f"Who pays: the {'customer' if name == 'tenant' else 'person' if name == 'user' else name}."
        command = click.option(f"--{name}", metavar="NAME", callback=_checked_payer, help=text)(command)
    return command


def shared_options(command: F) -> F:
    """Give a command ``--redis`` (as ``url``) and ``--json`` (as ``as_json``)."""
    return REDIS(JSON(command))


@contextlib.contextmanager
def redis_url(given: str | None) -> Iterator[str]:
    """The URL given, else ``AGENTRQ_REDIS_URL``, else the embedded server's, held until the end of the block.

    Raises `EmbeddedServerError`.
    """
    url = given if given is not None else os.environ.get("AGENTRQ_REDIS_URL") or None
    if url is not None:
        if given is not None:
            hide_arguments(given)
        yield url
        return
    from agentrq.embedded.attach import attach  # noqa: PLC0415 - most installations name a Redis and never need it

    with attach() as server:
        yield server.url


@contextlib.contextmanager
def connected(given: str | None) -> Iterator[AgentClient]:
    """A client for the block. A bad URL becomes a usage error, the end of a bounded wait `CommandFailed`."""
    with redis_url(given) as url:
        try:
            # No retries: a person waits. A reader that has begun retries by itself.
            with AgentClient(connect(url, retries=0), connect(url, blocking=True, retries=0), url=url) as client:
                yield client
        except BadUrl as error:
            raise click.UsageError(str(error)) from None
        except TimeoutError as error:  # the client's own, of a bounded wait
            raise CommandFailed(REFUSED, str(error)) from None
