"""One session's workspace on this machine: made, found again, restored, checkpointed, removed.

Owns its place and the order of these steps, and the rule that files go only when a checkpoint holds them. Does not own
what a start may ask for (start_policy.py), nor when a turn is over (session/).

Under `workspaces_dir`: `mirrors/` has a bare copy of each repository, `SESSION/files` the workspace, where the agent
works, `SESSION/checkpoints.git` its checkpoints, `SESSION/made.json` which checkpoint its files go back to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from agentrq.wire.workspace import Workspace
from agentrq_worker.settings import Settings
from agentrq_worker.workspace.checkpoints import Checkpoint, Checkpoints
from agentrq_worker.workspace.git import Access, Git, GitFailed
from agentrq_worker.workspace.mirror import Commit, Mirror, RefNotFound

log = logging.getLogger(__name__)

_KIB: Final = 1024


class CannotMakeWorkspace(Exception):
    """A session's files cannot be made or found again; the text is the session's error."""


class CheckpointFailed(Exception):
    """A checkpoint could not be made or pushed; the files are where they were."""


class SavedPoint(NamedTuple):
    """A checkpoint as the session's state names it: ``TURN COMMIT``."""

    turn: int
    commit: str

    @classmethod
    def parse(cls, text: str | None) -> SavedPoint | None:
        """Read the state's field; None where it is absent or is none."""
        turn, _, commit = (text or "").partition(" ")
        return cls(int(turn), commit) if turn.isdecimal() and commit else None

    def __str__(self) -> str:
        return f"{self.turn} {self.commit}"


class _Made(msgspec.Struct):
    """``made.json``: the newest checkpoint of these files, empty before the first."""

    checkpoint: str = ""


