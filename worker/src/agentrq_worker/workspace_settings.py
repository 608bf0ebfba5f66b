"""Reads the table ``[workspaces]``: how the worker makes and keeps the files of sessions that ask for a workspace.

Owns the shapes and their checks. What a start may ask for is `[policy]`'s matter (start_policy.py), how git is run that
of the package workspace.
"""

from __future__ import annotations

import os
import re
from typing import Literal

import msgspec


class GitCredentials(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """``[workspaces.credentials.NAME]``: what git says to some hosts for starts that name it."""

    hosts: list[str]
    """Hosts that may see these credentials, by their exact names. No other host is told them."""
    username: str = "x-access-token"
    """User name over HTTP. The default is GitHub's for tokens; GitLab takes any."""
    password_env: str | None = None
    """Name of the variable of the worker that holds the password or token over HTTP."""
    ssh_key: str | None = None
    """Path of a private key for SSH, absolute."""

    def __post_init__(self) -> None:
        if not self.hosts:
            raise ValueError("hosts: name the hosts that may see these credentials")
        if (self.password_env is None) == (self.ssh_key is None):
            raise ValueError("give either password_env, the name of a variable, or ssh_key, a path")
        if self.ssh_key is not None and not os.path.isabs(self.ssh_key):
            raise ValueError(f"ssh_key: {self.ssh_key!r} is not an absolute path")
        if any(re.search(r"[\x00-\x1f\x7f]", text) for text in (self.username, *self.hosts)):
            raise ValueError("a text has a control character")


class Workspaces(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """``[workspaces]``: the files of sessions that ask for a workspace."""

    timeout_s: float = 600.0
    """Seconds that making a workspace may take, until the agent starts."""
    max_bytes: int = 10 << 30
    """Bytes that a repository's history, or a workspace's files, may have."""
    checkpoints: Literal["machine", "origin"] = "machine"
    """Where checkpoints are kept: on the worker's `machine`, or pushed to the repository that the workspace is of too
    (`origin`), from where another machine goes on with them.
    """
    checkpoint_s: float | None = None
    """Seconds between checkpoints within a turn. Default: none is made before the turn's end."""
    checkpoint_timeout_s: float = 120.0
    """Seconds that one checkpoint may take, its push included."""
    max_file: int = 50 << 20
    """Bytes of the largest file that a checkpoint holds."""
    credentials: dict[str, GitCredentials] = {}
    """Tables `[workspaces.credentials.NAME]`: what git says to which hosts."""

    def __post_init__(self) -> None:
        for name in ("timeout_s", "max_bytes", "checkpoint_s", "checkpoint_timeout_s", "max_file"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 2**53:
                raise ValueError(f"{name}: Expected a number above 0, got {value}")
