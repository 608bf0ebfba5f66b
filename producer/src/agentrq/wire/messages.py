"""The typed events of a session: messages, statuses, receipts. Owns their shapes, not their encoding (codec.py).

On the wire the members are camelCase, absent members are omitted, never null. A content's class is its
type: `TYPES` is the one table of both. On the writing side a field may hold a `msgspec.Raw` in place of its
JSON value (structs are not validated when made), so that a large text or tool result is never rebuilt.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType


class _Content(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """What all contents share."""


class Prompt(_Content):
    """An accepted prompt, echoed when it is handed to the runner."""

    text: str
    command_id: str


class Init(_Content):
    """The provider's session began, or began a turn."""

    provider_session_id: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    cwd: str | UnsetType = UNSET
    tools: list[Any] | UnsetType = UNSET


class Text(_Content):
    """A whole text of the agent."""

    text: str
    block_id: str | UnsetType = UNSET


class Thinking(_Content):
    """A whole thought of the agent."""

    text: str
    block_id: str | UnsetType = UNSET


class TextDelta(_Content):
    """A token-sized piece of a text: live only, not in the stream. ``offset`` counts characters.

    With ``abandoned`` the agent gave up the block: its pieces are to be dropped, no whole text follows.
    """

    text: str
    block_id: str
    offset: int
    abandoned: bool = False


class ThinkingDelta(_Content):
    """A token-sized piece of a thought: live only, not in the stream. Members as of `TextDelta`."""

    text: str
    block_id: str
    offset: int
    abandoned: bool = False


class ToolCall(_Content):
    """The agent calls a tool: once per call."""

    tool_use_id: str
    name: str
    input: Any


class ToolResult(_Content):
    """What a tool answered."""

    tool_use_id: str
    output: Any
    is_error: bool


class StatusReport(_Content):
    """What the provider reports of itself (message type ``status``)."""

    subtype: str
    message: str | UnsetType = UNSET


class Compaction(_Content):
    """The provider shortened its context; ``preTokens`` is its size before, in tokens."""

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

    request_id: str
    name: str
    input: Any
    tool_use_id: str | UnsetType = UNSET
    suggestions: Any = UNSET


class ApprovalResolved(_Content):
    """How an approval request ended: ``decision`` allow | deny | withdrawn, and by whom."""

    request_id: str
    decision: str
    by: str


class RateLimit(_Content):
    """The provider speaks of a rate limit; ``resetsAt`` as the provider gives it, in ms since the epoch."""

    scope: str
    message: str
    resets_at: int | UnsetType = UNSET


class Question(_Content):
    """The agent asks its user; each question has ``id``, ``header``, ``question`` and maybe ``options``."""

    request_id: str
    questions: list[Any]


class Error(_Content):
    """A fault the session survives; ``code`` tells machines which, with the members it brings."""

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
    | Question
    | Error
)

TYPES: dict[str, type[Content]] = {
    "prompt": Prompt,
    "init": Init,
    "text": Text,
    "thinking": Thinking,
    "text_delta": TextDelta,
    "thinking_delta": ThinkingDelta,
    "tool_call": ToolCall,
    "tool_result": ToolResult,
    "status": StatusReport,
    "compaction": Compaction,
    "cost": Cost,
    "approval_request": ApprovalRequest,
    "approval_resolved": ApprovalResolved,
    "rate_limit": RateLimit,
    "question": Question,
    "error": Error,
}
TYPE_OF: dict[type[Content], str] = {content: name for name, content in TYPES.items()}

UNKNOWN = "unknown"
"""The type of a message whose content is the provider's own object, as it came."""

LIVE_ONLY = frozenset({"text_delta", "thinking_delta"})
"""Types that are published but not kept: no cursor, outside the promise."""


class Message(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """One thing an agent said or did.

    ``content`` is the struct of `TYPES` for ``type``; a dict (the JSON object) for ``unknown`` and for
    types newer than this library. ``timestamp`` is in ms since the epoch; ``cursor`` is absent on deltas.
    """

    session_id: str
    id: str
    type: str
    timestamp: int
    content: Content | dict[str, Any]
    cursor: str | None = None
    parent_id: str | None = None


class StatusEvent(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """The session entered a status; ``error`` and ``reason`` come with an end. ``timestamp`` in ms."""

    cursor: str
    session_id: str
    status: str
    timestamp: int
    error: str | None = None
    reason: str | None = None


class Receipt(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """What became of a command: ``outcome`` is applied | rejected | expired. ``timestamp`` in ms."""

    cursor: str
    session_id: str
    command_id: str
    command: str
    outcome: str
    timestamp: int
    reason: str | None = None


Event: TypeAlias = Message | StatusEvent | Receipt
