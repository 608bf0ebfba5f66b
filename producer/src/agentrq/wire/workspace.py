"""The start option ``workspace``: files that the worker makes for a session before its agent runs.

Owns the shape, and what can be refused without a machine: which hosts and directories a worker allows is its own
policy's matter, how a workspace is made the worker's.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

MOST_CHARACTERS: Final = 2000
_SCHEMES: Final = ("https", "http", "ssh", "git", "file")
_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#\s]*)([^\s\x00-\x1f\x7f]*)")
_SCP: Final = re.compile(r"(?:[A-Za-z0-9._][A-Za-z0-9._-]*@)?([A-Za-z0-9][A-Za-z0-9.-]*):(?![:/-])[^\s\x00-\x1f\x7f]+")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
_REF: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]{0,199}")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Workspace(msgspec.Struct, rename="camel", omit_defaults=True, forbid_unknown_fields=True, frozen=True):
    """Where a session's files come from: a git repository or a directory of the worker's machine, exactly one."""

    git: str | None = None
    """Address of a repository, as git takes it: ``https://…``, ``ssh://…``, ``user@host:path``. Never with a password:
    `credentials` names one of the worker's.
    """
    ref: str | None = None
    """Branch, tag or commit to begin with. Default: the repository's own branch."""
    depth: int | None = None
    """Commits of history to bring along. Default: all."""
    credentials: str | None = None
    """Name of the credentials in the worker's settings with which git reaches the repository."""
    path: str | None = None
    """Directory within the workspace in which the agent starts. Default: its top."""
    copy: str | None = None
    """Directory on the worker's machine that is copied."""

    def __post_init__(self) -> None:
        if (self.git is None) == (self.copy is None):
            raise ValueError("give either git, a repository's address, or copy, a directory")
        if self.git is None and not (self.ref is None and self.depth is None and self.credentials is None):
            raise ValueError("ref, depth and credentials belong to git")
        if self.git is not None:
            _check_address(self.git)
        if self.ref is not None and (not _REF.fullmatch(self.ref) or ".." in self.ref or self.ref.endswith(".lock")):
            raise ValueError(f"ref {self.ref[:80]!r} is not the name of a branch, a tag or a commit")
        if self.depth is not None and not 1 <= self.depth < 2**31:
            raise ValueError(f"depth: use a whole number from 1, not {self.depth}")
        if self.credentials is not None and not _NAME.fullmatch(self.credentials):
            raise ValueError(f"credentials {self.credentials[:80]!r} is not a name: letters, digits, _ and -")
        if self.path is not None and not _is_below(self.path):
            raise ValueError(f"path {self.path[:80]!r} is not a directory below the workspace")
        if self.copy is not None and (not self.copy.startswith("/") or _CONTROL.search(self.copy)):
            raise ValueError(f"copy {self.copy[:80]!r} is not an absolute path")

    @property
    def host(self) -> str | None:
        """The host of the repository, in lower case without user and port; None for one on the machine itself."""
        if self.git is None:
            return None
        if (found := _URL.fullmatch(self.git)) is not None:
            place = found[2].rpartition("@")[2]
            return None if found[1] == "file" else re.sub(r":\d*$", "", place).lower()
        found = _SCP.fullmatch(self.git)
        return None if found is None else found[1].lower()


def _check_address(address: str) -> None:
    if len(address) > MOST_CHARACTERS:
        raise ValueError(f"git: the address has {len(address)} characters, over {MOST_CHARACTERS}")
    if address.startswith("/") and not _CONTROL.search(address):
        return
    found = _URL.fullmatch(address)
    if found is None:
        if _SCP.fullmatch(address) is None:
            raise ValueError(f"git {address[:80]!r} is not a repository's address (https://…, ssh://…, user@host:path)")
        return
    scheme, place = found[1], found[2]
    if scheme not in _SCHEMES:
        raise ValueError(f"git: {scheme}:// is not one of {', '.join(_SCHEMES)}")
    user, at, host = place.rpartition("@")
    if ":" in user:
        raise ValueError("git: an address must not carry a password, which would stand in Redis: name credentials")
    if (host != "") if scheme == "file" else (not _HOST.fullmatch(host) or (at and not user)):
        raise ValueError(f"git: {host[:80]!r} is not a host")


def _is_below(path: str) -> bool:
    parts = path.split("/")
    return bool(path) and not _CONTROL.search(path) and ".." not in parts and "" not in parts and ".git" not in parts
