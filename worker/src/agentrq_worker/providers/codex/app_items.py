"""The thread items of `codex app-server`: which there are, and the names, inputs and outputs of tools. Pure.

Owns that mapping only; the same names and inputs as `codex exec` has (exec_parser.py).
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET

from agentrq_worker.providers import json_line
from agentrq_worker.providers.codex.app_wire import CollabInput, ImageInput, Item, PathInput
from agentrq_worker.providers.codex.tool_inputs import ChangeInput, CommandInput, SearchInput

NAMES: Final = {
    "commandExecution": "command_execution",
    "fileChange": "file_change",
    "webSearch": "web_search",
    "mcpToolCall": "mcp",
    "dynamicToolCall": "dynamic_tool_call",
    "collabAgentToolCall": "collab_tool_call",
    "imageView": "image_view",
    "imageGeneration": "image_generation",
}
"""The items that are tool calls, and the tool's name where the item has none."""

NOTED: Final = frozenset({"hookPrompt", "sleep", "subAgentActivity", "enteredReviewMode", "exitedReviewMode", "plan"})
"""The items that become a `status`."""
KNOWN: Final = NOTED | {"agentMessage", "reasoning", "contextCompaction", "userMessage", "functionCallOutput"}
"""The items that are not calls; the last two repeat what other lines say."""

_BAD_STATUSES: Final = frozenset({"failed", "declined"})


def name(item: Item) -> str:
    """The tool's name, or that by which agents know a tool of an MCP server."""
    if item.type == "mcpToolCall":
        return f"mcp__{json_line.text(item.server)}__{json_line.text(item.tool)}"
    if item.type in ("dynamicToolCall", "collabAgentToolCall") and json_line.text(item.tool):
        return json_line.text(item.tool)
    return NAMES[item.type or ""]


def given(item: Item) -> Any:
    """The call's input."""
    kind = item.type
    if kind == "commandExecution":
        return CommandInput(json_line.passed_or(item.command, ""), json_line.passed_or(item.cwd, UNSET))
    if kind == "fileChange":
        return ChangeInput(json_line.passed_or(item.changes, []))
    if kind == "webSearch":
        return SearchInput(json_line.passed_or(item.query, ""), json_line.passed_or(item.action, UNSET))
    if kind == "collabAgentToolCall":
        receivers = json_line.passed_or(item.receiver_thread_ids, [])
        return CollabInput(receivers, json_line.passed_or(item.prompt, UNSET))
    if kind == "imageView":
        return PathInput(json_line.passed_or(item.path, ""))
    if kind == "imageGeneration":
        return ImageInput(json_line.passed_or(item.revised_prompt, UNSET))
    return json_line.passed_or(item.arguments, {})


def output(item: Item) -> Any:
    """What the call answered."""
    kind = item.type
    if kind == "commandExecution":
        return json_line.passed_or(item.aggregated_output, "")
    if kind == "webSearch":
        return json_line.passed_or(item.results, None) or given(item)
    if kind == "fileChange":
        return json_line.text(item.status) or "completed"
    if kind == "collabAgentToolCall":
        return json_line.passed_or(item.agents_states, {})
    if kind == "dynamicToolCall":
        return json_line.passed_or(item.content_items, "")
    if kind == "imageGeneration":
        return json_line.passed_or(item.failure, None) or json_line.passed_or(
            item.saved_path, ""
        )  # not the picture itself: it is in that file
    error = json_line.passed_or(item.error, None)
    if error is not None:
        return json_line.optional(json_line.mapping(json_line.value(item.error)).get("message")) or error
    return json_line.passed_or(item.result, "")


def failed(item: Item) -> bool:
    """Whether the call went wrong."""
    if json_line.text(item.status) in _BAD_STATUSES or item.success is False:
        return True
    if item.type == "mcpToolCall" and json_line.passed_or(item.error, None) is not None:
        return True
    return item.exit_code is not None and item.exit_code != 0
