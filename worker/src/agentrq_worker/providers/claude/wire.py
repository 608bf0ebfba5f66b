"""The lines of Claude Code's stream-json, typed: only the members that are used, payloads as `msgspec.Raw`.

Owns shapes and their decoders, not meaning (claude/parser.py). Members are typed as loosely as their use allows, so
that a line is refused only when what it is about is missing: `Any` is read through the tolerant helpers of
json_line.py.
"""

from __future__ import annotations

from typing import Any, TypeAlias, get_args

import msgspec
from msgspec import Raw

from agentrq_worker.providers.json_line import ABSENT


class _Line(msgspec.Struct, gc=False):
    """What all lines share."""


class Block(_Line):
    """A content block of any type."""

    type: str = ""
    text: Raw = ABSENT
    thinking: Raw = ABSENT
    id: str | None = None
    name: str | None = None
    input: Raw = ABSENT
    tool_use_id: str | None = None
    content: Raw = ABSENT
    is_error: Any = False


class Speech(_Line):
    """An API message: whole in itself, or one block of it."""

    content: list[Block] | str | None = None
    id: str | None = None
    usage: Raw = ABSENT


class AssistantLine(_Line, tag="assistant"):
    """A whole content block of the agent, or of a sub-agent."""

    message: Speech
    parent_tool_use_id: str | None = None
    error: Any = None


class UserLine(_Line, tag="user"):
    """Tool results, and what was said in the user's name."""

    message: Speech
    parent_tool_use_id: str | None = None
    isReplay: Any = False  # noqa: N815


class Delta(_Line):
    """The piece of a content block."""

    type: str | None = None
    text: str | None = None
    thinking: str | None = None


class StreamEvent(_Line):
    """An event of the Messages API."""

    type: str | None = None
    index: int | float | None = None
    delta: Delta | None = None
    message: Speech | None = None


class StreamEventLine(_Line, tag="stream_event"):
    """A piece of a message as it comes (`--include-partial-messages`)."""

    event: StreamEvent
    parent_tool_use_id: str | None = None
    api_message_id: str | None = None


class SystemLine(_Line, tag="system"):
    """``init``, ``compact_boundary`` and all that the CLI says of itself."""

    subtype: Any = None
    session_id: Any = None
    model: Any = None
    cwd: Any = None
    tools: Raw = ABSENT
    permissionMode: Any = None  # noqa: N815
    compact_metadata: Any = None


class ResultLine(_Line, tag="result"):
    """The end of a turn."""

    subtype: Any = None
    is_error: Any = None
    result: Raw = ABSENT
    errors: Any = None
    duration_ms: Any = None
    num_turns: Any = None
    total_cost_usd: Any = None
    usage: Any = None
    modelUsage: Any = None  # noqa: N815
    model_usage_since_last_result: Any = None
    result_index: Any = None
    uuid: Any = None


class ControlRequest(_Line):
    """What the CLI asks of its host."""

    subtype: str | None = None
    tool_name: str | None = None
    tool_use_id: str | None = None
    input: Raw = ABSENT
    permission_suggestions: Raw = ABSENT
    mcp_server_name: Any = None
    message: Any = None
    mode: Any = None
    url: Any = None
    requested_schema: Any = None
    dialog_kind: Any = None
    payload: Any = None


class ControlRequestLine(_Line, tag="control_request"):
    """A question to the host, which answers with a ``control_response``."""

    request_id: str
    request: ControlRequest


class ControlCancelLine(_Line, tag="control_cancel_request"):
    """A question to the host is withdrawn."""

    request_id: str


class RateLimitLine(_Line, tag="rate_limit_event"):
    """Where the account stands with a rate limit."""

    rate_limit_info: Any = None


class _Notice(_Line):
    """What the CLI says of itself under a type of its own: read whole by claude/notices.py."""


class _ToolProgress(_Notice, tag="tool_progress"):
    pass


class _ToolUseSummary(_Notice, tag="tool_use_summary"):
    pass


class _PromptSuggestion(_Notice, tag="prompt_suggestion"):
    pass


class _AuthStatus(_Notice, tag="auth_status"):
    pass


class _ConversationReset(_Notice, tag="conversation_reset"):
    pass


class _ActiveGoal(_Notice, tag="active_goal"):
    pass


class _ControlResponse(_Line, tag="control_response"):
    pass


class _KeepAlive(_Line, tag="keep_alive"):
    pass


class _TranscriptMirror(_Line, tag="transcript_mirror"):
    pass


Notice: TypeAlias = _ToolProgress | _ToolUseSummary | _PromptSuggestion | _AuthStatus | _ConversationReset | _ActiveGoal
Silent: TypeAlias = _ControlResponse | _KeepAlive | _TranscriptMirror
Line: TypeAlias = (
    AssistantLine
    | UserLine
    | StreamEventLine
    | SystemLine
    | ResultLine
    | ControlRequestLine
    | ControlCancelLine
    | RateLimitLine
    | Notice
    | Silent
)


class _RawSpeech(msgspec.Struct):
    content: list[Raw]


class _RawLine(msgspec.Struct):
    message: _RawSpeech


decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Line)
tags = frozenset(str(kind.__struct_config__.tag) for kind in get_args(Line))
_blocks = msgspec.json.Decoder(_RawLine).decode


def block_as_it_came(line: bytes, position: int) -> Raw:
    """The content block at ``position`` of a line that has it, whole."""
    return _blocks(line).message.content[position]
