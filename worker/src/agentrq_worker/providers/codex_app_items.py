"""The thread items of `codex app-server`: which there are, and the names, inputs and outputs of tools. Pure.

Owns that mapping only; the same names and inputs as `codex exec` has (codex.py).
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET

from agentrq_worker.providers import lines
from agentrq_worker.providers.codex_app_lines import (
    CollabInput,
    ImageInput,
    Item,
    PathInput,
)
from agentrq_worker.providers.codex_inputs import ChangeInput, CommandInput, SearchInput

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
"""The items that are calls of tools, and the names of those whose item does not name its tool."""

NOTED: Final = frozenset({"hookPrompt", "sleep", "subAgentActivity", "enteredReviewMode", "exitedReviewMode", "plan"})
"""The items that become a `status`."""
KNOWN: Final = NOTED | {"agentMessage", "reasoning", "contextCompaction", "userMessage", "functionCallOutput"}
"""The items that are no calls; the last two say what is said otherwise."""

_BAD_STATUSES: Final = frozenset({"failed", "declined"})


def name(item: Item) -> str:
    """The tool's name, or that by which agents know a tool of an MCP server."""
    if item.type == "mcpToolCall":
        return f"mcp__{lines.text(item.server)}__{lines.text(item.tool)}"
    if item.type in ("dynamicToolCall", "collabAgentToolCall") and lines.text(item.tool):
        return lines.text(item.tool)
    return NAMES[item.type or ""]


def given(item: Item) -> Any:
    """The call's input."""
    kind = item.type
    if kind == "commandExecution":
        return CommandInput(lines.passed_or(item.command, ""), lines.passed_or(item.cwd, UNSET))
    if kind == "fileChange":
        return ChangeInput(lines.passed_or(item.changes, []))
    if kind == "webSearch":
        return SearchInput(lines.passed_or(item.query, ""), lines.passed_or(item.action, UNSET))
    if kind == "collabAgentToolCall":
        receivers = lines.passed_or(item.receiver_thread_ids, [])
        return CollabInput(receivers, lines.passed_or(item.prompt, UNSET))
    if kind == "imageView":
        return PathInput(lines.passed_or(item.path, ""))
    if kind == "imageGeneration":
        return ImageInput(lines.passed_or(item.revised_prompt, UNSET))
    return lines.passed_or(item.arguments, {})


def output(item: Item) -> Any:
    """What the call answered."""
    kind = item.type
    if kind == "commandExecution":
        return lines.passed_or(item.aggregated_output, "")
    if kind == "webSearch":
        return lines.passed_or(item.results, None) or given(item)
    if kind == "fileChange":
        return lines.text(item.status) or "completed"
    if kind == "collabAgentToolCall":
        return lines.passed_or(item.agents_states, {})
    if kind == "dynamicToolCall":
        return lines.passed_or(item.content_items, "")
    if kind == "imageGeneration":
        return lines.passed_or(item.failure, None) or lines.passed_or(
            item.saved_path, ""
        )  # not the picture itself: it is in that file
    error = lines.passed_or(item.error, None)
    if error is not None:
        return lines.optional(lines.mapping(lines.value(item.error)).get("message")) or error
    return lines.passed_or(item.result, "")


def failed(item: Item) -> bool:
    """Whether the call went wrong."""
    if lines.text(item.status) in _BAD_STATUSES or item.success is False:
        return True
    if item.type == "mcpToolCall" and lines.passed_or(item.error, None) is not None:
        return True
    return item.exit_code is not None and item.exit_code != 0
