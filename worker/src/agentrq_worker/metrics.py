"""What a worker tells of itself by HTTP: Prometheus metrics at ``/metrics``, health at ``/healthz`` and ``/readyz``.

Owns the gauges, which are read of the worker when somebody asks, and what health means. Does not own what is counted
and timed all along (measurements.py) nor the HTTP exchange (status_server.py). Text format: version 0.0.4, by
prometheus-client.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http import HTTPStatus
from itertools import accumulate
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.utils import floatToGoString

from agentrq_worker.measurements import Counts, Measurements, Times
from agentrq_worker.ownership.ownership import Ownership
from agentrq_worker.process.memory import Usage, descendants_usage
from agentrq_worker.session.shell import SessionShell
from agentrq_worker.settings import Settings
from agentrq_worker.status_server import Answer, Routes
from agentrq_worker.stream.publisher import Publisher


class MeasuredHost(Protocol):
    """What the figures are read of: a worker's `SessionHost`."""

    settings: Settings
    ownership: Ownership
    publisher: Publisher
    sessions: dict[str, SessionShell]
    measurements: Measurements

    @property
    def guardian_pid(self) -> int | None:
        """The guardian's process id; None before the worker has begun."""

    @property
    def draining(self) -> bool:
        """The worker ends: it takes no session any more."""


def redis_away_s(host: MeasuredHost) -> float:
    """Seconds since Redis last took what this worker wrote, while it takes nothing; else 0.

    An idle worker writes only its lease: two beats without one count as away.
    """
    now, since = time.monotonic(), host.publisher.away_since
    silent = 0.0 if host.ownership.beaten_at is None else now - host.ownership.beaten_at
    away = silent if silent > 2 * host.settings.beat_s else 0.0
    return max(away, 0.0 if since is None else now - since)


class WorkerCollector:
    """Reads a host's figures."""

    def __init__(self, host: MeasuredHost) -> None:
        self._host = host
        self.runners = Usage(0, 0)
        """What the runners used when that was last read."""

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        yield from self._gauges()
        for family in self._host.measurements.families:
            yield _counter(family) if isinstance(family, Counts) else _histogram(family)

    def _gauges(self) -> Iterator[Metric]:
        host = self._host
        build = GaugeMetricFamily("agentrq_build_info", "1, with the versions of agentrq-worker and Python as labels.",
                                  labels=["version", "python"])  # fmt: skip
        build.add_metric([importlib.metadata.version("agentrq-worker"), platform.python_version()], 1)
        yield build
        sessions = GaugeMetricFamily("agentrq_sessions", "Sessions hosted now, by status and provider.",
                                     labels=["status", "provider"])  # fmt: skip
        hosted = list(host.sessions.values())
        for (status, provider), count in Counter((str(one.status), one.provider) for one in hosted).items():
            sessions.add_metric([status, provider], count)
        yield sessions
        most = host.settings.max_sessions
        yield GaugeMetricFamily("agentrq_max_sessions", "Sessions this worker may host.", most)
        slots = GaugeMetricFamily("agentrq_slots", "Places for sessions: `used`, `free`, or `closed` while the worker "
                                  "ends and takes no more.", labels=["state"])  # fmt: skip
        rest = max(0, most - len(hosted))
        for state, count in ("used", len(hosted)), ("free", 0 if host.draining else rest), (
            "closed", rest if host.draining else 0
        ):  # fmt: skip
            slots.add_metric([state], count)
        yield slots
        shares = host.publisher.shares
        yield GaugeMetricFamily("agentrq_pending_bytes", "Bytes of events that wait in memory.", shares.memory)
        yield GaugeMetricFamily("agentrq_spooled_bytes", "Bytes of events that wait on disk.", shares.disk)
        yield GaugeMetricFamily("agentrq_redis_away_seconds", "Seconds since Redis last took what this worker wrote, "
                                "while it takes nothing; else 0. Also told while the worker is idle.",
                                redis_away_s(host))  # fmt: skip
        yield CounterMetricFamily("agentrq_lease_beats", "Times the lease was renewed.", host.ownership.beats)
        yield GaugeMetricFamily("agentrq_runner_processes", "Processes of runners, with all that they started.",
                                self.runners.processes)  # fmt: skip
        yield GaugeMetricFamily("agentrq_runners_memory_bytes", "Their resident memory.", self.runners.resident)


def _counter(family: Counts) -> Metric:
    metric = CounterMetricFamily(family.name, family.text, labels=family.labels)
    for labels, value in family.values.items():
        metric.add_metric(labels, value)
    return metric


def _histogram(family: Times) -> Metric:
    metric = HistogramMetricFamily(family.name, family.text, labels=family.labels)
    bounds = [*map(floatToGoString, family.bounds), "+Inf"]
    for labels, counts in family.buckets.items():
        metric.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), family.sums[labels])
    return metric


def not_ready_reason(host: MeasuredHost) -> str | None:
    """Why this worker should be given no work now; None where it is ready."""
    if host.draining:
        return "the worker is ending"
    if host.ownership.beaten_at is None:
        return "the worker is starting"
    away = redis_away_s(host)
    return f"Redis takes nothing since {away:.0f} s" if away else None


def routes(host: MeasuredHost, not_ready: Callable[[], str | None]) -> Routes:
    """What each path answers; ``not_ready``: why the worker should be given no work now."""
    registry = CollectorRegistry(auto_describe=False)
    collector = WorkerCollector(host)
    registry.register(collector)
    ProcessCollector(registry=registry)

    async def metrics() -> Answer:
        but = [] if host.guardian_pid is None else [host.guardian_pid]
        collector.runners = await asyncio.to_thread(descendants_usage, but)
        return Answer(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    async def healthz() -> Answer:
        return Answer(b"ok\n")  # the loop answers; that Redis is away is nothing that a restart would mend

    async def readyz() -> Answer:
        reason = not_ready()
        return Answer(b"ok\n") if reason is None else Answer(f"{reason}\n".encode(), HTTPStatus.SERVICE_UNAVAILABLE)

    return {"/": metrics, "/metrics": metrics, "/healthz": healthz, "/readyz": readyz}
