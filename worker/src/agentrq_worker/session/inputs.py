"""What the session machine is told: one class an input. Owns shapes only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from agentrq.wire.call_targets import NO_DIRECTORIES, Directories
from agentrq_worker.process.framing import LineTooLong
from agentrq_worker.providers.protocol import AgentProtocol
from agentrq_worker.session_types import InboxCommand, Outcome


class _Input(msgspec.Struct, gc=False):
    """What all inputs share. (Structs: a NamedTuple takes four times as long to make.)"""


class Opened(_Input):
    """The session's life begins here; nothing has been spawned yet."""


class RunnerStarted(_Input):
    """The runner has started and accepts input.

    ``enforced``: what its sandbox holds it to, for people. ``directories``: what the paths of calls are read against.
    """

    protocol: AgentProtocol
    pid: int
    enforced: str = ""
    directories: Directories = NO_DIRECTORIES


class LinesRead(_Input):
    """All lines of one read of the runner's stdout."""

    lines: Sequence[bytes | LineTooLong]


class CommandReceived(_Input):
    """A command from the inbox. ``unsent``: bytes that wait for the runner to read its stdin."""

    waiting: InboxCommand
    unsent: int = 0


class EntryUnreadable(_Input):
    """An inbox entry that is not a command, although its id can be read."""

    entry: bytes
    command_id: str
    command: str
    reason: str


class StopRequested(_Input):
    """A request to end the session."""


class LeaveRequested(_Input):
    """The worker ends: hand the session over once nothing is under way, or ``at_once``."""

    at_once: bool


class TimerFired(_Input):
    """The time that `SetTimer` named has come. ``reading_paused``: the runner's stdout is not read for now."""

    reading_paused: bool = False


class PipeClosed(_Input):
    """The runner has closed its ``stdin`` or its ``stdout`` and has not ended yet."""

    pipe: str


class StdinOverfull(_Input):
    """More waits for the runner's stdin than the worker may hold."""


class RunnerExited(_Input):
    """The runner's process has ended; what it wrote last may still come."""


class RunnerGone(_Input):
    """Nothing more comes: the last input of a session. ``exit_code`` None where nothing was spawned.

    ``explained``: the end that an exit means which came before the agent itself, as of a sandbox that failed.
    ``stderr_tail``: the last lines of its stderr, as they came.
    """

    exit_code: int | None = None
    explained: Outcome | None = None
    stderr_tail: str = ""


class WorkspaceRestored(_Input):
    """The files are those of a checkpoint that another machine made, in place of the latest."""

    turn: int
    commit: str


class CheckpointSaved(_Input):
    """A checkpoint holds the workspace's files as they were after ``turn``, or in it; but for those left out."""

    turn: int
    commit: str
    files: int
    left_out: tuple[str, ...] = ()


class NothingToSave(_Input):
    """The workspace's files are those of the last checkpoint."""


class CheckpointFailed(_Input):
    """No checkpoint could be made, or pushed; the files are where they were."""

    turn: int
    why: str


class BranchPushed(_Input):
    """The session's changes have been pushed as a branch."""

    branch: str
    commit: str


class BranchNotPushed(_Input):
    """They could not be; the checkpoints have them."""

    branch: str
    why: str


class OwnershipLost(_Input):
    """Another owner has the session, or nobody: nothing more can be written."""


class Failed(_Input):
    """The session cannot go on: its runner cannot be started, or the worker has a fault."""

    outcome: Outcome


Input: TypeAlias = (
    Opened
    | RunnerStarted
    | LinesRead
    | CommandReceived
    | EntryUnreadable
    | StopRequested
    | LeaveRequested
    | TimerFired
    | PipeClosed
    | StdinOverfull
    | RunnerExited
    | RunnerGone
    | WorkspaceRestored
    | CheckpointSaved
    | NothingToSave
    | CheckpointFailed
    | BranchPushed
    | BranchNotPushed
    | OwnershipLost
    | Failed
)
