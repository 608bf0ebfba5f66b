"""The gateway's streams under load, beside the plain `async for` endpoint of examples/fastapi_sse.py.

`python -m benchmarks.gateway_streams` prints a table: memory and CPU of idle streams, how late events come with many
clients on one session and with a session for each, what frozen clients do to the others, the CPU of both servers for
the same clients. Owns its servers and its writer of events; the clients are sse_load.py's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import redis

from agentrq.embedded.server_process import ServerProcess
from agentrq.wire.keys import Keys

KEYS: Final = Keys()
PORT: Final = 18420
WRITE: Final = (
    """
for i = 3, #ARGV do
  local sid = ARGV[i]
  local key = '"""
    + KEYS.prefix
    + """:{' .. sid .. '}:'
  local cursor = redis.call('HINCRBY', key .. 'bench', 'seq', 1)
  cursor = '1-' .. string.format('%d', cursor)
  local json = '{"cursor":"' .. cursor .. '","sessionId":"' .. sid .. '","id":"m' .. cursor ..
    '","type":"text","timestamp":1763793000123,"content":{"text":"written:' .. ARGV[1] .. ' ' .. ARGV[2] .. '"}}'
  redis.call('XADD', key .. 'events', 'MAXLEN', '~', 2000, cursor, 'message', json)
  redis.call('HSET', key .. 'state', 'cursor', cursor)
  redis.call('PUBLISH', key .. 'messages', '[' .. json .. ']')
end
"""
)
"""One event of each session that is named, written as a worker writes it: stream, state and channel in one step."""


class EventWriter:
    """Writes so many events a second, spread over some sessions, until it is stopped."""

    def __init__(self, url: str, sessions: list[str], per_second: float, size: int = 200) -> None:
        self._redis = redis.Redis.from_url(url)
        self._script = self._redis.register_script(WRITE)
        self._sessions, self._per_second, self._text = sessions, per_second, "x" * size
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        tick = max(1 / self._per_second, 0.005)
        at, owed, due = 0, 0.0, time.monotonic()
        while not self._stop.is_set():
            owed += self._per_second * tick
            count, owed = int(owed), owed - int(owed)
            chosen = [self._sessions[(at + step) % len(self._sessions)] for step in range(count)]
            at += count
            if chosen:
                self._script(args=[time.monotonic_ns(), self._text, *chosen])
            due += tick
            time.sleep(max(0.0, due - time.monotonic()))

    def __enter__(self) -> EventWriter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def make_sessions(url: str, count: int) -> list[str]:
    """So many sessions that run, without a worker."""
    ids = [f"bench{number}" for number in range(count)]
    with redis.Redis.from_url(url) as client, client.pipeline(transaction=False) as pipeline:
        for sid in ids:
            first = f'{{"cursor":"1-1","sessionId":"{sid}","status":"running","timestamp":1763793000123}}'
            pipeline.xadd(KEYS.events(sid), {"status": first}, id="1-1")
            pipeline.hset(f"{KEYS.prefix}:{{{sid}}}:bench", "seq", 1)
            pipeline.hset(KEYS.state(sid), mapping={
                "provider": "demo", "status": "running", "epoch": 1, "cursor": "1-1", "nonce": sid,
                "token": "bench", "worker": "bench", "createdAt": 1763793000123,
            })  # fmt: skip
        pipeline.set(KEYS.worker("bench"), "bench")
        pipeline.execute()
    return ids


