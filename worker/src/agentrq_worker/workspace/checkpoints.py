"""Checkpoints: the files of a workspace, at the end of a turn, as a commit outside the workspace.

Owns a session's own bare repository of them and what goes into it. The workspace's HEAD, index, branches and stash are
read, never touched: the commit is made by a private index in a repository whose configuration the agent cannot write,
from which the workspace's own objects are fetched.

A checkpoint is at `refs/agentrq/SESSION/TURN`. Its parent is the workspace's HEAD, its tree all files that are tracked
or not ignored, byte for byte. What it cannot hold is told: too large files, repositories within the workspace.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from pathlib import Path
from typing import Final, NamedTuple

from agentrq_worker.workspace.git import LOCAL, Access, Git, GitFailed

_EXACT: Final = "* -text -filter -ident -working-tree-encoding\n"
"""Attributes under which git keeps bytes as they are, whatever the workspace's own say."""
_BRANCH: Final = re.compile(r"ref: refs/heads/([^\s\x00-\x1f\x7f~^:?*\[\\]+)\n?")
_KEPT_HEAD: Final = "refs/workspace/HEAD"


class Checkpoint(NamedTuple):
    """A checkpoint that was made."""

    turn: int
    commit: str
    files: int
    """Files that differ from the checkpoint before it."""
    left_out: list[str]
    """Paths that it does not hold, of those that changed."""


