"""Keeps the files of a session that has a workspace: made before its agent runs, checkpointed, removed after its end.

Owns when that is done, and what the session machine is told of it. Does not own how (the package workspace), nor when a
turn is over (session/lifecycle.py, which asks for a checkpoint).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from agentrq.wire.commands import Options
from agentrq.wire.status import Reason
from agentrq.wire.workspace import Workspace
from agentrq_worker.session import inputs
from agentrq_worker.session.inputs import Input
from agentrq_worker.session.launch_plan import CannotLaunch
from agentrq_worker.session_types import ClaimedSession
from agentrq_worker.settings import Settings
from agentrq_worker.start_policy import NotAllowed, admit
from agentrq_worker.workspace.session_workspace import (
    CannotMakeWorkspace,
    CheckpointFailed,
    SavedPoint,
    SessionWorkspace,
)


class WorkspaceKeeper:
    """The workspace of one session under one owner."""

    def __init__(
        self, claimed: ClaimedSession, options: Options, settings: Settings, mark: str, feed: Callable[[Input], None]
    ) -> None:
        """``options``: the start's with the worker's defaults. ``feed`` tells the session machine."""
        self._claimed = claimed
        self._options = options
        self._settings = settings
        self._mark = mark
        self._feed = feed
        self._workspace: SessionWorkspace | None = None
        self._wanted: int | None = None
        self._asked = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    @property
    def files(self) -> str | None:
        """The top of the workspace, once it is made."""
        return None if self._workspace is None else str(self._workspace.files)

    async def open(self, ending: asyncio.Event) -> Options | None:
        """Make the workspace; the options with its directory as ``cwd``, None where the session ended meanwhile.

        Raises `CannotLaunch`.
        """
        claimed = self._claimed
        try:
            admitted = admit(self._settings.start_policy, claimed.provider, claimed.options, self._options)
        except NotAllowed as error:
            raise CannotLaunch(str(error), Reason.REFUSED) from None
        assert admitted.workspace is not None
        restored = await self._make(admitted.workspace, ending)
        if restored is None or self._workspace is None:
            return None
        if restored and (saved := SavedPoint.parse(claimed.checkpoint)) is not None:
            self._feed(inputs.WorkspaceRestored(saved.turn, saved.commit))
        try:
            return msgspec.structs.replace(self._options, cwd=self._workspace.cwd)
        except CannotMakeWorkspace as error:
            raise CannotLaunch(str(error)) from None

    async def _make(self, source: Workspace, ending: asyncio.Event) -> bool | None:
        claimed = self._claimed
        workspace = SessionWorkspace(self._settings, claimed.session_id, source, self._mark)
        saved = SavedPoint.parse(claimed.checkpoint)
        try:
            async with asyncio.TaskGroup() as group:
                making = group.create_task(
                    workspace.make(saved, recovering=claimed.recovering), name=f"workspace {claimed.session_id}"
                )
                over = group.create_task(ending.wait(), name=f"end of {claimed.session_id}")
                await asyncio.wait({making, over}, return_when=asyncio.FIRST_COMPLETED)
                over.cancel()
                making.cancel()
        except* CannotMakeWorkspace as errors:
            raise CannotLaunch(str(errors.exceptions[0])) from None
        if making.cancelled():
            return None
        self._workspace = workspace
        return making.result()

    def ask(self, turn: int) -> None:
        """A turn is over: make a checkpoint soon."""
        self._wanted = turn
        self._asked.set()

    async def run(self, turn_number: Callable[[], int]) -> None:
        """Make the checkpoints that are asked for, and those within a turn; runs until it is cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._settings.workspace_settings.checkpoint_s):
                    await self._asked.wait()
            except TimeoutError:
                self._wanted = turn_number()
            self._asked.clear()
            wanted, self._wanted = self._wanted, None
            if wanted is not None:
                await self.save(wanted)

    async def save(self, turn: int) -> None:
        """Make a checkpoint if anything has changed, and tell what it holds, or why there is none."""
        if self._workspace is None:
            self._feed(inputs.NothingToSave())
            return
        try:
            async with self._one_at_a_time:
                made = await self._workspace.save(turn)
        except CheckpointFailed as error:
            self._feed(inputs.CheckpointFailed(turn, str(error)))
            return
        if made is None:
            self._feed(inputs.NothingToSave())
        else:
            self._feed(inputs.CheckpointSaved(made.turn, made.commit, made.files, tuple(made.left_out)))

    async def push(self) -> None:
        """The session ends here: do with its changes what the start asked for, and tell it."""
        if self._workspace is None or self._options.on_end != "branch":
            return
        branch = f"agentrq/{self._claimed.session_id}"
        try:
            commit = await self._workspace.push_branch(branch)
        except CheckpointFailed as error:
            self._feed(inputs.BranchNotPushed(branch, str(error)))
            return
        if commit is not None:
            self._feed(inputs.BranchPushed(branch, commit))

    async def remove(self) -> None:
        """Delete the files of a session that has ended, unless no checkpoint holds them."""
        if self._workspace is not None:
            await self._workspace.remove()
