"""Reads the processes of this machine from Linux's /proc.

Owns what one process is, whether it has ended, and lists of processes. Does not own which processes belong to a runner
(descendants.py, marks.py). Without /proc nothing is found. Standard library only: the guardian imports it.
"""

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple


def _is_of_own_namespace() -> bool:
    try:
        return os.path.exists("/proc/self/stat") and os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


AVAILABLE = _is_of_own_namespace()
"""Whether there is a /proc, and it is that of this process's PID namespace."""
LISTS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")  # CONFIG_PROC_CHILDREN
"""Whether the kernel lists the children of a process."""
_HIDE_NOTHING = (b"hidepid=0", b"hidepid=off")


class Stat(NamedTuple):
    """One process as /proc/PID/stat tells it (proc_pid_stat(5)); ``starttime`` in clock ticks since boot."""

    pid: int
    ppid: int
    session: int
    starttime: int
    state: str
    threads: int

    @property
    def ident(self) -> tuple[int, int]:
        """(pid, starttime): names one process for ever, as a pid alone does not."""
        return self.pid, self.starttime

    @property
    def alive(self) -> bool:
        """Whether it is not a zombie. A main thread that ended before the others also says Z: threads are counted."""
        return self.state not in "ZX" or self.threads > 1


OnSight = Callable[[Stat], object]
"""Called with each process as soon as it has been read."""


def read_file(path: str) -> bytes:
    """The contents of a file below /proc; empty where its process has ended or is not ours to read."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall() or b""
    except OSError:
        return b""


def read_stat(pid: int) -> Stat | None:
    """The process ``pid``; None where there is none, or where it is hidden."""
    _, found, rest = read_file(f"/proc/{pid}/stat").rpartition(b")")  # the name before it may hold anything
    fields = rest.split()
    if not found or len(fields) < 20:
        return None
    return Stat(pid, int(fields[1]), int(fields[3]), int(fields[19]), fields[0].decode(), int(fields[17]))


def starttime(pid: int) -> int:
    """The start time of ``pid`` in clock ticks since boot; 0 where it is not known."""
    stat = read_stat(pid)
    return stat.starttime if stat else 0


def exists(pid: int) -> bool:
    """Whether there is a process ``pid``, seen in /proc or not; a zombie is one."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's; not a pid at all
        return True
    return True


def is_gone(ident: tuple[int, int]) -> bool:
    """Whether the process (pid, starttime) of this PID namespace has certainly ended.

    A process that cannot be seen may live: /proc can be mounted so that it hides processes (hidepid=, ProtectProc=),
    also those of the same user that have closed their memory to others. A start time of 0 is one that was not known.
    """
    pid, started = ident
    stat = read_stat(pid) if started else None
    if stat is not None:
        return stat.starttime != started or not stat.alive
    return AVAILABLE and not exists(pid)


def sees_all(table: Mapping[int, Stat]) -> bool:
    """Whether ``table``, a `snapshot` just taken, has every process of this PID namespace."""
    if not AVAILABLE:
        return False
    # The last mount at /proc is the one in use; its own options stand behind the dash (proc_pid_mountinfo(5)).
    mounts = [line.partition(b" - ") for line in read_file("/proc/self/mountinfo").splitlines()]
    options = [behind.split()[-1].split(b",") for before, _, behind in mounts if before.split()[4:5] == [b"/proc"]]
    if not options or any(option.startswith(b"hidepid=") and option not in _HIDE_NOTHING for option in options[-1]):
        return False
    newest = max((stat.starttime for stat in table.values()), default=0)
    missing = [pid for pid in _listed() if pid not in table]
    later = [stat.pid for pid in missing if (stat := read_stat(pid)) and stat.starttime >= newest]
    return not any(exists(pid) for pid in missing if pid not in later)


def _nothing(_: Stat) -> None:
    pass


def snapshot(on_sight: OnSight = _nothing) -> dict[int, Stat]:
    """Every process that can be seen. Costs some 15 microseconds a process of the machine."""
    table: dict[int, Stat] = {}
    for pid in sorted(_listed(), reverse=True):  # the newest first: they are the likeliest to be gone soon
        if stat := read_stat(pid):
            table[pid] = stat
            on_sight(stat)
    return table


def _listed() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()] if AVAILABLE else []


def children(pid: int) -> list[int]:
    """The children of ``pid``. The kernel may leave one out while its siblings are reaped: freeze, and read again."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return [int(child) for tid in threads for child in read_file(f"/proc/{pid}/task/{tid}/children").split()]


def is_ours(pid: int) -> bool:
    """Whether ``pid`` runs as this process's user."""
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.geteuid()
    except OSError:
        return False


def pid_namespace(pid: int | str = "self") -> str:
    """The PID namespace of a process; empty where it cannot be read."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""