class Checkpoints:
    """The checkpoints of one session on this machine."""

    def __init__(self, session_id: str, path: Path, files: Path, *, max_file: int) -> None:
        """``path``: the repository that holds them. ``files``: the workspace."""
        self._session_id = session_id
        self.path = path
        self._files = files
        self._max_file = max_file
        self._index = path / "workspace-index"

    def ref(self, turn: int | str) -> str:
        """Where a checkpoint stands."""
        return f"refs/agentrq/{self._session_id}/{turn}"

    async def create(self, git: Git, borrowed: Path | None) -> None:
        """Make the repository for a workspace that was just made; ``borrowed``: the mirror that has its objects."""
        await git.run("init", "--quiet", "--bare", str(self.path), directory=self.path.parent)
        (self.path / "info").mkdir(exist_ok=True)
        (self.path / "info" / "attributes").write_text(_EXACT)
        if borrowed is not None:
            (self.path / "objects" / "info" / "alternates").write_text(f"{borrowed / 'objects'}\n")
        with contextlib.suppress(FileNotFoundError):  # its times and sizes spare reading every file once
            shutil.copyfile(self._files / ".git" / "index", self._index)

    async def save(self, git: Git, turn: int) -> Checkpoint | None:
        """Make a checkpoint if anything has changed since the last. Raises `GitFailed`, TimeoutError, OSError."""
        head = await self._fetch_head(git)
        changed, left_out = await self._changed(git)
        if changed:
            await self._run(git, "update-index", "--add", "--remove", "-z", "--stdin", stdin=b"".join(changed))
        tree = (await self._run(git, "write-tree")).decode().strip()
        if await self._is_known(git, head, tree):
            return None if not left_out else Checkpoint(turn, await self._latest(git) or head or "", 0, left_out)
        branch = self._branch()
        message = f"agentrq: {self._session_id} turn {turn}\n" + (f"\nBranch: {branch}\n" if branch else "")
        parents = ["-p", head] if head else []
        commit = (await self._run(git, "commit-tree", tree, *parents, "-F", "-", stdin=message.encode())).decode()
        await self._run(git, "update-ref", self.ref(turn), commit.strip())
        await self._run(git, "update-ref", self.ref("latest"), commit.strip())
        return Checkpoint(turn, commit.strip(), len(changed), left_out)

    async def push(self, git: Git, turn: int, address: str, access: Access) -> None:
        """Push a checkpoint to a repository. Raises `GitFailed`, TimeoutError."""
        await self._run(git, "push", "--quiet", "--force", "--", address, f"{self.ref(turn)}:{self.ref(turn)}",
                        access=access)  # fmt: skip

    async def push_branch(self, git: Git, branch: str, address: str, access: Access) -> str | None:
        """Push the newest checkpoint as a new branch; its commit, None where there is no checkpoint.

        Raises `GitFailed` also where the repository has such a branch already, TimeoutError.
        """
        commit = await self._latest(git)
        if commit is not None:
            await self._run(
                git, "push", "--quiet", f"--force-with-lease=refs/heads/{branch}:", "--", address,
                f"{commit}:refs/heads/{branch}", access=access,
            )  # fmt: skip
        return commit

    async def fetch(self, git: Git, turn: int, commit: str, address: str, access: Access) -> None:
        """Fetch a checkpoint that another machine pushed. Raises `GitFailed`, TimeoutError."""
        await self._run(git, "fetch", "--quiet", "--no-tags", "--", address, f"+{self.ref(turn)}:{self.ref(turn)}",
                        access=access)  # fmt: skip
        if not await self.has(git, commit):
            raise GitFailed(f"{self.ref(turn)} is not {commit}")
        await self._run(git, "update-ref", self.ref("latest"), commit)

    async def has(self, git: Git, commit: str) -> bool:
        """Whether a checkpoint is here, whole."""
        if not (self.path / "HEAD").exists():
            return False
        with contextlib.suppress(GitFailed):
            await self._run(git, "rev-list", "--quiet", "--objects", "--max-count=1", commit)
            return True
        return False

    async def restore(self, git: Git, commit: str) -> None:
        """Put a checkpoint's files into the workspace, which is a clone without files, or empty.

        HEAD is where it was, on its branch; what was staged is a change like any other.
        """
        parents = (await self._run(git, "rev-list", "--parents", "--max-count=1", commit)).decode().split()[1:]
        with contextlib.suppress(FileNotFoundError):
            self._index.unlink()
        await self._run(git, "read-tree", commit)
        await self._run(git, "checkout-index", "--all", "--force", "--quiet")
        await self._run(git, "update-index", "--refresh", "-q", check=False)
        if not parents or not (self._files / ".git").is_dir():
            return
        words = (await self._run(git, "log", "--max-count=1", "--format=%B", commit)).decode(errors="replace")
        branch = re.search(r"^Branch: (\S+)$", words, re.MULTILINE)
        await git.run("fetch", "--quiet", "--no-tags", "--", str(self.path), commit, directory=self._files)
        if branch is not None:
            await git.run("update-ref", f"refs/heads/{branch[1]}", parents[0], directory=self._files)
            await git.run("symbolic-ref", "HEAD", f"refs/heads/{branch[1]}", directory=self._files)
        else:
            await git.run("update-ref", "--no-deref", "HEAD", parents[0], directory=self._files)
        await git.run("read-tree", "HEAD", directory=self._files)

    async def _run(
        self, git: Git, *arguments: str, stdin: bytes = b"", access: Access = LOCAL, check: bool = True
    ) -> bytes:
        """Run git in the repository of the checkpoints, on the workspace's files where these are."""
        try:
            return await git.run(
                "--git-dir", str(self.path), "--work-tree", str(self._files), *arguments,
                directory=self._files if self._files.exists() else self.path, stdin=stdin, access=access,
                variables={"GIT_INDEX_FILE": str(self._index)},
            )  # fmt: skip
        except GitFailed:
            if check:
                raise
            return b""

    async def _fetch_head(self, git: Git) -> str | None:
        """The workspace's HEAD, with all that its branches and its stash have, brought here; None where it has none."""
        inside = self._files / ".git"
        if not inside.is_dir() or inside.is_symlink():
            return await self._base(git)
        shallow = ["--update-shallow"] if (inside / "shallow").exists() else []
        try:
            await self._run(
                git, "fetch", "--quiet", "--no-tags", "--prune", "--no-write-fetch-head", *shallow, "--", str(inside),
                f"+HEAD:{_KEPT_HEAD}", "+refs/*:refs/workspace/refs/*",
            )  # fmt: skip
        except GitFailed as error:  # a repository that the agent broke, or one without a commit
            if "HEAD" in str(error):
                return await self._base(git)
            raise
        return await self._base(git)

    async def _base(self, git: Git) -> str | None:
        with contextlib.suppress(GitFailed):
            return (await self._run(git, "rev-parse", "--verify", "--quiet", _KEPT_HEAD)).decode().strip()
        return None

    async def _latest(self, git: Git) -> str | None:
        with contextlib.suppress(GitFailed):
            return (await self._run(git, "rev-parse", "--verify", "--quiet", self.ref("latest"))).decode().strip()
        return None

    async def _is_known(self, git: Git, head: str | None, tree: str) -> bool:
        """Whether the last checkpoint, or HEAD while there is none, has this tree on this HEAD."""
        latest = await self._latest(git)
        if latest is None:
            if head is None:
                return False
            known = (await self._run(git, "rev-parse", f"{head}^{{tree}}")).decode().strip()
            return known == tree and await self._is_beginning(git, head)
        words = await self._run(git, "log", "--max-count=1", "--format=%T %P", latest)
        return words.decode().split() == [tree, *([head] if head else [])]

    async def _is_beginning(self, git: Git, head: str) -> bool:
        """Whether HEAD is where the workspace began."""
        with contextlib.suppress(GitFailed):
            begun = await self._run(git, "rev-parse", "--verify", "--quiet", "refs/workspace/begun")
            return begun.decode().strip() == head
        return False

    async def begin(self, git: Git) -> None:
        """Remember where the workspace began: nothing has to be kept while that is all there is."""
        head = await self._fetch_head(git)
        if head is not None:
            await self._run(git, "update-ref", "refs/workspace/begun", head)

    async def _changed(self, git: Git) -> tuple[list[bytes], list[str]]:
        """The paths that changed, each with a NUL behind it, and those that cannot be held."""
        exclude = self._files / ".git" / "info" / "exclude"
        own = ["--exclude-from", str(exclude)] if exclude.is_file() and not exclude.is_symlink() else []
        listed = await self._run(
            git, "ls-files", "-z", "--modified", "--deleted", "--others", "--exclude-standard", *own
        )
        held: list[bytes] = []
        left_out: list[bytes] = []
        for name in dict.fromkeys(listed.split(b"\0")):
            if not name:
                continue
            (held if self._can_hold(name) else left_out).append(name)
        return [name + b"\0" for name in held], [os.fsdecode(name) for name in left_out]

    def _can_hold(self, name: bytes) -> bool:
        if name.endswith(b"/"):  # a repository of its own within the workspace
            return False
        try:
            found = os.lstat(os.path.join(os.fsencode(self._files), name))
        except OSError:  # deleted
            return True
        return stat.S_ISLNK(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_size <= self._max_file)

    def _branch(self) -> str | None:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found = _BRANCH.fullmatch((self._files / ".git" / "HEAD").read_text())
            return None if found is None else found[1]
        return None
