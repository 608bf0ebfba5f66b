"""Guesses which parser reads a recording by the shapes of its objects. Pure. Sources: docs/reference/providers.md."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_CLAUDE = frozenset({"system", "assistant", "user", "stream_event", "control_request", "control_response"})


def guess(objects: Iterable[dict[str, Any] | None]) -> str:
    """The parser's name, by the first object that tells; claude when none does."""
    for found in objects:
        if found is not None and (name := _tell(found)) is not None:
            return name
    return "claude"


def _tell(found: dict[str, Any]) -> str | None:
    if "jsonrpc" in found:
        return "acp"
    kind = found.get("type")
    if not isinstance(kind, str):
        # Codex app-server: JSON-RPC without its `jsonrpc` member.
        return "codex" if "method" in found or "id" in found else None
    if kind.startswith(("thread.", "turn.", "item.")):
        return "codex"
    if "sessionID" in found:
        return "opencode"
    if kind in _CLAUDE:
        return "claude"
    if kind == "init" or (kind == "message" and "role" in found) or "tool_id" in found or "stats" in found:
        return "gemini"
    return None
