"""A bare copy of one repository on this machine, which all workspaces of it are made from.

Owns its place, its refreshing (one process at a time) and the lookup of what a start's ``ref`` means. Holds the
repository's own branches and tags only. Nothing is ever pruned from it: checkpoints borrow its objects.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, NamedTuple

from agentrq.wire.workspace import Workspace
from agentrq_worker.workspace.git import Access, Git, GitFailed

_LOCK_POLL_S: Final = 0.1
_REFS: Final = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")


class Commit(NamedTuple):
    """Where a workspace begins; ``branch`` None: at no branch."""

    id: str
    branch: str | None


class RefNotFound(Exception):
    """The repository has no such branch, tag or commit."""


class Mirror:
    """The mirror of one repository, under the directory ``mirrors``."""

    def __init__(self, mirrors: Path, source: Workspace, access: Access) -> None:
        assert source.git is not None
        self._address = source.git
        self._access = access
        # Who may not read a repository must not get it from another's mirror: one mirror for each set of credentials.
        key = f"{source.git}\0{source.credentials or ''}"
        self.path = mirrors / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.git"

    async def refresh(self, git: Git, ref: str | None) -> Commit:
        """Bring it up to date; the commit that ``ref`` means now. Raises `GitFailed`, `RefNotFound`, TimeoutError."""
        async with _locked(self.path.with_suffix(".lock")):
            if not (self.path / "HEAD").exists():
                await git.run("init", "--quiet", "--bare", str(self.path), directory=self.path.parent)
            told = await git.run(
                "ls-remote", "--symref", "--", self._address, "HEAD", directory=self.path, access=self._access
            )
            await git.run(
                "fetch", "--quiet", "--no-write-fetch-head", "--prune", "--", self._address, *_REFS,
                directory=self.path, access=self._access,
            )  # fmt: skip
            return await self._find(git, ref, told)

    async def _find(self, git: Git, ref: str | None, told: bytes) -> Commit:
        if ref is None:
            branch = _default_branch(told)
            if branch is None:
                raise RefNotFound("the repository is empty")
            ref = branch
        for full, branch in ((f"refs/heads/{ref}", ref), (f"refs/tags/{ref}", None), (ref, None)):
            if (found := await self._commit(git, full)) is not None:
                return Commit(found, branch)
        with contextlib.suppress(GitFailed):  # a commit that no branch has, a pull request's ref
            kept = f"refs/asked/{hashlib.sha256(ref.encode()).hexdigest()[:32]}"
            await git.run(
                "fetch", "--quiet", "--no-write-fetch-head", "--", self._address, f"+{ref}:{kept}",
                directory=self.path, access=self._access,
            )  # fmt: skip
            if (found := await self._commit(git, kept)) is not None:
                return Commit(found, None)
        raise RefNotFound(f"it has no branch, tag or commit {ref!r}")

    async def _commit(self, git: Git, name: str) -> str | None:
        with contextlib.suppress(GitFailed):
            found = await git.run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", directory=self.path)
            return found.decode().strip()
        return None


def _default_branch(told: bytes) -> str | None:
    """The branch of ``ls-remote --symref``'s answer."""
    for line in told.decode(errors="replace").splitlines():
        what, _, name = line.partition("\t")
        if name == "HEAD" and what.startswith("ref: refs/heads/"):
            return what.removeprefix("ref: refs/heads/")
    return None


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """One process at a time; the caller's time limit bounds the wait."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)
