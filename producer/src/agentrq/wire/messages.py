"""What an agent can say: the contents of messages, one class a type, which says all that the type means.

Owns their shapes, not their encoding (codec.py), nor the message around a content (events.py). On the wire the members
are camelCase, absent members are omitted, never null. On the writing side a field may hold a `msgspec.Raw` in place of
its JSON value (structs are not validated when made), so that a large text or tool result is never rebuilt.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias, get_args

import msgspec
from msgspec import UNSET, UnsetType


class _Content(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """What all contents share: what their type is called, and what it means."""

    type_name: ClassVar[str]
    """The message's ``type``."""
    live_only: ClassVar[bool] = False
    """Published, but not kept in the stream: without a cursor, outside the promise."""
    output_only: ClassVar[bool] = False
    """Changes neither the turn nor the open requests of a session at work."""
    mark: ClassVar[str] = ""
    """What stands before it on a terminal."""
    style: ClassVar[str] = "dim"
    """How it is drawn on a terminal (a style of rich)."""


class Prompt(_Content):
    """An accepted prompt, echoed when it is handed to the runner."""

    type_name = "prompt"
    mark = "› "
    style = "bold cyan"

    text: str
    command_id: str


class Init(_Content):
    """The provider's session began, or began a turn."""

    type_name = "init"

    provider_session_id: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    cwd: str | UnsetType = UNSET
    tools: list[Any] | UnsetType = UNSET


class Text(_Content):
    """A whole text of the agent."""

    type_name = "text"
    output_only = True
    style = ""

    text: str
    block_id: str | UnsetType = UNSET


class Thinking(_Content):
    """A whole thought of the agent."""

    type_name = "thinking"
    output_only = True
    style = "dim italic"

    text: str
    block_id: str | UnsetType = UNSET


class TextDelta(_Content):
    """A token-sized piece of a text: live only, not in the stream. ``offset`` counts characters.

    With ``abandoned`` the agent gave up the block: drop its pieces, no complete text follows.
    """

    type_name = "text_delta"
    live_only = True
    output_only = True

    text: str
    block_id: str
    offset: int
    abandoned: bool = False


class ThinkingDelta(_Content):
    """A token-sized piece of a thought: live only, not in the stream. Members as of `TextDelta`."""

    type_name = "thinking_delta"
    live_only = True
    output_only = True

    text: str
    block_id: str
    offset: int
    abandoned: bool = False


class ToolCall(_Content):
    """The agent calls a tool: once per call."""

    type_name = "tool_call"
    output_only = True
    mark = "● "
    style = "green"

    tool_use_id: str
    name: str
    input: Any


class ToolResult(_Content):
    """What a tool answered."""

    type_name = "tool_result"
    mark = "⎿ "

    tool_use_id: str
    output: Any
    is_error: bool


class StatusReport(_Content):
    """What the provider reports of itself (message type ``status``)."""

    type_name = "status"
    output_only = True

    subtype: str
    message: str | UnsetType = UNSET


class Compaction(_Content):
    """The provider shortened its context; ``preTokens`` is its size before, in tokens."""

    type_name = "compaction"
    output_only = True

    trigger: str
    pre_tokens: int | UnsetType = UNSET


class SessionTotal(_Content, omit_defaults=False):
    """Sums over the session's turns so far."""

    cost_usd: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    num_turns: int = 0


class Cost(_Content):
    """The end of one turn and its figures; ``sessionTotal`` sums the session's."""

    type_name = "cost"
    mark = "= "

    total_cost_usd: float
    duration_ms: int
    input_tokens: int
    output_tokens: int
    num_turns: int
    is_error: bool
    result: str | UnsetType = UNSET
    errors: list[str] | UnsetType = UNSET
    session_total: SessionTotal | UnsetType = UNSET


class ApprovalRequest(_Content):
    """The agent asks for permission; the session is ``waiting`` until it is resolved."""

    type_name = "approval_request"
    mark = "▲ "
    style = "bold yellow"

    request_id: str
    name: str
    input: Any
    tool_use_id: str | UnsetType = UNSET
    suggestions: Any = UNSET


class ApprovalResolved(_Content):
    """How an approval request ended: ``decision`` allow | deny | withdrawn, and by whom."""

    type_name = "approval_resolved"
    mark = "▲ "

    request_id: str
    decision: str
    by: str


class RateLimit(_Content):
    """The provider speaks of a rate limit; ``resetsAt`` as the provider gives it, in ms since the epoch."""

    type_name = "rate_limit"
    output_only = True
    style = "yellow"

    scope: str
    message: str
    resets_at: int | UnsetType = UNSET


class Checkpoint(_Content):
    """A commit holds the workspace's files: ``files`` changed since the last, ``leftOut`` are in none."""

    type_name = "checkpoint"
    output_only = True

    turn: int
    commit: str
    files: int
    left_out: list[str] | UnsetType = UNSET


class WorkspaceRestored(_Content):
    """The session goes on with the files of a checkpoint; ``lost``: what a turn that was cut changed since is gone."""

    type_name = "workspace_restored"
    style = "yellow"

    turn: int
    commit: str
    lost: bool


class BranchPushed(_Content):
    """The session's changes are a branch of its repository now."""

    type_name = "branch_pushed"
    style = "green"

    branch: str
    commit: str


class Question(_Content):
    """The agent asks its user; each question has ``id``, ``header``, ``question`` and maybe ``options``."""

    type_name = "question"
    mark = "? "
    style = "bold yellow"

    request_id: str
    questions: list[Any]


class Error(_Content):
    """A fault that the session survives; ``code`` identifies it for programs and says which members follow."""

    type_name = "error"
    mark = "✗ "
    style = "red"

    message: str
    code: str | UnsetType = UNSET
    bytes: int | UnsetType = UNSET
    excerpt: str | UnsetType = UNSET
    from_: str | UnsetType = msgspec.field(default=UNSET, name="from")
    to: str | UnsetType = UNSET


Content: TypeAlias = (
    Prompt
    | Init
    | Text
    | Thinking
    | TextDelta
    | ThinkingDelta
    | ToolCall
    | ToolResult
    | StatusReport
    | Compaction
    | Cost
    | ApprovalRequest
    | ApprovalResolved
    | RateLimit
    | Checkpoint
    | WorkspaceRestored
    | BranchPushed
    | Question
    | Error
)

TYPES: dict[str, type[Content]] = {content.type_name: content for content in get_args(Content)}
TYPE_OF: dict[type[Content], str] = {content: name for name, content in TYPES.items()}

UNKNOWN = "unknown"
"""The type of a message whose content is the provider's own object, as it came."""

LIVE_ONLY = frozenset(name for name, content in TYPES.items() if content.live_only)
OUTPUT_ONLY = frozenset({UNKNOWN, *(name for name, content in TYPES.items() if content.output_only)})
