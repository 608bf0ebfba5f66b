"""A real worker under something that listens as systemd does."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentrq_worker.service_manager import ServiceManager
from tests.workers import Worker


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket that a service manager listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        yield listening


def hear(manager: socket.socket, wanted: str) -> list[str]:
    """What is told, up to the first message with ``wanted``."""
    heard: list[str] = []
    while not heard or wanted not in heard[-1].split("\n"):
        heard.append(manager.recv(4096).decode())
    return heard


def test_a_worker_says_that_it_is_ready_runs_and_stops(
    start_worker: Callable[..., Worker], manager: socket.socket, tmp_path: Path
) -> None:
    worker = start_worker(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="300000")
    assert "STATUS=queue agentrq, up to 100 sessions" in hear(manager, "READY=1")[-1]
    for _ in range(3):
        hear(manager, "WATCHDOG=1")
    worker.process.terminate()
    hear(manager, "STOPPING=1")
    assert worker.process.wait(60) == 0


def test_a_worker_that_stands_still_says_nothing(
    start_worker: Callable[..., Worker], manager: socket.socket, tmp_path: Path
) -> None:
    worker = start_worker(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="300000")
    hear(manager, "READY=1")
    worker.freeze()
    manager.settimeout(1)
    with pytest.raises(TimeoutError):
        hear(manager, "nothing of this kind")
    worker.thaw()
    manager.settimeout(30)
    hear(manager, "WATCHDOG=1")


def test_a_watchdog_for_another_process_is_not_ours(manager: socket.socket, tmp_path: Path) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
    for other in ({"WATCHDOG_USEC": "1"}, environment, environment | {"WATCHDOG_PID": str(os.getpid() + 1)}):
        told = ServiceManager(other)
        told.notify("READY=1")
        assert told._watchdog_s == (1e-6 if "WATCHDOG_PID" not in other else 0)
    assert hear(manager, "READY=1") == ["READY=1"]


def test_an_abstract_socket_is_told_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0agentrq-{os.getpid()}")
        listening.settimeout(30)
        ServiceManager({"NOTIFY_SOCKET": f"@agentrq-{os.getpid()}"}).notify("READY=1", "STATUS=x")
        assert listening.recv(100) == b"READY=1\nSTATUS=x"


def test_a_manager_that_is_gone_costs_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).notify("READY=1")
    assert "cannot be told READY=1" in caplog.text
