"""Who is whose among the processes of this machine. Owns: /proc, marks, signalling without hitting a re-used pid, the
sub-reaper. Does NOT own: a runner's life (runner_process.py) or the worker's end (guardian.py). Standard library only.

A runner's processes are known by four things, of which one is enough: descent from the runner's leader; a session
shared with a known one; the variable AGENTRQ_RUNNER_MARK; and the same mark as a number, its *tag*, in the soft limit
RLIMIT_RTTIME, which every child inherits, ``env -i`` included, and which limits only real-time threads.
Without /proc all of these find nothing, and callers are left with the process group.
"""

import functools
import os
import resource
import secrets
import signal
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

MARK_VARIABLE = "AGENTRQ_RUNNER_MARK"


def _is_ours_to_read() -> bool:
    try:
        return os.path.exists("/proc/self/stat") and os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


AVAILABLE = _is_ours_to_read()
"""Whether there is a Linux /proc of this process's own PID namespace."""

MANAGED: set[int] = set()
"""Children of this process in sessions of their own that somebody here waits for; `reap_strays` leaves them alone."""

_LISTS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")  # CONFIG_PROC_CHILDREN
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36  # linux/prctl.h
_MANY = 32
_HIDE_NOTHING = (b"hidepid=0", b"hidepid=off")
_TAGGED = 1 << 60  # microseconds: far above any real limit
_subreaper = False


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
        """Not a zombie. A main thread that ended before the others also says Z, so the threads are counted."""
        return self.state not in "ZX" or self.threads > 1


class Mark(NamedTuple):
    """What a mark says: the worker's pid and start time, a random token (one a runner), the session id."""

    worker: tuple[int, int]
    token: str
    session_id: str


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall() or b""
    except OSError:  # gone meanwhile, or not ours to read
        return b""


def read_stat(pid: int) -> Stat | None:
    """The process ``pid``, or None when there is none."""
    _, found, rest = _read(f"/proc/{pid}/stat").rpartition(b")")  # the name before it may hold anything
    fields = rest.split()
    if not found or len(fields) < 20:
        return None
    return Stat(pid, int(fields[1]), int(fields[3]), int(fields[19]), fields[0].decode(), int(fields[17]))


def is_gone(ident: tuple[int, int]) -> bool:
    """Whether the process (pid, starttime) of this PID namespace has certainly ended.

    One that cannot be seen may live: /proc can be mounted so that it hides processes (hidepid=, ProtectProc=), also
    those of the same user that have closed their memory to others.
    """
    stat = read_stat(ident[0])
    if stat is not None:
        return stat.ident != ident or not stat.alive
    return AVAILABLE and not exists(ident[0])


def exists(pid: int) -> bool:
    """Whether there is a process ``pid``, seen in /proc or not; a zombie is one."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's; not a pid at all
        return True
    return True


def sees_all(table: Mapping[int, Stat]) -> bool:
    """Whether ``table``, a `snapshot` just taken, has every process of this PID namespace."""
    if not AVAILABLE:
        return False
    # The last mount at /proc is the one in use; its own options stand behind the dash (proc_pid_mountinfo(5)).
    mounts = [line.partition(b" - ") for line in _read("/proc/self/mountinfo").splitlines()]
    options = [behind.split()[-1].split(b",") for before, _, behind in mounts if before.split()[4:5] == [b"/proc"]]
    if not options or any(option.startswith(b"hidepid=") and option not in _HIDE_NOTHING for option in options[-1]):
        return False
    listed = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    return not any(read_stat(pid) is None and exists(pid) for pid in listed - table.keys())


def starttime(pid: int) -> int:
    """The start time of ``pid`` in clock ticks since boot; 0 when unknown."""
    stat = read_stat(pid)
    return stat.starttime if stat else 0


OnSight = Callable[[Stat], object]
"""Called by a look with each process as soon as it is seen."""


def _nothing(_: Stat) -> None:
    pass


def snapshot(on_sight: OnSight = _nothing) -> dict[int, Stat]:
    """Every process. Costs some 15 microseconds a process of the machine."""
    table: dict[int, Stat] = {}
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()] if AVAILABLE else []
    for pid in sorted(pids, reverse=True):  # the newest first: they are the likeliest to be gone soon
        if stat := read_stat(pid):
            table[pid] = stat
            on_sight(stat)
    return table


def children(pid: int) -> list[int]:
    """The children of ``pid``. The kernel may leave one out while its siblings are reaped: freeze, and look again."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return [int(child) for tid in threads for child in _read(f"/proc/{pid}/task/{tid}/children").split()]


