"""A worker that is killed leaves nothing, nor does one that is long gone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest

from agentrq_worker.process import descendants, guardian, marks, prctl, procfs
from tests.worker.hidden_children import DAEMON, HIDING, PYTHON, THEN_READ, is_gone, left_over, runs

# A worker: spawns one runner for each argument, prints the pids (guardian, then runner and its hidden child each).
WORKER = f"""
import asyncio, os, sys
from agentrq_worker.process import descendants, marks, prctl, procfs
from agentrq_worker.process.guardian import Guardian
from agentrq_worker.process.runner_process import RunnerProcess

async def main():
    if "subreaper" in sys.argv:
        assert prctl.become_subreaper()
    guardian = Guardian() if "guardian" in sys.argv else None
    print(guardian.pid if guardian else 0, flush=True)
    runners = []
    for hides in sys.argv[1].split(";"):
        ready = asyncio.Event()
        def on_chunk(data):
            print(runners[-1].pid, data.decode().strip(), flush=True)
            ready.set()
        runners.append(await RunnerProcess.spawn([*{PYTHON!r}, {DAEMON + THEN_READ!r}, hides], env=dict(os.environ),
            mark=marks.make_mark("s"), on_chunk=on_chunk, on_stdout_end=lambda: None))
        await ready.wait()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for runner in runners if "tidy" in sys.argv else ():
        await runner.aclose()
    if "close" in sys.argv:
        assert guardian.close()
        assert not guardian.alive
        print("closed", flush=True)

asyncio.run(main())
"""


@contextmanager
def worker(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int, list[int]]]:
    """(the worker, its guardian's pid, the pids of all runners and their children)."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    ident = process.pid, procfs.starttime(process.pid)
    with process:
        try:
            out: IO[str] | None = process.stdout
            assert out
            guard = int(out.readline())
            pids: list[int] = []
            while (line := out.readline().strip()) != "ready":
                assert line, "the worker failed"
                pids += map(int, line.split())
            yield process, guard, pids
        finally:
            process.kill()
            process.wait()
            guardian.end_worker(ident)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    assert prctl.become_subreaper()
    yield
    descendants.reap_orphans()
    assert left_over() == []


@pytest.mark.parametrize("subreaper", ["subreaper", ""])
def test_a_killed_worker_leaves_nothing(subreaper: str) -> None:
    with worker(";".join(HIDING), "guardian", subreaper) as (process, guard, pids):
        assert len(pids) == 2 * len(HIDING)
        assert all(map(runs, [guard, *pids]))
        process.kill()
        assert [pid for pid in [guard, *pids] if not is_gone(pid)] == []


def test_the_guardian_ends_by_the_pipe_and_nothing_else() -> None:
    with worker("stdio", "guardian") as (process, guard, pids):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(guard, number)
        assert os.getsid(guard) == guard
        process.kill()
        assert all(map(is_gone, pids))
        assert is_gone(guard)


def test_a_frozen_worker_is_not_a_dead_one() -> None:
    with worker("stdio", "guardian") as (process, guard, pids):
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        guardian.sweep()
        assert all(map(runs, [guard, *pids]))
        process.kill()
        assert all(map(is_gone, [guard, *pids]))


@pytest.mark.parametrize("tidy", ["tidy", ""])
def test_closed_in_good_order_it_ends_what_is_left_and_exits(tidy: str) -> None:
    with worker("stdio,setsid,fork", "guardian", "subreaper", "close", tidy) as (process, guard, pids):
        assert process.stdin
        assert process.stdout
        process.stdin.close()
        assert process.stdout.readline() == "closed\n"
        assert process.wait(10) == 0
        assert not any(map(runs, [guard, *pids]))


def test_its_own_death_shows() -> None:
    made = guardian.Guardian()
    alive = [made.alive]
    assert made.pid in descendants.MANAGED
    os.kill(made.pid, signal.SIGKILL)
    assert is_gone(made.pid)
    assert [*alive, made.alive] == [True, False]
    assert made.close()
    assert made.pid not in descendants.MANAGED


def test_sweep_ends_what_a_dead_worker_left_and_spares_the_living() -> None:
    # What hides from the sweep, which knows no owner's tag, is left to the guardian; so here only marked ones.
    hides = "stdio;stdio,setsid,fork;stdio,setsid,fork,limit"
    with worker(hides) as (_, _, others), worker(hides) as (process, _, pids):
        process.kill()
        process.wait()
        leaders = pids[::2]
        assert all(map(is_gone, leaders))  # they end with their stdin
        guardian.sweep()  # machine-wide, and so are the guardians' of other tests: who was first does not matter
        assert all(map(is_gone, pids))
        assert all(map(runs, others))


def test_a_worker_killed_together_with_its_guardian_is_cleaned_up_after_by_another() -> None:
    with worker("stdio", "guardian") as (living, other, others):
        with worker(";".join(HIDING), "guardian") as (process, guard, pids):
            os.kill(guard, signal.SIGKILL)
            assert is_gone(guard)
            process.kill()
            assert [pid for pid in pids if not is_gone(pid)] == []
            assert all(map(runs, [other, *others]))
        living.kill()
        assert is_gone(other)


def test_a_process_that_forges_its_mark_is_known_by_its_tag() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    with marks.tagged(f"{ended.pid}.1.0123:s"):
        forged = {**os.environ, marks.MARK_VARIABLE: marks.make_mark("s")}  # of a worker that lives: this process
        left = subprocess.Popen(["sleep", "60"], env=forged, start_new_session=True)
    descendants.MANAGED.add(left.pid)
    try:
        guardian.sweep()
        assert left.wait(20) == -signal.SIGKILL
    finally:
        left.kill()
        left.wait()
        descendants.MANAGED.discard(left.pid)


def test_a_pid_that_is_used_again_is_another_worker() -> None:
    """The mark of a process that is gone and had this process's pid: its runner ends, who has the pid now does not."""
    predecessor = f"{os.getpid()}.{procfs.starttime(os.getpid()) - 1}.0123:s"
    mine = marks.make_mark("s")
    started = []
    try:
        for mark in (predecessor, mine):
            with marks.tagged(mark):
                started.append(subprocess.Popen(
                    ["sleep", "60"], env={**os.environ, marks.MARK_VARIABLE: mark}, start_new_session=True
                ))  # fmt: skip
        left, living = started
        guardian.sweep()
        assert left.wait(30) == -signal.SIGKILL
        assert living.poll() is None
    finally:
        for process in started:
            process.kill()
            process.wait()