class SessionWorkspace:
    """The workspace of one session."""

    def __init__(self, settings: Settings, session_id: str, source: Workspace, mark: str) -> None:
        self._options = settings.workspace_settings
        self._root = settings.workspaces_path
        self._session_id = session_id
        self._source = source
        self._mark = mark
        self._place = self._root / session_id
        self.files = self._place / "files"
        credentials = self._options.credentials.get(source.credentials or "")
        self._access = Access(source, credentials)
        self._checkpoints = self._checkpoints_in(self._place)

    def _checkpoints_in(self, place: Path) -> Checkpoints:
        return Checkpoints(
            self._session_id, place / "checkpoints.git", place / "files", max_file=self._options.max_file
        )

    @property
    def cwd(self) -> str:
        """The directory in which the agent works. Raises `CannotMakeWorkspace`."""
        path = self.files / self._source.path if self._source.path else self.files
        real, top = os.path.realpath(path), os.path.realpath(self.files)
        if real != top and not real.startswith(top + "/"):
            raise CannotMakeWorkspace(f"workspace: path {self._source.path!r} leads out of the workspace")
        if not os.path.isdir(real):
            raise CannotMakeWorkspace(f"workspace: it has no directory {self._source.path!r}")
        return real

    async def make(self, saved: SavedPoint | None, *, recovering: bool) -> bool:
        """Make it, or find it again; True where it was restored from the checkpoint ``saved``.

        ``recovering``: an agent of an earlier owner has worked in it. Raises `CannotMakeWorkspace`.
        """
        if self._source.credentials and self._source.credentials not in self._options.credentials:
            raise CannotMakeWorkspace(
                f"workspace: the worker has no credentials {self._source.credentials!r} (workspaces.credentials)"
            )
        try:
            async with self._git(self._options.timeout_s) as git:
                self._own_directory(self._root)
                self._own_directory(self._root / "mirrors")
                if recovering and self._is_current(saved):
                    return False
                await self._make_anew(git, saved)
        except TimeoutError:
            raise CannotMakeWorkspace(
                f"workspace: {self._what} could not be made within {self._options.timeout_s:g} s"
            ) from None
        except (GitFailed, RefNotFound) as error:
            raise CannotMakeWorkspace(f"workspace: {self._what}: {error}") from None
        except OSError as error:
            raise CannotMakeWorkspace(f"workspace: {error}") from None
        return saved is not None

    @property
    def _what(self) -> str:
        return self._source.git or self._source.copy or ""

    def _is_current(self, saved: SavedPoint | None) -> bool:
        """Whether the files here are the session's latest: a session that was elsewhere meanwhile has newer ones."""
        try:
            made = msgspec.json.decode((self._place / "made.json").read_bytes(), type=_Made)
        except (OSError, msgspec.MsgspecError):
            return False
        return self.files.is_dir() and made.checkpoint == ("" if saved is None else saved.commit)

    async def _make_anew(self, git: Git, saved: SavedPoint | None) -> None:
        making = self._root / f".{self._session_id}.{os.getpid()}.making"
        await asyncio.to_thread(shutil.rmtree, making, ignore_errors=True)
        making.mkdir(0o700)
        try:
            checkpoints = self._checkpoints_in(making)
            begin, mirror = await self._fetch_files(git, making, saved)
            await checkpoints.create(git, mirror)
            if saved is not None:
                await self._restore(git, checkpoints, saved)
            elif begin is not None:
                await self._check_out(git, making, begin)
                await checkpoints.create(git, mirror)  # again, with the index that the files have now
                await checkpoints.begin(git)
            _note(making, saved.commit if saved is not None else "")
            if self._place.exists():  # of an earlier session by this id, or older than the checkpoint
                os.rename(self._place, self._root / f".{self._session_id}.{time.time_ns()}.old")
            os.rename(making, self._place)
        finally:
            await asyncio.to_thread(shutil.rmtree, making, ignore_errors=True)

    async def _fetch_files(self, git: Git, making: Path, saved: SavedPoint | None) -> tuple[Commit | None, Path | None]:
        """Where the files begin, and the mirror that has their objects."""
        files, source = making / "files", self._source
        if source.copy is not None:
            files.mkdir()
            if saved is None:
                await self._copy(git, Path(source.copy), files)
            return None, None
        mirror = Mirror(self._root / "mirrors", source, self._access)
        begin = await mirror.refresh(git, source.ref)
        size = _count(await git.run("count-objects", "-v", directory=mirror.path))
        if size > self._options.max_bytes:
            raise GitFailed(f"its history has {size} bytes, over workspaces.max_bytes ({self._options.max_bytes})")
        shallow = [] if source.depth is None else ["--depth", str(source.depth), "--no-single-branch"]
        origin = str(mirror.path) if source.depth is None else f"file://{mirror.path}"
        await git.run(
            "clone", "--quiet", "--no-checkout", "--no-hardlinks", "--template=", *shallow, "--", origin, str(files),
            directory=making,
        )  # fmt: skip
        await git.run("remote", "set-url", "origin", source.git or "", directory=files)
        return begin, mirror.path

    async def _check_out(self, git: Git, making: Path, begin: Commit) -> None:
        files = making / "files"
        listed = await git.run("ls-tree", "-r", "-l", "-z", begin.id, directory=files)
        size = sum(int(entry.split()[3]) for entry in listed.split(b"\0") if b" blob " in entry[:16])
        if size > self._options.max_bytes:
            raise GitFailed(f"its files have {size} bytes, over workspaces.max_bytes ({self._options.max_bytes})")
        if begin.branch is None:
            await git.run("checkout", "--quiet", "--detach", begin.id, "--", directory=files)
        else:
            await git.run("checkout", "--quiet", "-B", begin.branch, f"origin/{begin.branch}", "--", directory=files)

    async def _copy(self, git: Git, source: Path, files: Path) -> None:
        if not await asyncio.to_thread(source.is_dir):
            raise GitFailed("is not a directory of the worker's machine")
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
        told = await git.execute(["du", "-sb", "--", str(source)], environment)
        size = int(told.split()[0])
        if size > self._options.max_bytes:
            raise GitFailed(f"has {size} bytes, over workspaces.max_bytes ({self._options.max_bytes})")
        await git.execute(["cp", "-a", "--reflink=auto", "--", f"{source}/.", str(files)], environment)

    async def _restore(self, git: Git, checkpoints: Checkpoints, saved: SavedPoint) -> None:
        """Get a checkpoint from where it is kept, and its files."""
        if await self._checkpoints.has(git, saved.commit):
            address, access = str(self._checkpoints.path), Access()
        elif self._source.git is not None and self._options.checkpoints == "origin":
            address, access = self._source.git, self._access
        else:
            raise GitFailed(
                f"checkpoint {saved.commit[:12]} of turn {saved.turn} is on the machine where it was made "
                '(workspaces.checkpoints = "origin" would push it)'
            )
        await checkpoints.fetch(git, saved.turn, saved.commit, address, access)
        await checkpoints.restore(git, saved.commit)

    async def save(self, turn: int) -> Checkpoint | None:
        """Make a checkpoint, if anything has changed. Raises `CheckpointFailed`."""
        try:
            async with self._git(self._options.checkpoint_timeout_s) as git:
                made = await self._checkpoints.save(git, turn)
                if made is not None and made.commit:
                    if self._options.checkpoints == "origin" and self._source.git is not None:
                        await self._checkpoints.push(git, turn, self._source.git, self._access)
                    _note(self._place, made.commit)
                return made
        except TimeoutError:
            raise CheckpointFailed(f"it took over {self._options.checkpoint_timeout_s:g} s") from None
        except (GitFailed, OSError) as error:
            raise CheckpointFailed(str(error)) from None

    async def push_branch(self, branch: str) -> str | None:
        """Push what the checkpoints hold as a new branch; its commit, None where nothing was changed.

        Raises `CheckpointFailed`.
        """
        try:
            async with self._git(self._options.checkpoint_timeout_s) as git:
                return await self._checkpoints.push_branch(git, branch, self._source.git or "", self._access)
        except TimeoutError:
            raise CheckpointFailed(f"it took over {self._options.checkpoint_timeout_s:g} s") from None
        except (GitFailed, OSError) as error:
            raise CheckpointFailed(str(error)) from None

    async def remove(self) -> None:
        """Delete the files of an ended session, unless something of them is in no checkpoint. These stay."""
        try:
            async with self._git(self._options.checkpoint_timeout_s) as git:
                last = await self._checkpoints.save(git, 0)
        except (TimeoutError, GitFailed, OSError) as error:
            log.warning("session %s: its workspace stays: %s", self._session_id, error)
            return
        if last is not None:
            log.warning("session %s: its workspace stays: no checkpoint holds %s", self._session_id,
                        ", ".join(last.left_out[:5]) or "its latest changes")  # fmt: skip
            return
        await asyncio.to_thread(shutil.rmtree, self.files, ignore_errors=True)

    @contextlib.asynccontextmanager
    async def _git(self, seconds: float) -> AsyncIterator[Git]:
        deadline = asyncio.get_running_loop().time() + seconds
        async with asyncio.timeout_at(deadline):
            yield Git(self._mark, deadline=deadline, max_bytes=self._options.max_bytes)

    @staticmethod
    def _own_directory(path: Path) -> None:
        """Make a directory that only this user writes. Raises `CannotMakeWorkspace`, OSError."""
        path.mkdir(0o700, parents=True, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise CannotMakeWorkspace(f"workspaces_dir {path} is not a directory that only this user writes")


def _note(place: Path, checkpoint: str) -> None:
    path = place / "made.json"
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(_Made(checkpoint)))
    os.replace(new, path)


def _count(told: bytes) -> int:
    """Bytes of a repository's objects, of ``git count-objects -v``."""
    found = dict(line.split(": ", 1) for line in told.decode().splitlines() if ": " in line)
    return _KIB * (int(found.get("size", 0)) + int(found.get("size-pack", 0)))
