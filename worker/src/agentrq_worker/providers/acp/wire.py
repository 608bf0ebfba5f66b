"""The messages of the Agent Client Protocol (schema v1), typed: only the members that are used.

Owns shapes and their decoders. Does not own their meaning (acp/parser.py). Sources: agentclientprotocol.com, schema v1,
and the recordings in tests/transcripts.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from agentrq_worker.providers.json_line import ABSENT


class _Shape(msgspec.Struct, rename="camel", gc=False):
    """Any object of the protocol."""


class ToolCallUpdate(_Shape):
    """A `ToolCall` or `ToolCallUpdate`: what is absent has not changed."""

    tool_call_id: str | None = None
    title: Any = None
    name: Any = None
    kind: Any = None
    status: Any = None
    content: Raw = ABSENT
    locations: Raw = ABSENT
    raw_input: Raw = ABSENT
    raw_output: Raw = ABSENT
    meta: Any = msgspec.field(default=None, name="_meta")


class Update(ToolCallUpdate):
    """A `SessionUpdate` of any kind."""

    session_update: Any = None
    message_id: Any = None
    entries: Any = None
    cost: Any = None
    current_mode_id: Any = None
    compaction_id: Any = None
    summary: Any = None
    error: Any = None
    severity: Any = None
    description: Any = None


class Params(_Shape):
    """The params of any notification or request of the agent."""

    session_id: Any = None
    update: Update | None = None
    tool_call: ToolCallUpdate | None = None
    options: Raw = ABSENT
    request_id: Raw = ABSENT
    message: Any = None
    mode: Any = None
    url: Any = None
    requested_schema: Any = None


class Result(_Shape):
    """The result of any request of ours."""

    protocol_version: Any = None
    agent_capabilities: Any = None
    agent_info: Any = None
    auth_methods: Any = None
    session_id: Any = None
    modes: Any = None
    models: Any = None
    config_options: Any = None
    stop_reason: Any = None
    usage: Any = None
    meta: Any = msgspec.field(default=None, name="_meta")


class Chunk(_Shape):
    """A `ContentBlock`."""

    type: Any = None
    text: str | None = None


params_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Params)
decode_result = msgspec.json.Decoder(Result).decode
decode_chunk = msgspec.json.Decoder(Chunk).decode
