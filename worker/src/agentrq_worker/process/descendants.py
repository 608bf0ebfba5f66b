"""Finds the processes that belong to a runner.

A runner's processes are known by four signs, of which one is enough: descent from the runner's leader; a session shared
with a known one; the mark in the environment; the mark's tag in a resource limit (marks.py). Owns descent, sessions and
the orphans that the worker, as a sub-reaper, is given. Does not own how they are ended (kill.py). Without /proc nothing
is found, and callers are left with the process group. Standard library only.
"""

import os
from collections.abc import Callable, Iterable, Mapping

from agentrq_worker.process import prctl, procfs
from agentrq_worker.process.procfs import OnSight, Stat

MANAGED: set[int] = set()
"""Children of this process in sessions of their own that something here waits for; `reap_orphans` leaves them alone."""
_MANY = 32
_ROUNDS = 10


def _nothing(_: Stat) -> None:
    pass


def candidates(leader: int, on_sight: OnSight = _nothing) -> dict[int, Stat]:
    """Every process that can be of the runner ``leader``: it, its descendants, and this process's orphans with theirs.

    A sub-reaper's orphans are its own children, so this reads a few files and not the whole of /proc. Where this
    process is not a sub-reaper, or the kernel lists no children, it is a full `procfs.snapshot`.
    """
    if not (prctl.is_subreaper() and procfs.LISTS_CHILDREN):
        return procfs.snapshot(on_sight)
    table: dict[int, Stat] = {}
    waiting = [leader]
    for _ in range(_ROUNDS):
        while waiting:
            pid = waiting.pop()  # the newest first: they are the likeliest to be gone soon
            if pid not in table and (stat := procfs.read_stat(pid)):
                table[pid] = stat
                on_sight(stat)
                waiting += procfs.children(pid) if stat.alive else ()
        # Only now the orphans, and again after theirs: whose parent ended during the walk has moved to this list.
        waiting = [pid for pid in _orphans() if pid not in table]
        if not waiting:
            break
    return table


def _orphans() -> list[int]:
    orphans = procfs.children(os.getpid())
    if len(orphans) > len(MANAGED) + _MANY:  # a tree that forks fast leaves thousands of dead, each slow to read
        reap_orphans()
        orphans = procfs.children(os.getpid())
    return [pid for pid in orphans if pid not in MANAGED]


def foreign_sessions() -> set[int]:
    """Sessions that hold no runner's process: the kernel threads' and this process's own.

    A runner begins a session of its own, and none can join another.
    """
    return {0, os.getsid(0)}


def with_relatives(table: Mapping[int, Stat], is_own: Callable[[Stat], bool]) -> list[Stat]:
    """The processes of ``table`` that ``is_own`` names, their descendants, and all in the sessions of these.

    Zombies are among them: one that was not there before shows that something went on between two readings.
    Never anything in one of the `foreign_sessions`.
    """
    by_parent: dict[int, list[Stat]] = {}
    by_session: dict[int, list[Stat]] = {}
    for stat in table.values():
        by_parent.setdefault(stat.ppid, []).append(stat)
        by_session.setdefault(stat.session, []).append(stat)
    foreign = foreign_sessions()
    found: dict[int, Stat] = {}
    for candidate in table.values():
        if candidate.pid in found or candidate.session in foreign or not is_own(candidate):
            continue
        waiting = [candidate]
        while waiting:
            stat = waiting.pop()
            if stat.pid not in found and stat.session not in foreign:
                found[stat.pid] = stat
                waiting += by_parent.get(stat.pid, ())
                waiting += by_session[stat.session]
    return list(found.values())


def reap_orphans(keep: Iterable[int] = ()) -> int:
    """Reap the dead among the orphans that a sub-reaper was given; answers how many. To be called every now and then.

    Left alone: `MANAGED`, ``keep``, and all children in this process's own session, which it started itself: a runner's
    orphan is in another.
    """
    try:
        if not procfs.AVAILABLE or os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return 0
    except ChildProcessError:
        return 0
    own, reaped, kept = os.getsid(0), 0, MANAGED.union(keep)
    for pid in _children():
        try:
            # Two system calls and nothing read from /proc: a tree that forks fast leaves thousands of dead.
            if pid not in kept and os.getsid(pid) != own:
                reaped += os.waitpid(pid, os.WNOHANG)[0] == pid
        except (ChildProcessError, ProcessLookupError):
            pass  # it has been reaped elsewhere
    return reaped


def _children() -> list[int]:
    if procfs.LISTS_CHILDREN:
        return procfs.children(os.getpid())
    return [stat.pid for stat in procfs.snapshot().values() if stat.ppid == os.getpid()]
