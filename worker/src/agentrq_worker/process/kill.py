"""The end of many processes at once. Owns: freezing and killing in an order that a tree which forks fast cannot outrun.
Does NOT own: which processes these are (tree.py, guardian.py), nor how one is looked at or signalled (procfs.py).
Standard library only.
"""

import signal
import time
from collections.abc import Callable, Iterator

from agentrq_worker.process import procfs

Find = Callable[[procfs.OnSight], list[procfs.Stat]]
"""Looks for the processes to end, and calls its argument with each as soon as it has seen that it is one of them."""

_LOOKING_S = 0.05  # of looking in one round: whoever calls has other things to do meanwhile


class KillSet:
    """Ends every process that ``find`` finds. ``ended`` holds (pid, starttime) of those that were sent SIGKILL."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._foreign = procfs.foreign()
        self._known: set[tuple[int, int]] = set()
        self._news = False
        self._frozen: list[procfs.Stat] = []
        self.ended: set[tuple[int, int]] = set()

    def round(self) -> bool:
        """Freeze what is found until a look shows nothing new, then kill it all; True when there was nothing (left).

        Frozen processes start no others, so a tree that forks fast does not outrun the search. Does not wait: a killed
        process may still be found for some milliseconds, so call again, after a pause, until True.
        """
        began = time.monotonic()
        while True:
            self._news = False
            found = self._find(self._freeze)
            for process in found:
                self._freeze(process)
            if not self._news or time.monotonic() - began > _LOOKING_S:
                break
        alive = [process for process in found if process.alive]
        frozen, self._frozen = self._frozen, []  # who was seen may not be found again, and would stand still for ever
        for process in (*alive, *frozen):
            if procfs.send(process, signal.SIGKILL):
                self.ended.add(process.ident)
        return not alive and not self._news

    def _freeze(self, process: procfs.Stat) -> None:
        # On sight: one that starts its successor and exits is gone by the time a look is over.
        if process.ident not in self._known and process.session not in self._foreign:
            self._known.add(process.ident)
            self._news = True
            if process.alive and procfs.send(process, signal.SIGSTOP):
                self._frozen.append(process)


def pauses(rounds: int) -> Iterator[float]:
    """The pauses between rounds of an ending, in seconds: short at first, 0.1 at most."""
    return (min(0.001 * 2**number, 0.1) for number in range(rounds))


def end_all(find: Find, rounds: int = 100) -> int:
    """End all that ``find`` finds, blocking (0.1 s a round at most); returns how many. Five empty looks end it.

    Five, because to whoever is not their parent, processes that live for less than a look are easily not there.
    """
    ending, quiet = KillSet(find), 0
    for pause in pauses(rounds):
        quiet = quiet + 1 if ending.round() else 0
        if quiet == 5:
            break
        time.sleep(pause)
    return len(ending.ended)