@contextmanager
def serving(url: str, plain: bool) -> Iterator[psutil.Process]:
    """The gateway, or the plain endpoint, as a process that serves."""
    most = dict.fromkeys(("MAX_STREAMS", "MAX_STREAMS_PER_CALLER"), "100000")
    env = os.environ | {"AGENTRQ_REDIS_URL": url} | {f"AGENTRQ_GATEWAY_{name}": value for name, value in most.items()}
    command = (
        ["-m", "uvicorn", "--app-dir", "examples", "fastapi_sse:app", "--log-level", "warning"]
        if plain
        else ["-m", "agentrq", "gateway"]
    )
    process = subprocess.Popen(
        [sys.executable, *command, "--port", str(PORT)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until_open()
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def wait_until_open() -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", PORT), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the server does not start")


def cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(
    process: psutil.Process, paths: list[str], *, frozen: int = 0, warm: float = 2, seconds: float = 8
) -> dict[str, Any]:
    """What clients of these paths see, and what it costs the server."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("\n".join(paths))
        file.flush()
        load = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sse_load", "--port", str(PORT), "--paths", file.name,
             "--frozen", str(frozen), "--warm", str(warm), "--measure", str(seconds)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert load.stdout
        assert load.stdout.readline().strip() == "ready"
        time.sleep(warm)
        before = cpu_of(process)
        time.sleep(seconds * 0.9)
        cpu = (cpu_of(process) - before) / (seconds * 0.9)
        memory = process.memory_info().rss / 1e6
        found: dict[str, Any] = json.loads(load.stdout.readline())
        load.wait()
    return found | {"cpu": cpu, "mb": memory}


def report(name: str, found: dict[str, Any], goal: str = "") -> None:
    """One row."""
    late = "–" if found["p99"] is None else f"{found['p50']:.0f} / {found['p99']:.0f} / {found['max']:.0f} ms"
    print(f"| {name} | {found['open']} | {late} | {found['cpu'] * 100:.1f} % | {found['mb']:.0f} MB | "
          f"{found['mb_per_s']:.1f} MB/s | {goal} |", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="some of: idle one own frozen plain")
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    chosen = given.only.split() or ["idle", "one", "own", "frozen", "plain"]
    seconds = 4.0 if given.quick else 10.0
    share = 5 if given.quick else 1
    print("| case | clients | p50 / p99 / max | CPU | memory | out | goal |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory, ServerProcess(Path(directory)) as server:
        url, ids = server.url, make_sessions(server.url, 1000)
        if "idle" in chosen:
            idle(url, ids, 5000 // share, seconds + 10)
        if "one" in chosen:
            one_session(url, ids, 1000 // share, 200, seconds, "p99 ≤ 150 ms")
        if "own" in chosen:
            own_sessions(url, ids[: 1000 // share], seconds)
        if "frozen" in chosen:
            for frozen in (0, 100 // share):
                one_session(url, ids, 300 // share, 100, seconds, "p99 of the others + ≤ 20 %", frozen=frozen)
        if "plain" in chosen:
            for plain in (True, False):
                one_session(url, ids, 200 // share, 100, seconds, "≥ 5× the clients at the same CPU", plain=plain)


def path_of(session_id: str, *, plain: bool = False) -> str:
    """Where a server has a session's stream."""
    return f"/sessions/{session_id}/{'events' if plain else 'stream'}"


def idle(url: str, ids: list[str], clients: int, seconds: float) -> None:
    """Streams on which nothing happens."""
    paths = [path_of(ids[at % len(ids)]) for at in range(clients)]
    with serving(url, plain=False) as gateway:
        report("idle streams", measure(gateway, paths, warm=6, seconds=seconds), "≤ 300 MB, ≤ 3 %")


def one_session(
    url: str, ids: list[str], clients: int, per_second: float, seconds: float, goal: str, *, frozen: int = 0,
    plain: bool = False,
) -> None:  # fmt: skip
    """Many clients of one session."""
    with serving(url, plain=plain) as server, EventWriter(url, ids[:1], per_second):
        found = measure(server, [path_of(ids[0], plain=plain)] * (clients + frozen), frozen=frozen, seconds=seconds)
    who = "FastAPI's endpoint" if plain else "the gateway"
    report(f"{who}: one session, {per_second:g} events/s, {frozen} clients frozen", found, goal)


def own_sessions(url: str, ids: list[str], seconds: float) -> None:
    """Clients with a session each."""
    with serving(url, plain=False) as gateway, EventWriter(url, ids, 5 * len(ids)):
        found = measure(gateway, [path_of(sid) for sid in ids], seconds=seconds)
    report("a session each, 5 events/s", found, "p99 ≤ 100 ms")


if __name__ == "__main__":
    main()