def family(leader: int, on_sight: OnSight = _nothing) -> dict[int, Stat]:
    """``leader``, its descendants, and all strays of this process with theirs: every process that can be the leader's.

    A sub-reaper's strays are its own children, so this reads a few files and not the whole of /proc. Where this process
    is no sub-reaper, or the kernel lists no children, it is a full `snapshot`.
    """
    if not (_subreaper and _LISTS_CHILDREN):
        return snapshot(on_sight)
    table: dict[int, Stat] = {}
    waiting = [leader]
    for _ in range(10):
        while waiting:
            pid = waiting.pop()  # the newest first, as above
            if pid not in table and (stat := read_stat(pid)):
                table[pid] = stat
                on_sight(stat)
                waiting += children(pid) if stat.alive else ()
        # Only now the strays, and again after theirs: whose parent ended during the walk has moved to this list.
        waiting = [pid for pid in _strays() if pid not in table]
        if not waiting:
            break
    return table


def _strays() -> list[int]:
    strays = children(os.getpid())
    if len(strays) > len(MANAGED) + _MANY:  # a tree that forks fast leaves thousands of dead, each slow to look at
        reap_strays()
        strays = children(os.getpid())
    return [pid for pid in strays if pid not in MANAGED]


def foreign() -> set[int]:
    """Sessions that hold no runner's process: the kernel threads' and this process's own.

    A runner begins a session of its own, and none can join another.
    """
    return {0, os.getsid(0)}


def kin(table: Mapping[int, Stat], is_own: Callable[[Stat], bool]) -> list[Stat]:
    """The processes of ``table`` that ``is_own`` names, their descendants, and all in the sessions of these.

    Zombies are among them: one that was not there before shows that something went on between two looks.
    Never anything in a `foreign` session.
    """
    by_parent: dict[int, list[Stat]] = {}
    by_session: dict[int, list[Stat]] = {}
    for stat in table.values():
        by_parent.setdefault(stat.ppid, []).append(stat)
        by_session.setdefault(stat.session, []).append(stat)
    others = foreign()
    found: dict[int, Stat] = {}
    for candidate in table.values():
        if candidate.pid in found or candidate.session in others or not is_own(candidate):
            continue
        waiting = [candidate]
        while waiting:
            stat = waiting.pop()
            if stat.pid not in found and stat.session not in others:
                found[stat.pid] = stat
                waiting += by_parent.get(stat.pid, ())
                waiting += by_session[stat.session]
    return list(found.values())


