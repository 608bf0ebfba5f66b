"""Changes what this process is to others, by prctl(2): the two changes that a worker makes. Standard library only."""

import sys

_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36  # linux/prctl.h
_is_subreaper = False


def become_subreaper() -> bool:
    """Make this process the new parent of its descendants' orphans; called once by a worker. False where impossible."""
    global _is_subreaper
    _is_subreaper = _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    return _is_subreaper


def is_subreaper() -> bool:
    """Whether the orphans among this process's descendants become its children."""
    return _is_subreaper


def deny_inspection() -> bool:
    """Close this process's memory and environment to others of its user, a root's capabilities apart: no ptrace(2), no
    /proc/PID/environ, no core file. What it starts is as open as ever. False where impossible.
    """
    return _prctl(_PR_SET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    import ctypes  # noqa: PLC0415  (most that is imported with this module needs none of it)

    return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
