"""``make demo``: a private Valkey, a worker and one session of the demo agent, shown live; then all of it is ended.

Only puts together what users run: the private Valkey (in a temporary directory), ``agentrq worker``, ``agentrq run``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from agentrq.connection import connect
from agentrq.embedded.attach import attach
from agentrq.errors import EmbeddedServerError
from agentrq.wire.keys import Keys

NAME = "demo"
READY_S = 20.0
END_S = 15.0
PROMPT = "Look around here and tell me what you see."


def _agentrq(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "agentrq", *arguments]


def _wait_ready(url: str, worker: subprocess.Popen[bytes]) -> None:
    """Wait until the worker holds its lease. Raises `click.ClickException` if it ends before, or takes too long."""
    deadline = time.monotonic() + READY_S
    with connect(url) as client:
        while not client.exists(Keys.from_environment().worker(NAME)):
            if worker.poll() is not None or time.monotonic() > deadline:
                raise click.ClickException("the worker did not start")
            time.sleep(0.05)


def run(directory: Path) -> int:
    """Run the demo with its data in ``directory``; returns the exit code of `agentrq run`."""
    with attach(directory) as server:
        url = ("--redis", server.url)
        click.echo(f"Valkey runs at {server.url}")
        worker = subprocess.Popen(_agentrq("worker", *url, "--log-level", "WARNING", "--name", NAME))
        try:
            _wait_ready(server.url, worker)
            click.echo(f"Worker runs as process {worker.pid}\n$ agentrq run demo {PROMPT!r}", nl=True)
            sys.stdout.flush()
            options = ["--session-id", "demo", "--cwd", os.getcwd()]
            if sys.stdin.isatty() and sys.stdout.isatty():  # somebody can answer what the agent asks
                options += ["--option", "permission_mode=default"]
            shown = subprocess.run(_agentrq("run", "demo", PROMPT, *options, *url), check=False)
            click.echo("$ agentrq stop demo && agentrq list")
            sys.stdout.flush()
            subprocess.run(_agentrq("stop", "demo", *url), check=False)
            subprocess.run(_agentrq("list", *url), check=False)
        finally:
            _end_worker(worker)
        ended = server.close_and_wait(END_S)
    said = "Worker and Valkey have ended." if ended else f"The worker has ended, Valkey not within {END_S:g} s."
    program = "agentrq" if shutil.which("agentrq") else os.path.relpath(Path(sys.executable).with_name("agentrq"))
    click.echo(f"{said} Next: {program} up, and in another terminal {program} run demo 'Hello'.")
    return shown.returncode


def _end_worker(worker: subprocess.Popen[bytes]) -> None:
    worker.terminate()
    try:
        worker.wait(END_S)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


def main() -> None:
    """Entry point of ``python -m agentrq_worker.demo``."""
    with tempfile.TemporaryDirectory(prefix="agentrq-demo-") as directory:
        try:
            sys.exit(run(Path(directory)))
        except EmbeddedServerError as error:
            click.echo(f"agentrq: {error}", err=True)
            sys.exit(4)
        except click.ClickException as error:
            click.echo(f"agentrq: {error.message}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
