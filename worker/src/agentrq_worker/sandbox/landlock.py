"""Calls Linux's landlock(7), and drops privileges and capabilities, by plain system calls.

Owns the numbers and the rights. Does not own what is to be allowed (plan.py). Runs in the worker (`version`) and in the
process that becomes the runner (`restrict`); imports nothing of agentrq.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys

TYPE_CHECKING = False  # without typing: this is imported in every confined spawn
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

NEEDED: Final = 3
"""The oldest version taken (Linux 6.2): before it, files outside could still be truncated."""
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture, include/uapi/asm-generic
_RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 2
_CONNECT_TCP = 2
NEEDED_FOR_TCP: Final = 4
"""The version (Linux 6.7) that can hold a process to TCP ports."""
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL_DEV = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_SCOPES: Final = 0b11  # abstract unix sockets, signals: not beyond the sandbox
SCOPES_SINCE: Final = 6
"""The version (Linux 6.12) whose sandbox also ends signals and abstract sockets at its edge."""
_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 38, 24
_CAPABILITIES_V3: Final = 0x20080522


def version() -> int:
    """The kernel's landlock version; 0 where there is none or it is switched off."""
    if sys.platform != "linux":
        return 0
    found: int = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    return max(found, 0)


def no_new_privs() -> None:
    """Set-user-id programs give this process and its children nothing any more. Raises OSError."""
    if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise _error("no_new_privs")


def no_capabilities() -> None:
    """Take away every capability, for good: a root without them is a user like others. Raises OSError.

    Landlock alone does not hold a root: with CAP_PERFMON it reads other processes' memory, environment included.
    """
    libc = _libc()
    for capability in range(64):
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            if number == errno.EINVAL:  # one more than this kernel has
                break
            if number != errno.EPERM or os.geteuid() == 0:  # others have none that an exec would give back
                raise _error("PR_CAPBSET_DROP")
    header = struct.pack("=Ii", _CAPABILITIES_V3, 0)
    if libc.capset(header, bytes(24)) != 0:
        raise _error("capset")


def restrict(read: Iterable[int], write: Iterable[int], connect: Iterable[int] | None = None) -> None:
    """Confine this process and all its children to the files beneath these descriptors. Raises OSError.

    ``read``: read and execute; ``write``: everything. ``connect``: the TCP ports that may be connected to; None
    for all. Needs `no_new_privs` before, or root.
    """
    found = version()
    if found < NEEDED:
        raise OSError(f"landlock version {found}, {NEEDED} is needed")
    handled = (1 << (16 if found >= 5 else 15)) - 1
    if connect is not None and found < NEEDED_FOR_TCP:
        raise OSError(f"landlock version {found}, {NEEDED_FOR_TCP} is needed for TCP ports")
    network = 0 if connect is None else _CONNECT_TCP
    fields = [handled, network, _SCOPES] if found >= SCOPES_SINCE else [handled, network][: 2 if network else 1]
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    libc = _libc()
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        raise _error("landlock_create_ruleset")
    try:
        for descriptors, rights in ((read, _READ), (write, handled)):
            for descriptor in descriptors:
                directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
                allowed = rights & handled & (handled if directory else _OF_FILES)
                rule = struct.pack("=Qi", allowed, descriptor)
                if libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0) != 0:
                    raise _error("landlock_add_rule")
        for port in connect or ():
            if libc.syscall(_ADD_RULE, ruleset, _RULE_NET_PORT, struct.pack("=QQ", _CONNECT_TCP, port), 0) != 0:
                raise _error(f"landlock_add_rule (port {port})")
        if libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
            raise _error("landlock_restrict_self")
    finally:
        os.close(ruleset)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
