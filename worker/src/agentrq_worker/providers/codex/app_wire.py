"""The params of `codex app-server` (0.169), typed: only the members that are used, payloads as `msgspec.Raw`.

Owns shapes and their decoder, not meaning (app_parser.py). Sources: codex-rs/app-server-protocol
(`protocol/v2`) and the recordings in tests/transcripts.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from agentrq_worker.providers.codex.tool_inputs import Given
from agentrq_worker.providers.json_line import ABSENT


class _Shape(msgspec.Struct, rename="camel", gc=False):
    """What all share."""


class Item(_Shape):
    """A `ThreadItem` of any type."""

    id: str | None = None
    type: str | None = None
    status: Any = None
    text: Raw = ABSENT
    summary: Any = None
    content: Raw = ABSENT
    command: Raw = ABSENT
    cwd: Raw = ABSENT
    aggregated_output: Raw = ABSENT
    exit_code: Any = None
    changes: Raw = ABSENT
    server: Any = None
    tool: Any = None
    arguments: Raw = ABSENT
    result: Raw = ABSENT
    error: Raw = ABSENT
    query: Raw = ABSENT
    action: Raw = ABSENT
    results: Raw = ABSENT
    failure: Raw = ABSENT
    prompt: Raw = ABSENT
    receiver_thread_ids: Raw = ABSENT
    agents_states: Raw = ABSENT
    path: Raw = ABSENT
    content_items: Raw = ABSENT
    success: Any = None
    saved_path: Raw = ABSENT
    revised_prompt: Raw = ABSENT
    review: Any = None
    kind: Any = None
    agent_path: Any = None
    duration_ms: Any = None


class Turn(_Shape):
    """A `Turn`, without its items."""

    id: Any = None
    status: Any = None
    error: Any = None
    duration_ms: Any = None


class Thread(_Shape):
    """A `Thread`, without its turns."""

    id: Any = None
    model: Any = None
    cwd: Any = None
    preview: Any = None


class Params(_Shape):
    """The params of any notification or request of the server."""

    thread_id: Any = None
    turn_id: Any = None
    item_id: str | None = None
    item: Item | None = None
    turn: Turn | None = None
    thread: Thread | None = None
    delta: str | None = None
    summary_index: Any = None
    token_usage: Any = None
    rate_limits: Any = None
    error: Any = None
    will_retry: Any = None
    plan: Any = None
    diff: Any = None
    status: Any = None
    message: Any = None
    summary: Any = None
    name: Any = None
    from_model: Any = None
    to_model: Any = None
    run: Any = None
    review: Any = None
    request_id: Raw = ABSENT
    # of requests
    command: Raw = ABSENT
    cwd: Raw = ABSENT
    reason: Raw = ABSENT
    grant_root: Raw = ABSENT
    permissions: Raw = ABSENT
    network_approval_context: Raw = ABSENT
    available_decisions: Raw = ABSENT
    questions: Any = None
    server_name: Any = None
    mode: Any = None
    url: Any = None
    requested_schema: Any = None
    meta: Any = msgspec.field(default=None, name="_meta")


class Response(_Shape):
    """The result of any request of ours."""

    thread: Thread | None = None
    turn: Turn | None = None
    model: Any = None
    cwd: Any = None


params_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Params)
decode_response = msgspec.json.Decoder(Response).decode


class CollabInput(Given):
    """The input of a call to another agent."""

    receiverThreadIds: Any  # noqa: N815 - the wire's name
    prompt: Any = msgspec.UNSET


class PathInput(Given):
    """The input of a tool that looks at one file."""

    path: Any


class ImageInput(Given):
    """The input of an image's generation."""

    prompt: Any = msgspec.UNSET
