"""The typed events of a session: messages, statuses, receipts. Owns their shapes, not their encoding (codec.py).

Each message type has a class of its own, so that a type checker knows the content by the type; what an agent can say
(the contents) is in messages.py. On the wire the members are camelCase, absent members are omitted, never null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args, get_type_hints

import msgspec

from agentrq.wire.messages import (
    ApprovalRequest,
    ApprovalResolved,
    BranchPushed,
    Checkpoint,
    Compaction,
    Content,
    Cost,
    Error,
    Init,
    Prompt,
    Question,
    RateLimit,
    StatusReport,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
    ToolResult,
    WorkspaceRestored,
)


class MessageBase(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """One thing an agent said or did. ``isinstance(event, Message)`` holds for all of them.

    ``type`` names the class of ``content``. ``timestamp`` is in ms since the epoch; ``cursor`` is absent on live-only
    messages; ``parent_id`` is the tool call of the sub-agent that spoke.
    """

    session_id: str
    id: str
    type: str
    timestamp: int
    content: Content | dict[str, Any]
    cursor: str | None = None
    parent_id: str | None = None


class PromptMessage(MessageBase, frozen=True):
    """A message whose content is `Prompt`."""

    type: Literal["prompt"]
    content: Prompt


class InitMessage(MessageBase, frozen=True):
    """A message whose content is `Init`."""

    type: Literal["init"]
    content: Init


class TextMessage(MessageBase, frozen=True):
    """A message whose content is `Text`."""

    type: Literal["text"]
    content: Text


class ThinkingMessage(MessageBase, frozen=True):
    """A message whose content is `Thinking`."""

    type: Literal["thinking"]
    content: Thinking


class TextDeltaMessage(MessageBase, frozen=True):
    """A message whose content is `TextDelta`."""

    type: Literal["text_delta"]
    content: TextDelta


class ThinkingDeltaMessage(MessageBase, frozen=True):
    """A message whose content is `ThinkingDelta`."""

    type: Literal["thinking_delta"]
    content: ThinkingDelta


class ToolCallMessage(MessageBase, frozen=True):
    """A message whose content is `ToolCall`."""

    type: Literal["tool_call"]
    content: ToolCall


class ToolResultMessage(MessageBase, frozen=True):
    """A message whose content is `ToolResult`."""

    type: Literal["tool_result"]
    content: ToolResult


class StatusReportMessage(MessageBase, frozen=True):
    """A message whose content is `StatusReport`."""

    type: Literal["status"]
    content: StatusReport


class CompactionMessage(MessageBase, frozen=True):
    """A message whose content is `Compaction`."""

    type: Literal["compaction"]
    content: Compaction


class CostMessage(MessageBase, frozen=True):
    """A message whose content is `Cost`."""

    type: Literal["cost"]
    content: Cost


class ApprovalRequestMessage(MessageBase, frozen=True):
    """A message whose content is `ApprovalRequest`."""

    type: Literal["approval_request"]
    content: ApprovalRequest


class ApprovalResolvedMessage(MessageBase, frozen=True):
    """A message whose content is `ApprovalResolved`."""

    type: Literal["approval_resolved"]
    content: ApprovalResolved


class RateLimitMessage(MessageBase, frozen=True):
    """A message whose content is `RateLimit`."""

    type: Literal["rate_limit"]
    content: RateLimit


class CheckpointMessage(MessageBase, frozen=True):
    """A message whose content is `Checkpoint`."""

    type: Literal["checkpoint"]
    content: Checkpoint


class WorkspaceRestoredMessage(MessageBase, frozen=True):
    """A message whose content is `WorkspaceRestored`."""

    type: Literal["workspace_restored"]
    content: WorkspaceRestored


class BranchPushedMessage(MessageBase, frozen=True):
    """A message whose content is `BranchPushed`."""

    type: Literal["branch_pushed"]
    content: BranchPushed


class QuestionMessage(MessageBase, frozen=True):
    """A message whose content is `Question`."""

    type: Literal["question"]
    content: Question


class ErrorMessage(MessageBase, frozen=True):
    """A message whose content is `Error`."""

    type: Literal["error"]
    content: Error


class UnknownMessage(MessageBase, frozen=True):
    """A message whose content this library cannot read: a dict, the JSON object as it came.

    If it is of a newer agentrq, or was not written by agentrq, ``type`` is what it was written with.
    """

    type: Literal["unknown"]
    content: dict[str, Any]


AnyMessage: TypeAlias = (
    PromptMessage
    | InitMessage
    | TextMessage
    | ThinkingMessage
    | TextDeltaMessage
    | ThinkingDeltaMessage
    | ToolCallMessage
    | ToolResultMessage
    | StatusReportMessage
    | CompactionMessage
    | CostMessage
    | ApprovalRequestMessage
    | ApprovalResolvedMessage
    | RateLimitMessage
    | CheckpointMessage
    | WorkspaceRestoredMessage
    | BranchPushedMessage
    | QuestionMessage
    | ErrorMessage
    | UnknownMessage
)
"""Narrowed by ``type``: after ``message.type == "cost"`` a type checker knows that ``content`` is a `Cost`.

That holds for what agentrq writes; ``isinstance(message, CostMessage)`` holds whoever wrote it.
"""

if TYPE_CHECKING:
    Message: TypeAlias = AnyMessage
else:
    Message = MessageBase

MESSAGES: dict[str, type[MessageBase]] = {
    get_args(get_type_hints(kind)["type"])[0]: kind for kind in get_args(AnyMessage)
}
"""Message type → its class."""


def make_message(
    session_id: str,
    id: str,
    type: str,
    timestamp: int,
    content: Any,
    cursor: str | None = None,
    parent_id: str | None = None,
) -> Message:
    """A message of the class that its ``type`` names; ``content`` as it has it."""
    made: Any = MESSAGES.get(type, UnknownMessage)(session_id, id, type, timestamp, content, cursor, parent_id)
    message: Message = made
    return message


class StatusEvent(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """The session entered a status; ``error``, ``reason`` and ``stderr_tail`` come with an end. ``timestamp`` in ms."""

    cursor: str
    session_id: str
    status: str
    timestamp: int
    error: str | None = None
    reason: str | None = None
    stderr_tail: str | None = None


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
