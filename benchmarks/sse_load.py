"""Many clients of server-sent events in one process, cheap enough to leave the server most of the machine.

Run as a program it prints one JSON object: how long events took from their writer to the client's socket. Most clients
only count bytes; every `SAMPLED`th one reads when each event was written.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from functools import partial
from typing import Any, Final

SAMPLED: Final = 25
WRITTEN: Final = re.compile(rb"written:(\d+)")


class Client(asyncio.Protocol):
    """One client: a request, then whatever comes."""

    def __init__(self, load: Load, request: bytes, *, sampled: bool, frozen: bool) -> None:
        self._load, self._request, self._sampled, self._frozen = load, request, sampled, frozen
        self._began = False

    def connection_made(self, transport: Any) -> None:
        transport.write(self._request)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._began:
            self._began = True
            self._load.open += data.startswith(b"HTTP/1.1 200")
            if self._frozen:
                self._transport.pause_reading()
        self._load.bytes += len(data)
        if self._sampled and self._load.measuring:
            now = time.monotonic_ns()
            self._load.latencies += [(now - int(written)) / 1e6 for written in WRITTEN.findall(data)]

    def connection_lost(self, error: Exception | None) -> None:
        self._load.open -= self._began


def _same(client: Client) -> Client:
    return client


class Load:
    """What all clients have seen."""

    def __init__(self) -> None:
        self.open = 0
        self.bytes = 0
        self.latencies: list[float] = []
        self.measuring = False

    async def _all_open(self, clients: int) -> None:
        while self.open < clients:  # noqa: ASYNC110 - a load has no time to tell of each client
            await asyncio.sleep(0.05)

    async def run(self, port: int, paths: list[str], frozen: int, warm_s: float, measure_s: float) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        for at, path in enumerate(paths):
            request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
            client = Client(self, request, sampled=at % SAMPLED == 0 and at >= frozen, frozen=at < frozen)
            await loop.create_connection(partial(_same, client), "127.0.0.1", port)
        async with asyncio.timeout(120):
            await self._all_open(len(paths))
        print("ready", flush=True)
        await asyncio.sleep(warm_s)
        self.measuring, before = True, self.bytes
        await asyncio.sleep(measure_s)
        self.measuring = False
        found = sorted(self.latencies)
        at = {name: found[min(len(found) - 1, int(len(found) * share))] if found else None
              for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}  # fmt: skip
        return at | {"events": len(found), "mb_per_s": (self.bytes - before) / measure_s / 1e6, "open": self.open}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--paths", required=True, help="a file with one path a line")
    parser.add_argument("--frozen", type=int, default=0)
    parser.add_argument("--warm", type=float, default=2)
    parser.add_argument("--measure", type=float, default=8)
    given = parser.parse_args()
    with open(given.paths) as file:
        paths = file.read().split()
    print(json.dumps(asyncio.run(Load().run(given.port, paths, given.frozen, given.warm, given.measure))), flush=True)


if __name__ == "__main__":
    main()
