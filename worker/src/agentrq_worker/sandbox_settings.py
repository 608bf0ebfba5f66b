"""Reads the table ``[providers.NAME.sandbox]``: what a provider's runner may reach.

Owns the shape and its checks; what a sandbox means on this machine is the package sandbox's matter.
"""

from __future__ import annotations

import os
import re
from typing import Literal

import msgspec


class Sandbox(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """``[providers.NAME.sandbox]`` (docs/how-to/sandbox-agents.md). Limits are those of setrlimit(2)."""

    kind: Literal["landlock", "none"] = "none"
    """`landlock`: the kernel enforces which files, and with `connect` which TCP ports, the runner may reach. `none`:
    the other measures only.
    """
    read: list[str] = []
    """Further paths that it may read and execute. Absolute."""
    write: list[str] = []
    """Further paths that it may write. Absolute."""
    connect: list[int] | None = None
    """The only TCP ports that it may connect to; needs `landlock`. Default: all."""
    home: Literal["session", "worker"] | None = None
    """`session`: HOME, XDG directories and TMPDIR of the session's own, mode 700; `worker`: the worker's. Default:
    `session` with `landlock`, and for built-in runners that keep nothing in it.
    """
    login: list[str] = []
    """Files that are copied from the worker's home into a new home of a session, as relative paths."""
    umask: str | None = None
    """Its umask, in octal digits."""
    memory: int | None = None
    """Bytes of data segment and private memory, per process."""
    open_files: int | None = None
    """Open files, per process."""
    processes: int | None = None
    """Processes of this user, all sessions together."""
    file_size: int | None = None
    """Bytes of the largest file that it may write."""
    cpu_s: int | None = None
    """Seconds of processor time, per process."""

    def __post_init__(self) -> None:
        for path in (*self.read, *self.write):
            if not os.path.isabs(path):
                raise ValueError(f"{path!r} is not an absolute path")
        if self.connect is not None and (self.kind != "landlock" or not all(0 < port < 65536 for port in self.connect)):
            raise ValueError('connect: needs kind = "landlock" and ports from 1 to 65535')
        for path in self.login:
            if os.path.isabs(path) or ".." in path.split("/") or not path:
                raise ValueError(f"login: {path!r} is not relative to the worker's home")
        if self.umask is not None and not re.fullmatch("[0-7]{3,4}", self.umask):
            raise ValueError(f'umask: {self.umask!r} is not octal, as "077"')
        for name in ("memory", "open_files", "processes", "file_size", "cpu_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 2**63:
                raise ValueError(f"{name}: Expected a number above 0, got {value}")
        if self.login and not self.own_home:
            raise ValueError('login: needs home = "session"')

    @property
    def own_home(self) -> bool | None:
        """Whether a session has a home of its own; None if the runner decides."""
        if self.home is None:
            return True if self.kind == "landlock" else None
        return self.home == "session"
