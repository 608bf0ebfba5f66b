"""Ends many processes at once, frozen and killed in an order that a tree which forks fast cannot outrun.

Owns that order, and signals that never hit a later process of the same pid. Does not own which processes these are
(tree.py, guardian.py). Standard library only.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator

from agentrq_worker.process import descendants, procfs

Find = Callable[[procfs.OnSight], list[procfs.Stat]]
"""Finds the processes to end, and calls its argument with each as soon as it has been seen to be one of them."""

_SEARCH_S = 0.05  # of searching in one round: the caller has other things to do meanwhile
_QUIET_ROUNDS = 5
"""Rounds in a row that find nothing before an ending is over: to a process that is not their parent, processes that
live for less than a search are easily not there."""


class KillSet:
    """Ends every process that ``find`` finds. ``ended`` holds (pid, starttime) of those that were sent SIGKILL."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._foreign = descendants.foreign_sessions()
        self._known: set[tuple[int, int]] = set()
        self._found_more = False
        self._frozen: list[procfs.Stat] = []
        self.ended: set[tuple[int, int]] = set()

    def round(self) -> bool:
        """Freeze what is found until a search shows nothing new, then kill it all; True when nothing was (left) there.

        Frozen processes start no others, so a tree that forks fast does not outrun the search. Does not wait: a killed
        process may still be found for some milliseconds, so call again, after a pause, until True.
        """
        began = time.monotonic()
        while True:
            self._found_more = False
            found = self._find(self._freeze)
            for process in found:
                self._freeze(process)
            if not self._found_more or time.monotonic() - began > _SEARCH_S:
                break
        alive = [process for process in found if process.alive]
        frozen, self._frozen = self._frozen, []  # what was seen may not be found again, and would stand still for ever
        for process in (*alive, *frozen):
            if send_signal(process, signal.SIGKILL):
                self.ended.add(process.ident)
        return not alive and not self._found_more

    def _freeze(self, process: procfs.Stat) -> None:
        # As soon as it is seen: one that starts its successor and exits is gone by the time a search is over.
        if process.ident not in self._known and process.session not in self._foreign:
            self._known.add(process.ident)
            self._found_more = True
            if process.alive and send_signal(process, signal.SIGSTOP):
                self._frozen.append(process)


def send_signal(process: procfs.Stat, number: int) -> bool:
    """Send signal ``number`` to exactly this process, never to a later one of the same pid; False when it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        handle = -1  # an old kernel, or no file descriptor left: the check below must do
    try:
        now = procfs.read_stat(process.pid)
        if now is None or now.ident != process.ident:
            return False
        if handle >= 0:
            signal.pidfd_send_signal(handle, number)
        else:
            os.kill(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if handle >= 0:
            os.close(handle)
    return True


def pauses(rounds: int) -> Iterator[float]:
    """The pauses between rounds of an ending, in seconds: short at first, 0.1 at most."""
    return (min(0.001 * 2**number, 0.1) for number in range(rounds))


def end_all(find: Find, rounds: int = 100) -> int:
    """End all that ``find`` finds, blocking (0.1 s a round at most); answers how many there were."""
    ending, quiet = KillSet(find), 0
    for pause in pauses(rounds):
        quiet = quiet + 1 if ending.round() else 0
        if quiet == _QUIET_ROUNDS:
            break
        time.sleep(pause)
    return len(ending.ended)
