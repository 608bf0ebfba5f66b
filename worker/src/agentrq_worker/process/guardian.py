"""Ends a worker's runners when the worker itself no longer can.

Owns the guardian process, one a worker, and the sweep for leftovers of workers long gone. Does not own the end of a
runner whose worker lives (runner_process.py).

The guardian waits for the end of a pipe whose other end only the worker holds, and for the worker's own end. Then it
ends every process that bears the worker's mark (marks.py), with all descendants and all in their sessions, until none
is found. It needs no list of runners: a mark names the worker by pid and start time, and is in every child from the
beginning. Meanwhile it sweeps now and then: other workers may have ended together with their guardians.
"""

import functools
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from agentrq_worker.process import descendants, kill, marks, prctl, procfs

# Isolated and without site-packages: starts fast, and nothing in the worker's surroundings can break it.
_BOOT = "import sys; sys.path.append(sys.argv.pop(1)); from agentrq_worker.process.guardian import main; main()"


SWEEP_S = 2.0
"""How often a guardian searches for leftovers of others, in seconds."""
_REST = 50
"""It rests at least so many times as long as a search took: the more processes a machine has, the rarer the search."""

Signs = dict[tuple[int, int], tuple[marks.Mark | None, int]]
"""Of processes: their marks, and the part of their tags that names the worker."""

_BLOCKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Guardian:
    """This worker's guardian process. Hold on to it: when it is closed, all runners of this worker are ended."""

    def __init__(self) -> None:
        """Start it. Raises OSError when no process can be started."""
        command = [sys.executable, "-I", "-S", "-B", "-c", _BOOT, str(Path(__file__).parents[2])]
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)  # inherited: blocked from its first moment
        try:
            self._popen = subprocess.Popen(
                [*command, str(os.getpid()), str(procfs.starttime(os.getpid()))],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env={},  # the worker's own has the Redis URL in it, and runners could read it in /proc
                start_new_session=True,  # a terminal's signals are for the worker
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        descendants.MANAGED.add(self._popen.pid)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs. Once dead it is replaced by a new `Guardian`, which loses nothing."""
        if self._popen.poll() is None:
            return True
        descendants.MANAGED.discard(self._popen.pid)
        return False

    def close(self, timeout: float = 5.0) -> bool:
        """Have it end what is left and exit; blocks up to ``timeout`` seconds (some 0.05 when nothing is left)."""
        assert self._popen.stdin
        self._popen.stdin.close()
        try:
            self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return not self.alive


def main() -> None:
    """The guardian process: arguments are the worker's pid and start time, stdin is the pipe."""
    worker = int(sys.argv[1]), int(sys.argv[2])
    prctl.deny_inspection()
    _wait_for_end(worker)
    end_worker(worker)


def _wait_for_end(worker: tuple[int, int]) -> None:
    poll = select.poll()
    poll.register(0, select.POLLIN)
    try:
        poll.register(os.pidfd_open(worker[0]), select.POLLIN)  # should a stranger have inherited the pipe
    except (AttributeError, OSError):
        pass
    rest, known = SWEEP_S, Signs()
    while True:
        events = poll.poll(rest * 1000)
        if any(descriptor != 0 or not os.read(0, 4096) for descriptor, _ in events):
            return
        if not events:
            began = time.monotonic()
            if _leftovers(known):
                sweep()
            rest = max(SWEEP_S, _REST * (time.monotonic() - began))


def end_worker(worker: tuple[int, int]) -> int:
    """End all that bear the mark of ``worker`` (pid, starttime); answers how many. Blocks, 60 s at most."""
    prefix, tag = f"{worker[0]}.{worker[1]}.", marks.worker_tag(worker)

    def is_own(process: procfs.Stat) -> bool:
        if process.starttime < worker[1]:
            return False
        return marks.read_tag(process.pid) >> 32 == tag or marks.read_mark(process.pid).startswith(prefix)

    def find(on_sight: procfs.OnSight) -> list[procfs.Stat]:
        own = set()

        def check(process: procfs.Stat) -> None:
            if is_own(process):
                own.add(process.ident)
                on_sight(process)

        return descendants.with_relatives(procfs.snapshot(check), lambda process: process.ident in own)

    return kill.end_all(find, rounds=600)


def sweep() -> int:
    """End what workers left behind that have certainly ended; answers how many processes. Blocks shortly."""
    return kill.end_all(lambda _: _leftovers())


def _leftovers(known: Signs | None = None) -> list[procfs.Stat]:
    """What is left of workers that have certainly ended.

    Known by their marks or tags and the owners' start times, never by names; only this user's processes, and only those
    of this PID namespace: to a host, the owner's pid in a container's mark is another process, or none. An owner that
    cannot be seen may live. ``known`` keeps the signs of processes between calls, so that they are read once.
    """
    here = procfs.pid_namespace()
    table = procfs.snapshot()
    # A worker may not have known its own start time: then its tag is made of a 0.
    idents = [
        (process.pid, started) for process in table.values() if process.alive for started in (process.starttime, 0)
    ]
    living = set(map(marks.worker_tag, idents))
    before = {} if known is None else known.copy()
    signs: Signs = {} if known is None else known
    signs.clear()

    @functools.cache
    def all_seen() -> bool:
        return procfs.sees_all(table)

    def is_leftover(process: procfs.Stat) -> bool:
        seen = before.get(process.ident)
        if seen is None:
            seen = marks.parse_mark(marks.read_mark(process.pid)), marks.read_tag(process.pid) >> 32
        mark, tag = signs[process.ident] = seen
        # Either sign is enough: the environment may have been cleaned or forged. The tag names its worker only among
        # those that are seen.
        unowned = mark is not None and procfs.is_gone(mark.worker)
        unowned = unowned or (tag != 0 and tag not in living and all_seen())
        return unowned and here != "" and procfs.pid_namespace(process.pid) == here

    return descendants.with_relatives(table, is_leftover)
