"""Ends the process tree of one runner: its leader and all that it started, however that hides.

Owns which processes belong to the tree. The leader stays an unreaped zombie until its tree has been ended, so its pid,
which is also its group's and session's number, cannot meanwhile become another's. Does not own the leader's exit
(runner_process.py), nor what is left by workers that have ended (guardian.py).
"""

import asyncio
import logging
import os
import signal
from collections.abc import Mapping

from agentrq_worker.process import descendants, marks, procfs
from agentrq_worker.process.kill import KillSet, pauses

log = logging.getLogger(__name__)

_ROUNDS = 60  # of ending a tree: some 5 s


class Tree:
    """The processes of one runner, whose leader has just been spawned with a mark (`marks.make_mark`)."""

    def __init__(self, leader: int, mark: str) -> None:
        self.reaped = False
        """The leader's number may be another's from now on: nothing is signalled any more."""
        self._leader = leader
        self._starttime = 0  # not known yet
        self._mark = mark
        self._tag = marks.tag_of(mark)
        self._seen: set[tuple[int, int]] = set()
        self._ending = KillSet(self._find)

    @property
    def others_ended(self) -> int:
        """How many processes besides the leader were killed here."""
        return sum(pid != self._leader for pid, _ in self._ending.ended)

    def signal_group(self, number: int) -> None:
        """Send a signal to the leader's process group, while its number is surely its own."""
        if not self.reaped:
            try:
                os.killpg(self._leader, number)
            except (ProcessLookupError, PermissionError):
                pass  # nobody left in it

    def kill(self) -> bool:
        """One round of `end`, without waiting; True when nothing was left. For callers that cannot await."""
        if self.reaped:
            return True
        nothing_left = self._ending.round()
        if not procfs.AVAILABLE:
            self.signal_group(signal.SIGKILL)
        return nothing_left

    async def end(self) -> None:
        """Kill what is left, the leader included. Bounded: after some 5 s what cannot be killed is logged, given up."""
        for pause in pauses(_ROUNDS):
            if self.kill():
                return
            await asyncio.sleep(pause)
        log.error("could not end %s", [process.pid for process in self.members()])

    def members(self) -> list[procfs.Stat]:
        """Find them; what was seen once is known when its parents have ended."""
        return self._of(descendants.candidates(self._leader))

    def _find(self, on_sight: procfs.OnSight) -> list[procfs.Stat]:
        def check(process: procfs.Stat) -> None:
            if process.alive and self._is_own(process):
                self._seen.add(process.ident)
                on_sight(process)

        return self._of(descendants.candidates(self._leader, check))

    def _of(self, table: Mapping[int, procfs.Stat]) -> list[procfs.Stat]:
        if not self._starttime and (leader := table.get(self._leader)):
            # Not before it is needed: of a process that is just beginning, reading it waits.
            self._starttime = leader.starttime
        members = descendants.with_relatives(table, self._is_own)
        self._seen.update(process.ident for process in members)
        if len(members) > 1:
            descendants.reap_orphans()  # lest a tree that forks fast makes the next search slower
        return members

    def _is_own(self, process: procfs.Stat) -> bool:
        # Unreaped as the leader is, its number is nobody else's, neither as a pid nor as a session.
        if self._leader in (process.pid, process.session) or process.ident in self._seen:
            return True
        if process.starttime < self._starttime or process.pid in descendants.MANAGED:
            return False
        return marks.read_tag(process.pid) == self._tag or marks.read_mark(process.pid) == self._mark
