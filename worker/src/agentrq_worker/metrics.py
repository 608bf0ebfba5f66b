"""Prometheus metrics of one worker, served on loopback while ``--metrics-port`` asks for it.

Owns their names and the little HTTP server. Figures are read when they are asked for, on the worker's own loop, so that
sessions pay nothing for them. Text format: version 0.0.4, by prometheus-client.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from agentrq_worker.ownership.ownership import Ownership
from agentrq_worker.session.shell import SessionShell
from agentrq_worker.settings import Settings
from agentrq_worker.stream.publisher import Publisher

REQUEST_S: Final = 5.0
MOST_REQUEST: Final = 16_384


class MeasuredHost(Protocol):
    """What the figures are read of: a worker's `SessionHost`."""

    settings: Settings
    ownership: Ownership
    publisher: Publisher
    sessions: dict[str, SessionShell]
    ended: Counter[tuple[str, str]]


class WorkerCollector:
    """Reads a host's figures."""

    def __init__(self, host: MeasuredHost) -> None:
        self._host = host

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        host = self._host
        sessions = GaugeMetricFamily("agentrq_sessions", "Sessions hosted now, by status.", labels=["status"])
        for status, count in Counter(str(session.status) for session in host.sessions.values()).items():
            sessions.add_metric([status], count)
        yield sessions
        yield GaugeMetricFamily("agentrq_max_sessions", "Sessions this worker may host.", host.settings.max_sessions)
        ended = CounterMetricFamily("agentrq_sessions_ended", "Sessions ended here.", labels=["status", "reason"])
        for (status, reason), count in host.ended.items():
            ended.add_metric([status, reason], count)
        yield ended
        publisher = host.publisher
        yield CounterMetricFamily("agentrq_events_written", "Events written to Redis.", publisher.events_written)
        shares = publisher.shares
        yield GaugeMetricFamily("agentrq_pending_bytes", "Bytes of events that wait in memory.", shares.memory)
        yield GaugeMetricFamily("agentrq_spooled_bytes", "Bytes of events that wait on disk.", shares.disk)
        away = 0.0 if publisher.away_since is None else time.monotonic() - publisher.away_since
        yield GaugeMetricFamily(
            "agentrq_redis_away_seconds", "Seconds since Redis took the last events, while it takes none; else 0.", away
        )
        yield CounterMetricFamily("agentrq_lease_beats", "Times the lease was renewed.", host.ownership.beats)


async def serve(host: MeasuredHost, port: int) -> None:
    """Answer ``GET /metrics`` on loopback until cancelled. Raises OSError where the port is taken."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(WorkerCollector(host))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                request = await reader.readuntil(b"\r\n\r\n")
                known = request.startswith((b"GET /metrics ", b"GET / "))
                body = generate_latest(registry) if known else b"Not found\n"
                head = (
                    f"HTTP/1.1 {'200 OK' if known else '404 Not Found'}\r\nContent-Type: {CONTENT_TYPE_LATEST}\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode() + body)
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the peer is gone, or does not speak HTTP
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port, limit=MOST_REQUEST)
    async with server:
        await server.serve_forever()
