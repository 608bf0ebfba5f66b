"""The command ``agentrq gateway``: settings from the command line, logging, exit codes.

`agentrq.cli` finds it by the entry-point group ``agentrq.commands``. Owns nothing that runs (server.py).
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import time
import typing
from collections.abc import Callable
from typing import Any, Final

import click

from agentrq.cli.exit_codes import REFUSED, USAGE, CommandFailed
from agentrq.cli.shared_options import redis_url
from agentrq.connection import BadUrl, connect_async, masked
from agentrq_gateway.auth.grant import EVERYTHING, Grant
from agentrq_gateway.auth.jwt_auth import JWTAuth
from agentrq_gateway.errors import ApiError
from agentrq_gateway.server_settings import ServerSettings
from agentrq_gateway.settings import InvalidSetting, kind_of, load

log = logging.getLogger("agentrq.gateway")

TICKET_S: Final = 600.0
"""How long a printed ticket waits for a person, in seconds."""
PERSON_S: Final = 12 * 3600.0
"""How long a browser that came by it stays let in."""

_HELP: Final = {
    "host": "Address to listen on; any but loopback needs a key.",
    "port": "Port to listen on.",
    "key_file": "File with the key of the tokens (HS256), or a directory of keys.",
    "algorithm": "Algorithm of the tokens: HS256, RS256, ES256 or EdDSA.",
    "audience": "What aud of a token has to be.",
    "issuer": "What iss of a token has to be.",
    "max_token_age_s": "Seconds that a token may live at most.",
    "hosts": "A Host name that is served; may be given several times.",
    "origins": "An origin whose pages may use the gateway; may be given several times.",
    "max_streams": "Streams open at once.",
    "max_streams_per_caller": "Streams of one caller open at once.",
    "commands_per_minute": "Commands of one caller in a minute.",
}
_REPEATED: Final = {"hosts": "--allow-host", "origins": "--allow-origin"}
"""Settings that are lists: each use of the option adds to them."""


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    hints = typing.get_type_hints(ServerSettings)
    for name, text in reversed(_HELP.items()):
        option = _REPEATED.get(name, "--" + name.replace("_", "-"))
        command = click.option(
            option, name, type=kind_of(hints[name]), metavar=option.rpartition("-")[2].upper(),
            multiple=name in _REPEATED, help=text,
        )(command)  # fmt: skip
    command = click.option("--redis", "redis_url", metavar="URL", help="Redis; default AGENTRQ_REDIS_URL.")(command)
    return click.option("--config", metavar="FILE", help="Settings as TOML.")(command)


def _ticket(auth: JWTAuth) -> str:
    """A ticket for who runs this machine. Raises `CommandFailed` where the key is a public one."""
    grant = Grant(EVERYTHING.subject, actions=EVERYTHING.actions, expires_at=time.time() + PERSON_S)
    try:
        return auth.sign_ticket(grant, TICKET_S)[0]
    except ApiError as error:
        raise CommandFailed(USAGE, f"--ticket: {error.message}") from None


def _end_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, however it does (prctl(2), PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - for this alone

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(0)


@click.command()
@click.option("--ticket", is_flag=True, help="Make a key of its own, and print an address that lets one browser in.")
@click.option("--parent", type=int, metavar="PID", hidden=True, help="End with this process.")
@_options
def gateway(config: str | None, ticket: bool, parent: int | None, **given: Any) -> None:
    """Serve sessions over HTTP until stopped; without a key on loopback only, to whoever is on this machine."""
    if parent is not None:
        _end_with(parent)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = load(ServerSettings, config, os.environ, given)
        settings.check_listens_safely()
        auth = settings.authentication()
    except InvalidSetting as error:
        raise CommandFailed(USAGE, str(error)) from None
    try:
        from agentrq_gateway import server  # noqa: PLC0415 - uvicorn is an extra
    except ImportError:
        said = "`agentrq gateway` needs uvicorn: pip install 'agentrq-gateway[server]'"
        raise CommandFailed(USAGE, said) from None
    with redis_url(settings.redis_url) as url:
        try:
            connect_async(url)
        except BadUrl as error:
            raise CommandFailed(USAGE, str(error)) from None
        try:
            listener = server.bind(settings)
        except OSError as error:
            raise CommandFailed(REFUSED, f"{settings.host}:{settings.port}: {error.strerror}") from None
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"http://{host}:{listener.getsockname()[1]}"
        log.info("Redis: %s", masked(url))
        log.info("the gateway is ready: %s", address)
        if ticket:
            auth = JWTAuth(secrets.token_urlsafe(48)) if auth is None else auth
            click.echo(f"Page:   {address}/#ticket={_ticket(auth)}")
        elif auth is None:
            log.warning("there is no authentication: whoever is on this machine may do everything (--key-file)")
        server.run(settings, url, listener, auth)
