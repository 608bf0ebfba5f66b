"""The table of commands. A command's module is imported when it is used, not for the help.

Owns their lines in the help and the error if agentrq-worker is missing; not what they do.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import Final

import click

from agentrq.cli.exit_codes import USAGE, CommandFailed
from agentrq.errors import WorkerNotInstalled

GROUP: Final = "agentrq.commands"
"""Entry point group in which agentrq-worker and agentrq-gateway register their commands."""
COMMANDS: Final = {
    "up": (None, "Run all that one machine needs: the private Valkey and a worker."),
    "worker": (None, "Host sessions until stopped."),
    "gateway": (None, "Serve sessions over HTTP until stopped."),
    "start": ("agentrq.cli.session_commands:start", "Start a session and print its id."),
    "run": ("agentrq.cli.session_commands:run", "Start a session and follow it to the end of its turn."),
    "attach": ("agentrq.cli.session_commands:attach", "Show a session from its beginning, then live, until it ends."),
    "prompt": ("agentrq.cli.control_commands:prompt", "Send a prompt to a session."),
    "answer": ("agentrq.cli.control_commands:answer", "Answer an approval request or a question."),
    "interrupt": ("agentrq.cli.control_commands:interrupt", "End the current turn; the session goes on."),
    "stop": ("agentrq.cli.control_commands:stop", "Stop a session, whichever worker owns it."),
    "list": ("agentrq.cli.list_command:list_sessions", "List the sessions that Redis still has, the newest first."),
    "top": ("agentrq.cli.top_command:top", "Show the sessions that have not ended, live."),
    "show": ("agentrq.cli.inspect_commands:show", "Show a session's state."),
    "why": ("agentrq.cli.why_command:why", "Say why a session is where it is, and the command that helps."),
    "feed": ("agentrq.cli.feed_command:feed", "Show what happens to all sessions: starts, waits, turns, ends."),
    "cost": ("agentrq.cli.cost_commands:cost", "Show what turns cost, by tenant, model, day and more."),
    "deliver": ("agentrq.cli.deliver_command:deliver", "Post what happens to all sessions to HTTP endpoints."),
    "limits": ("agentrq.cli.limits_commands:limits", "Limit what each tenant may have at once."),
    "prices": ("agentrq.cli.cost_commands:prices", "Import prices of models, and show them."),
    "remove": ("agentrq.cli.inspect_commands:remove", "Delete a session at once; a live one is stopped first."),
    "metrics": (None, "Print or serve Prometheus metrics of the whole fleet."),
    "export": ("agentrq.cli.copy_commands:export_sessions", "Print ended sessions as lines of JSON."),
    "import": ("agentrq.cli.copy_commands:import_sessions", "Read sessions that `agentrq export` printed."),
    "acl": ("agentrq.cli.acl_command:acl", "Print an ACL SETUSER line for each ROLE."),
    "doctor": ("agentrq.cli.doctor:doctor", "Check what agentrq needs: versions, Redis, workers, agents."),
}
"""Command → ``module:attribute`` (None: an entry point of `GROUP`) and its line in the help."""


class Commands(click.Group):
    """The group of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A stand-in with the line of the help; `resolve_command` gives the command itself."""
        return click.Command(cmd_name, help=COMMANDS[cmd_name][1]) if cmd_name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command to be run. Raises `WorkerNotInstalled`, `CommandFailed`."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in COMMANDS else found, rest


def load(name: str) -> click.Command:
    """Import a command. Raises `WorkerNotInstalled`, `CommandFailed`."""
    place = COMMANDS[name][0]
    if place is not None:
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command
    found = next(iter(metadata.entry_points(group=GROUP, name=name)), None)
    if found is None and name == "gateway":
        raise CommandFailed(USAGE, "`agentrq gateway` needs agentrq-gateway: pip install 'agentrq-gateway[server]'")
    if found is None:
        raise WorkerNotInstalled(f"`agentrq {name}` needs the distribution agentrq-worker: pip install agentrq-worker")
    try:
        command = found.load()
    except ImportError as error:
        raise CommandFailed(USAGE, f"`agentrq {name}` cannot be loaded from {found.value}: {error}") from error
    return command
