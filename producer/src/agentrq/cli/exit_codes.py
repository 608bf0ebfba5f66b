"""Exit codes, and the one line on stderr that a failed command prints. Owns both; knows nothing of Redis."""

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
    RedisRefused,
    RedisUnavailable,
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
    """The reader of our stdout has closed it: nothing is left to do, and nobody to tell."""


_CODES: Final[dict[type[AgentRQError], int]] = {
    InvalidSessionId: USAGE,
    InvalidOption: USAGE,
    WorkerNotInstalled: USAGE,
    SessionNotFound: NOT_FOUND,
    EmbeddedServerError: UNREACHABLE,
    RedisUnavailable: UNREACHABLE,
    RedisRefused: UNREACHABLE,
}
"""Exit codes by error; every other error of agentrq is a refusal (5)."""


_UNWRITABLE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def explain(error: Exception) -> tuple[int, str] | None:
    """The exit code and the line for an error; None for a bug, whose traceback is shown."""
    if isinstance(error, CommandFailed):
        return error.code, str(error)
    if isinstance(error, click.UsageError):
        return USAGE, _usage(error)
    if isinstance(error, click.ClickException):
        return FAILED, error.format_message()
    if (
        isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename is None
    ):  # click printing a help text
        return FAILED, f"Cannot write to stdout: {error.strerror}"
    if isinstance(error, AgentRQError):
        return next((code for kind, code in _CODES.items() if isinstance(error, kind)), REFUSED), str(error)
    return None


def _usage(error: click.UsageError) -> str:
    said = error.format_message()
    if error.ctx is None:
        return said
    if isinstance(error, click.NoSuchOption) and error.ctx.parent is None:
        said += " Options come after the command."
    return f"{said} (see {error.ctx.command_path} --help)"


def say(message: str) -> None:
    """Print one line on stderr, after the program's name; if it cannot be written, only the exit code tells."""
    if sys.stderr is not None:
        try:
            click.echo(f"agentrq: {one_line(message)}", err=True)
        except OSError:
            abandon(sys.stderr)


def abandon(stream: TextIO) -> None:
    """Discard what a stream has buffered, so that the interpreter's flush at exit does not fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
