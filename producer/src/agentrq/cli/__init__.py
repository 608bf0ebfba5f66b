"""The command line ``agentrq``. Owns start and exit of the process; the commands are listed in command_table.py."""

from __future__ import annotations

import io
import os
import sys

import click

from agentrq.cli.command_table import Commands
from agentrq.cli.exit_codes import INTERRUPTED, OK, USAGE, StdoutClosed, abandon, explain, say


@click.group(
    cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 success, 1 the session ended in error, 2 usage, 3 session not found, 4 Redis not "
    "reachable, 5 refused.",
)  # fmt: skip
@click.version_option(package_name="agentrq", message="agentrq %(version)s")
@click.pass_context
def cli(context: click.Context) -> int:
    """Run coding-agent sessions on Redis and RQ."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
    return USAGE


def main() -> None:
    """Run the command line of this process and exit."""
    if sys.stdout is None:  # closed before we began
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - open as long as the process is
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal's encoding may lack characters of a help text
        sys.stdout.reconfigure(errors="replace")
    # JSON cannot carry bytes that are not UTF-8.
    arguments = [os.fsencode(argument).decode("utf-8", "replace") for argument in sys.argv[1:]]
    sys.exit(_run(arguments))


def _run(arguments: list[str]) -> int:
    try:
        code = cli.main(arguments, prog_name="agentrq", standalone_mode=False)
        return code if isinstance(code, int) else OK
    except StdoutClosed:
        return OK
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        if isinstance(error, OSError):
            abandon(sys.stdout)
        say(explained[1])
        return explained[0]
