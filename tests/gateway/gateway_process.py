"""A gateway as a process of its own, started and ended by a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.polling import wait_until
from tests.workers import free_port


@contextmanager
def running(*arguments: str, redis_url: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A gateway that is ready, and its address; ended with the block, which has to succeed."""
    process, address = start(free_port(), *arguments, redis_url=redis_url, **env)
    try:
        wait_until(lambda: serves(process, address))
        yield process, address
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert "Traceback" not in said


def serves(process: subprocess.Popen[str], address: str) -> bool:
    assert process.poll() is None, process.stderr.read() if process.stderr else ""
    try:
        return httpx.get(f"{address}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def start(port: int, *arguments: str, redis_url: str, **env: str) -> tuple[subprocess.Popen[str], str]:
    """A gateway process on a port, and its address; it may not serve yet."""
    process = subprocess.Popen(
        [sys.executable, "-m", "agentrq", "gateway", "--redis", redis_url, "--port", str(port), *arguments],
        env=os.environ | env, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    return process, f"http://127.0.0.1:{port}"
