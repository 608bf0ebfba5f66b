"""Ending processes that are found: frozen on sight, killed when a look shows nothing new, in rounds that come back."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from agentrq_worker.process import procfs
from agentrq_worker.process.kill import KillSet


@pytest.fixture
def sleeper() -> Iterator[procfs.Stat]:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        stat = procfs.read_stat(process.pid)
        assert stat
        yield stat
        process.kill()


def test_what_is_seen_is_frozen_before_the_look_is_over(sleeper: procfs.Stat) -> None:
    looks: list[int] = []

    def find(on_sight: procfs.OnSight) -> list[procfs.Stat]:
        on_sight(sleeper)
        if not looks:
            stopped = os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOWAIT)
            assert stopped
            looks.append(stopped.si_status)
        return [sleeper]

    ending = KillSet(find)
    assert not ending.round()
    assert looks == [signal.SIGSTOP]
    assert ending.ended == {sleeper.ident}


def test_what_was_frozen_is_killed_though_it_is_not_found_again(sleeper: procfs.Stat) -> None:
    looks = iter([[sleeper]])
    ending = KillSet(lambda _: next(looks, []))
    assert ending.round()
    assert ending.ended == {sleeper.ident}


def test_nothing_of_this_process_s_own_session_is_touched() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        stat = procfs.read_stat(process.pid)
        assert stat

        def find(on_sight: procfs.OnSight) -> list[procfs.Stat]:
            on_sight(stat)
            return []

        assert KillSet(find).round()
        assert process.communicate(b"still here")[0] == b"still here"


def test_a_round_comes_back_though_every_look_finds_another() -> None:
    gone = (procfs.Stat(2**22, 1, 2**22, born, "S", 1) for born in range(1, 2**62))
    ending = KillSet(lambda _: [next(gone)])
    assert not ending.round()
    assert not ending.ended
