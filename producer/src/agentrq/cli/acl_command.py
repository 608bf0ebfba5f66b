"""The command ``acl``: prints Redis ACL rules for the parts of an installation. agentrq.acl makes the rules."""

from __future__ import annotations

import os

import click

from agentrq.acl import ROLES, profile
from agentrq.cli.exit_codes import OK
from agentrq.cli.output import put
from agentrq.wire.keys import DEFAULT_PREFIX, DEFAULT_QUEUE


@click.command()
@click.argument("roles", nargs=-1, metavar="[ROLE]...", type=click.Choice(ROLES))
@click.option("--prefix", metavar="PREFIX", help="Prefix of all keys; default AGENTRQ_PREFIX, else agentrq.")
@click.option("--queue", metavar="NAME", help="RQ queue of starts; default AGENTRQ_QUEUE, else agentrq.")
def acl(roles: tuple[str, ...], prefix: str | None, queue: str | None) -> int:
    """Print an ACL SETUSER line for each ROLE: producer, worker, reader, gateway (default: all).

    The users have no password yet, so nobody can log in as them: add one with ACL SETUSER, then switch the default
    user off (docs/how-to/secure-redis.md).
    """
    prefix = prefix or os.environ.get("AGENTRQ_PREFIX") or DEFAULT_PREFIX
    queue = queue or os.environ.get("AGENTRQ_QUEUE") or DEFAULT_QUEUE
    for role in roles or ROLES:
        put(profile(role, prefix=prefix, queue=queue) + "\n")
    return OK
