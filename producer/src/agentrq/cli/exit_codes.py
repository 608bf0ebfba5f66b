"""Exit codes, and what a failed command says: one line on stderr. Owns both; knows nothing of Redis."""

from __future__ import annotations

import errno
import os
import sys
from typing import Final, TextIO

import click

from agentrq.cli.sanitize import one_line
from agentrq.errors import (
    AgentRQError,
    EmbeddedServerError,
    InvalidOption,
    InvalidSessionId,
    SessionNotFound,
    WorkerNotInstalled,
)

OK: Final = 0
FAILED: Final = 1
"""The session ended in error."""
USAGE: Final = 2
NOT_FOUND: Final = 3
UNREACHABLE: Final = 4
REFUSED: Final = 5
INTERRUPTED: Final = 130
"""128 + SIGINT, as shells count."""


class CommandFailed(Exception):
    """A command cannot go on; ``code`` is its exit code, the text its line on stderr."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class StdoutClosed(Exception):
    """Whoever read our stdout has gone: nothing is left to do, and nobody to tell."""


_CODES: Final[dict[type[AgentRQError], int]] = {
    InvalidSessionId: USAGE,
    InvalidOption: USAGE,
    WorkerNotInstalled: USAGE,
    SessionNotFound: NOT_FOUND,
    EmbeddedServerError: UNREACHABLE,
}
"""Every other error of agentrq is a refusal: the request was understood, and the answer is no."""


_UNWRITABLE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def explain(error: Exception) -> tuple[int, str] | None:
    """An error's exit code and line; None for one that is no user's matter (a bug: let it show itself)."""
    if isinstance(error, CommandFailed):
        return error.code, str(error)
    if isinstance(error, click.UsageError):
        return USAGE, _usage(error)
    if isinstance(error, click.ClickException):
        return FAILED, error.format_message()
    if isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename is None:  # a help, by click
        return FAILED, f"Cannot write to stdout: {error.strerror}"
    if isinstance(error, AgentRQError):
        return _CODES.get(type(error), REFUSED), str(error)
    return None


def _usage(error: click.UsageError) -> str:
    said = error.format_message()
    if error.ctx is None:
        return said
    if isinstance(error, click.NoSuchOption) and error.ctx.parent is None:
        said += " Options come after the command."
    return f"{said} (see {error.ctx.command_path} --help)"


def say(message: str) -> None:
    """One line on stderr, headed by the program's name. Where it cannot be written, the exit code says the rest."""
    if sys.stderr is not None:
        try:
            click.echo(f"agentrq: {one_line(message)}", err=True)
        except OSError:
            abandon(sys.stderr)


def abandon(stream: TextIO) -> None:
    """Send what a stream has buffered nowhere: the interpreter's own flush at its end would fail once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
