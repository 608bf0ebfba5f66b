"""Children of a runner that hide from its worker, and checks that none of them is left."""

import contextlib
import os
import select
import sys

import psutil

from tests.workers import alive

PYTHON = [sys.executable, "-I", "-S", "-c"]

# Starts a background child that hides as the arguments say, waits until it has done so, and prints its pid.
DAEMON = """
import os, resource, sys
hides = sys.argv[1].split(",")
r, w = os.pipe()
if os.fork() == 0:
    if "setsid" in hides:
        os.setsid()
    if "fork" not in hides or os.fork() == 0:
        os.write(w, str(os.getpid()).encode())
        if "limit" in hides:
            resource.setrlimit(resource.RLIMIT_RTTIME, (-1, -1))
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2) if "stdio" in hides else ():
            os.dup2(null, fd)
        os.execve("/bin/sleep", ["sleep", "1000"], {} if "env" in hides else os.environ)
    os._exit(0)
os.close(w)
if "fork" in hides:
    os.wait()
pid = b""
while piece := os.read(r, 20):  # until the child's exec closes its end
    pid += piece
print(pid.decode(), flush=True)
"""
THEN_READ = "\nsys.stdin.read()"
HIDING = [
    "stdio",
    "stdio,setsid,fork",
    "stdio,setsid,fork,env",  # known by the tag alone
    "stdio,setsid,fork,limit",  # by the mark alone
    "stdio,fork,limit,env",  # by the session alone
    "setsid,fork,env",
]


def is_gone(pid: int) -> bool:
    """Whether ``pid`` ends within 10 s (a zombie has ended)."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(10_000))
    finally:
        os.close(handle)


def runs(pid: int) -> bool:
    try:
        return alive(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def left_over() -> list[int]:
    """Children of this process that lead or share a session of their own: runners, their strays, zombies."""
    found = list[int]()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(ProcessLookupError):  # gone meanwhile
            if os.getsid(child.pid) != os.getsid(0):
                found.append(child.pid)
    return found
