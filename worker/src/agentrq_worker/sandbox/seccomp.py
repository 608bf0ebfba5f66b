"""Filters, by seccomp(2), the ways to a TCP connection that bypass connect(2), which is all that landlock(7) sees.

Owns the numbers. The ways are data that opens its connection itself (TCP Fast Open), multipath TCP, which falls back to
the plain one, SMC likewise, and io_uring, whose system calls no filter sees. Programs are answered as by a kernel that
has none of these, so they do without. Runs in the process that becomes the runner; imports little, as landlock.py.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _EQUAL, _ANY_BIT, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06  # linux/bpf_common.h
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_X32: Final = 0x40000000  # system calls of x86-64 in another guise
_ARCHITECTURES: Final = {
    "x86_64": (0xC000003E, {"socket": 41, "sendto": 44, "sendmsg": 46, "sendmmsg": 307, "setsockopt": 54}),
    "aarch64": (0xC00000B7, {"socket": 198, "sendto": 206, "sendmsg": 211, "sendmmsg": 269, "setsockopt": 208}),
}
"""What the kernel calls each (AUDIT_ARCH_*), and its numbers."""
_IO_URING_SETUP: Final = 425  # the same on every architecture
_AF_SMC, _IPPROTO_MPTCP, _MSG_FASTOPEN, _IPPROTO_TCP, _TCP_ULP = 43, 262, 0x20000000, 6, 31
_RULES: Final = (
    ("socket", ((0, _EQUAL, _AF_SMC),), errno.EAFNOSUPPORT),
    ("socket", ((2, _EQUAL, _IPPROTO_MPTCP),), errno.EPROTONOSUPPORT),
    ("sendto", ((3, _ANY_BIT, _MSG_FASTOPEN),), errno.EOPNOTSUPP),
    ("sendmsg", ((2, _ANY_BIT, _MSG_FASTOPEN),), errno.EOPNOTSUPP),
    ("sendmmsg", ((3, _ANY_BIT, _MSG_FASTOPEN),), errno.EOPNOTSUPP),
    ("setsockopt", ((1, _EQUAL, _IPPROTO_TCP), (2, _EQUAL, _TCP_ULP)), errno.ENOPROTOOPT),  # turns TCP into SMC
)
"""A system call, what its arguments (by place) are when it is refused, and the error it gets."""


def known() -> bool:
    """Whether the filter can be made for this machine."""
    return os.uname().machine in _ARCHITECTURES


def connect_only_by_connect() -> None:
    """No TCP connection of this process and all its children comes about but by connect(2). Raises OSError.

    Needs `landlock.no_new_privs` before. What runs in another architecture's guise (32 bit) is killed.
    """
    if not known():
        raise OSError(f"no filter for {os.uname().machine}")
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in _program())
    held = ctypes.create_string_buffer(program, len(program))
    description = struct.pack("@HP", len(program) // 8, ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, description, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")


def _program() -> list[tuple[int, int, int, int]]:
    """The filter as (code, jump if true, jump if false, operand); offsets are those of ``struct seccomp_data``."""
    audit, numbers = _ARCHITECTURES[os.uname().machine]
    program = [
        (_LOAD, 0, 0, 4), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0), (_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
        (_EQUAL, 0, 1, _IO_URING_SETUP), (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
    ]  # fmt: skip
    for name, arguments, error in _RULES:
        rest = 2 * len(arguments) + 1
        program += [(_LOAD, 0, 0, 0), (_EQUAL, 0, rest, numbers[name])]
        for place, test, value in arguments:
            rest -= 2
            program += [(_LOAD, 0, 0, 16 + 8 * place), (test, 0, rest, value)]  # the lower half: both are little-endian
        program.append((_RETURN, 0, 0, _ERROR | error))
    return [*program, (_RETURN, 0, 0, _ALLOW)]
