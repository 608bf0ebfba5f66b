"""The command ``agentrq metrics``: Prometheus metrics of all sessions and workers together, which no worker knows.

Owns their names and how they are served. Does not own what is read (`agentrq.client`). Nothing is kept between two
scrapes; a Redis that does not answer is told as `agentrq_fleet_up` 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

import click
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from agentrq.cli.exit_codes import OK, UNREACHABLE, USAGE, CommandFailed
from agentrq.cli.shared_options import REDIS, connected
from agentrq.client import AgentClient
from agentrq.errors import RedisRefused, RedisUnavailable
from agentrq.wire.state import State
from agentrq.wire.status import Status
from agentrq_worker import status_server
from agentrq_worker.status_server import Answer

log = logging.getLogger(__name__)

LOST: Final = "lost"
"""The status under which a session is counted whose worker is gone and that no other has taken yet."""
_LIVE: Final = tuple(status for status in Status if not status.ended)
_PAGE: Final = 1000


class FleetCollector:
    """Reads all sessions that have not ended, the queue and its workers, for each scrape."""

    def __init__(self, client: AgentClient) -> None:
        self._client = client

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        began = time.monotonic()
        try:
            metrics = list(self._read())
        except (RedisUnavailable, RedisRefused) as error:
            log.warning("no figures: %s", error)
            metrics = []
        yield from metrics
        yield GaugeMetricFamily("agentrq_fleet_up", "1 while Redis answers, else 0: then no other figure is true.",
                                bool(metrics))  # fmt: skip
        yield GaugeMetricFamily("agentrq_fleet_read_seconds", "How long it took to read all this.",
                                time.monotonic() - began)  # fmt: skip

    def _read(self) -> Iterator[Metric]:
        client = self._client
        fleet = client.fleet()
        waiting = client.waiting()
        alive = [worker for worker in fleet.workers if worker.alive]
        free = sum(worker.free or 0 for worker in alive)
        oldest_s = 0.0 if fleet.oldest_ms is None else max(0, fleet.now - fleet.oldest_ms) / 1000
        asked = min((each.request.asked_at for each in waiting), default=fleet.now)
        asked_s = max(0, fleet.now - asked) / 1000
        sessions = GaugeMetricFamily(
            "agentrq_fleet_sessions",
            "Sessions that have not ended, by status (`lost`: their worker is gone) and provider.",
            labels=["status", "provider"],
        )
        counted = Counter((LOST if one.worker_lost else str(one.status), one.provider) for one in self._live())
        for (status, provider), count in counted.items():
            sessions.add_metric([status, provider], count)
        yield sessions
        yield GaugeMetricFamily("agentrq_fleet_workers", "Live workers that serve the queue.", len(alive))
        yield GaugeMetricFamily("agentrq_fleet_slots_free", "Sessions that they would take together.", free)
        yield GaugeMetricFamily("agentrq_fleet_queue_length", "Starts that wait in the queue.", fleet.queue_length)
        yield GaugeMetricFamily(
            "agentrq_fleet_queue_oldest_seconds", "Age of the start that is next; 0 while none waits.", oldest_s
        )
        yield GaugeMetricFamily(
            "agentrq_fleet_open_requests", "Requests and questions that wait for people.", len(waiting)
        )
        yield GaugeMetricFamily(
            "agentrq_fleet_open_request_oldest_seconds", "Age of the oldest of them; 0 while none waits.", asked_s
        )
        yield GaugeMetricFamily(
            "agentrq_fleet_suspended", "1 while RQ is suspended: no worker takes a job.", fleet.suspended
        )
        if fleet.used_memory is not None and fleet.max_memory is not None:
            yield GaugeMetricFamily("agentrq_fleet_redis_memory_bytes", "Memory that Redis uses.", fleet.used_memory)
            yield GaugeMetricFamily(
                "agentrq_fleet_redis_max_memory_bytes", "Memory that Redis may use; 0: no bound.", fleet.max_memory
            )

    def _live(self) -> Iterator[State]:
        before: str | None = None
        while True:
            page = self._client.sessions(status=_LIVE, limit=_PAGE, before=before)
            yield from page
            before = page.next
            if before is None:
                return


def registry_of(client: AgentClient) -> CollectorRegistry:
    """A registry with these metrics alone."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FleetCollector(client))
    return registry


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), metavar="PORT", help="Serve them there until stopped.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to serve them at.")
@REDIS
def metrics(port: int | None, host: str, url: str | None) -> int:
    """Print Prometheus metrics of the whole fleet once, or serve them: queue, workers, sessions, open requests."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with connected(url) as client:
        registry = registry_of(client)
        if port is None:
            text = generate_latest(registry)
            click.echo(text, nl=False)
            return OK if b"\nagentrq_fleet_up 1" in text else UNREACHABLE
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(_bind(host, port), registry))
    return OK


def _bind(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise CommandFailed(USAGE, f"--host {host} --port {port}: {error.strerror}") from None


async def _serve(bound: socket.socket, registry: CollectorRegistry) -> None:
    reading = asyncio.Lock()

    async def answer() -> Answer:
        async with reading:  # one client, and no more load on Redis however often it is asked
            return Answer(await asyncio.to_thread(generate_latest, registry), content_type=CONTENT_TYPE_LATEST)

    async def healthz() -> Answer:
        return Answer(b"ok\n")

    async with asyncio.TaskGroup() as group:
        routes = {"/": answer, "/metrics": answer, "/healthz": healthz}
        serving = group.create_task(status_server.serve(bound, routes), name="fleet metrics")
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
        log.info("fleet metrics are served at port %d", bound.getsockname()[1])
