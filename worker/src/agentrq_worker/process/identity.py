"""Which machine this process runs on, and its own pid and start time.

Owns both answers. Does not own the other processes of the machine (procfs.py).
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from agentrq_worker.process import procfs


class ProcessId(NamedTuple):
    """A process by its pid and its start time in clock ticks since boot, as proc_pid_stat(5) has it."""

    pid: int
    starttime: int


def own_process() -> ProcessId | None:
    """This process; None where its start time cannot be read."""
    starttime = procfs.starttime(os.getpid())
    return ProcessId(os.getpid(), starttime) if starttime else None


def machine_id() -> str | None:
    """The kernel's boot with this process's pid and time namespaces, hashed; None where one of them cannot be read.

    Processes that share it see each other by the same pids and start times (namespaces(7), time_namespaces(7)).
    """
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # /proc belongs to another pid namespace
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        pids = os.readlink("/proc/self/ns/pid")
    except (OSError, UnicodeError):
        return None
    try:
        times = os.readlink("/proc/self/ns/time")
    except OSError:  # a kernel before 5.6 has none
        times = ""
    return hashlib.sha256(f"{boot}\n{pids}\n{times}".encode()).hexdigest()[:16]
