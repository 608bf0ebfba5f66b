"""The command ``deliver``: posts the feed to HTTP endpoints. Owns its threads, its signals and what it prints."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Mapping

import click

from agentrq.cli.exit_codes import FAILED, OK
from agentrq.cli.output import put
from agentrq.cli.sanitize import one_line
from agentrq.cli.shared_options import REDIS, connected
from agentrq.client import AgentClient
from agentrq.webhooks import places
from agentrq.webhooks.delivery import Delivery
from agentrq.webhooks.settings import Endpoint, load, read_secret

log = logging.getLogger("agentrq.webhooks")


@click.command()
@click.option("--config", required=True, metavar="FILE", help="Endpoints as TOML: tables [endpoints.NAME].")
@click.option("--once", is_flag=True, help="End where there is nothing more now.")
@click.option("--dead", metavar="NAME", help="Show the dead letters of this endpoint.")
@click.option("--resend", metavar="NAME", help="Try the dead letters of this endpoint once more.")
@REDIS
def deliver(url: str | None, config: str, once: bool, dead: str | None, resend: str | None) -> int:
    """Post what happens to all sessions to HTTP endpoints, signed, at least once, until stopped."""
    endpoints = load(config)
    for name in (dead, resend):
        if name is not None and name not in endpoints:
            raise click.UsageError(f"{config} has no endpoint {name!r}")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with connected(url) as client:
        if dead is not None:
            for letter in client.run(places.read_dead_letters(client.context, dead, places.MOST_DEAD)):
                put(one_line(f"{letter.entry_id}  {letter.message.id}  {letter.reason}") + "\n")
            return OK
        secrets = {name: read_secret(name, endpoint) for name, endpoint in endpoints.items()}
        if resend is not None:
            again = Delivery(client, resend, endpoints[resend], secrets[resend], threading.Event())
            put(f"{again.resend()} delivered\n")
            return OK
        return _run(client, endpoints, secrets, once)


def _run(client: AgentClient, endpoints: Mapping[str, Endpoint], secrets: Mapping[str, bytes], once: bool) -> int:
    """A thread for each endpoint, until all have ended."""
    stop, failed = threading.Event(), list[str]()

    def run(name: str) -> None:
        try:
            Delivery(client, name, endpoints[name], secrets[name], stop).run(once=once)
        except Exception:
            log.exception("endpoint %s: its delivery has ended", name)
            failed.append(name)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threads = [threading.Thread(target=run, args=(name,), name=f"endpoint {name}") for name in endpoints]
    for thread in threads:
        thread.start()
    log.info("delivering to %s", ", ".join(endpoints))
    for thread in threads:
        while thread.is_alive():  # a join without a time limit would hold back the signals
            thread.join(1.0)
    return FAILED if failed else OK
