"""The commands ``limits set``, ``limits list`` and ``limits remove``. Owns how limits are printed."""

from __future__ import annotations

import click
from msgspec import to_builtins

from agentrq.cli.exit_codes import OK
from agentrq.cli.output import put, put_json
from agentrq.cli.shared_options import REDIS, connected, shared_options


@click.group()
def limits() -> None:
    """Limit what each tenant may have at once."""


@limits.command(name="set")
@click.argument("tenant")
@click.option("--sessions", type=click.IntRange(min=0), metavar="N", help="Sessions that have not ended.")
@click.option("--queued", type=click.IntRange(min=0), metavar="N", help="Sessions that wait for a worker.")
@click.option("--starts-per-minute", type=click.IntRange(min=0), metavar="N", help="Starts in any 60 seconds.")
@REDIS
def set_limits(
    tenant: str, sessions: int | None, queued: int | None, starts_per_minute: int | None, url: str | None
) -> int:
    """Set all limits of TENANT ('*': of all that have none of their own)."""
    if sessions is None and queued is None and starts_per_minute is None:
        raise click.UsageError("give at least one limit; `agentrq limits remove TENANT` removes them")
    with connected(url) as client:
        client.set_limits(tenant, sessions=sessions, queued=queued, starts_per_minute=starts_per_minute)
    return OK


@limits.command(name="remove")
@click.argument("tenant")
@REDIS
def remove_limits(tenant: str, url: str | None) -> int:
    """Remove the limits of TENANT."""
    with connected(url) as client:
        client.set_limits(tenant)
    return OK


@limits.command(name="list")
@shared_options
def list_limits(url: str | None, as_json: bool) -> int:
    """Show the limits that are set."""
    with connected(url) as client:
        found = client.limits()
    for tenant, its in found.items():
        shown = to_builtins(its)
        if as_json:
            put_json({"tenant": tenant} | shown)
        else:
            put(f"{tenant}  {'  '.join(f'{name} {value}' for name, value in shown.items())}\n")
    return OK