def send(process: Stat, number: int) -> bool:
    """Send signal ``number`` to exactly this process, never to a later one of the same pid; False when it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        handle = -1  # an old kernel, or no file descriptor left: the check below must do
    try:
        now = read_stat(process.pid)
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


@functools.cache
def _identity(pid: int) -> str:
    return f"{pid}.{starttime(pid)}"


def make_mark(session_id: str) -> str:
    """A new mark: ``<worker pid>.<worker starttime>.<token>:<session id>``, the worker being this process."""
    return f"{_identity(os.getpid())}.{secrets.token_hex(6)}:{session_id}"


def parse_mark(mark: str) -> Mark | None:
    """What ``mark`` says; None when it is no mark."""
    identity, colon, session_id = mark.partition(":")
    parts = identity.split(".")
    if not colon or len(parts) != 3 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return None
    return Mark((int(parts[0]), int(parts[1])), parts[2], session_id)


def worker_tag(worker: tuple[int, int]) -> int:
    """The part of a tag, shifted down by 32, that all runners of the worker (pid, starttime) share."""
    return (_TAGGED >> 32) | (zlib.crc32(f"{worker[0]}.{worker[1]}".encode()) >> 4)


def tag_of(mark: str) -> int:
    """``mark`` as a number for RLIMIT_RTTIME; 0 when it is no mark."""
    parsed = parse_mark(mark)
    return worker_tag(parsed.worker) << 32 | zlib.crc32(parsed.token.encode()) if parsed else 0


@contextmanager
def tagged(mark: str) -> Iterator[None]:
    """Children started meanwhile bear the tag of ``mark``: set here and not on the child, which might fork first."""
    limit = getattr(resource, "RLIMIT_RTTIME", None)
    before = resource.getrlimit(limit) if limit is not None else (0, 0)
    try:
        if limit is not None:
            resource.setrlimit(limit, (tag_of(mark) or before[0], before[1]))
    except (ValueError, OSError):
        limit = None  # a lower hard limit was set for us: the other three signs must do
    try:
        yield
    finally:
        if limit is not None:
            resource.setrlimit(limit, before)


def read_mark(pid: int) -> str:
    """The mark in the environment of ``pid``; "" when it has none, or belongs to another user."""
    for variable in _read(f"/proc/{pid}/environ").split(b"\0") if is_ours(pid) else ():
        if variable.startswith(MARK_VARIABLE.encode() + b"="):
            return variable.partition(b"=")[2].decode(errors="replace")
    return ""


def read_tag(pid: int) -> int:
    """The tag of ``pid``; 0 when it has none, or belongs to another user."""
    _, _, rest = _read(f"/proc/{pid}/limits").partition(b"Max realtime timeout")
    value = rest.split(maxsplit=1)[:1]
    return int(value[0]) if value and value[0].isdigit() and int(value[0]) & _TAGGED and is_ours(pid) else 0


def is_ours(pid: int) -> bool:
    """Whether ``pid`` runs as this process's user."""
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.geteuid()
    except OSError:
        return False


def become_subreaper() -> bool:
    """Make this process the new parent of its descendants' orphans; called once by a worker. False where impossible."""
    global _subreaper
    _subreaper = _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    return _subreaper


def keep_to_itself() -> bool:
    """Close this process's memory and environment to others of its user, a root's capabilities apart: no ptrace(2), no
    /proc/PID/environ, no core file. What it starts is as open as ever. False where impossible.
    """
    return _prctl(_PR_SET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> bool:
    if not AVAILABLE:
        return False
    import ctypes  # noqa: PLC0415  (most that is imported with this module needs none of it)

    return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)


def reap_strays(keep: Iterable[int] = ()) -> int:
    """Reap the dead among the strays a sub-reaper was given; returns how many. For every now and then.

    Left alone: `MANAGED`, ``keep``, and all children in this process's own session, which it started itself: a runner's
    stray is in another.
    """
    try:
        if not AVAILABLE or os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return 0
    except ChildProcessError:
        return 0
    own, reaped, kept = os.getsid(0), 0, MANAGED.union(keep)
    strays = children(os.getpid()) if _LISTS_CHILDREN else [s.pid for s in snapshot().values() if s.ppid == os.getpid()]
    for pid in strays:
        try:
            # Two system calls and no look at /proc: a tree that forks fast leaves thousands of dead.
            if pid not in kept and os.getsid(pid) != own:
                reaped += os.waitpid(pid, os.WNOHANG)[0] == pid
        except (ChildProcessError, ProcessLookupError):
            pass  # somebody was faster
    return reaped
