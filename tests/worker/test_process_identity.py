"""Whether a process of this machine has ended: known by pid and start time, and never guessed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agentrq_worker.process import procfs
from agentrq_worker.process.identity import ProcessId, machine_id, own_process

pytestmark = pytest.mark.skipif(not procfs.AVAILABLE, reason="there is no /proc")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_process_has_ended_once_it_is_a_zombie_and_once_it_is_reaped(child: subprocess.Popen[bytes]) -> None:
    process = ProcessId(child.pid, procfs.starttime(child.pid))
    assert not procfs.is_gone(process)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and nobody has asked for its exit code
    assert procfs.is_gone(process)
    child.wait()
    assert procfs.is_gone(process)


def test_a_later_process_with_the_same_pid_is_another() -> None:
    own = own_process()
    assert own is not None
    assert not procfs.is_gone(own)
    assert procfs.is_gone(own._replace(starttime=own.starttime - 1))


@pytest.mark.parametrize("error", [None, PermissionError])
def test_a_process_that_proc_hides_counts_as_running(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception] | None
) -> None:
    def kill(pid: int, number: int) -> None:
        assert number == 0
        if error is not None:
            raise error

    monkeypatch.setattr(procfs, "read_stat", lambda pid: None)
    monkeypatch.setattr(os, "kill", kill)
    assert not procfs.is_gone(ProcessId(4242, 1))


def test_a_pid_that_cannot_be_one_is_not_dead() -> None:
    assert not procfs.is_gone(ProcessId(10**17, 1))


def test_a_machine_is_unknown_where_proc_is_of_another_pid_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_id() == machine_id()
    monkeypatch.setattr(os, "getpid", lambda: 1_000_000_000)
    assert machine_id() is None
