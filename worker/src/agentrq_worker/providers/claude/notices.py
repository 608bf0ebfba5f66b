"""Puts Claude Code's reports about itself into short texts. Owns the wording only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import UNSET, UnsetType

from agentrq.wire.messages import RateLimit
from agentrq_worker.providers.json_line import mapping, text, whole

_MAIN_MEMBERS = (
    "message",
    "summary",
    "content",
    "description",
    "text",
    "status",
    "state",
    "hook_name",
    "reason",
    "suggestion",
    "trigger",
    "name",
    "error",
    "error_code",
    "value",
)
"""The members that say what a notice is about, the most informative first."""

_SECONDS_END = 1e11  # a later time in seconds would be past the year 5000: it is in milliseconds already


def notice(subtype: str, found: dict[str, Any]) -> str | UnsetType:
    """The text of one notice; absent if its object has none."""
    wording = _WORDINGS.get(subtype)
    words = wording(found) if wording is not None else ""
    if words:
        return words
    for member in _MAIN_MEMBERS:
        if words := text(found.get(member)):
            return words
    return UNSET


def _retry(found: dict[str, Any]) -> str:
    status = whole(found.get("error_status"))
    cause = text(found.get("error")) or "error"
    cause = f"{cause} ({status})" if status else cause
    limit = whole(found.get("max_retries"))
    attempt = f"retry {whole(found.get('attempt'))}" + (f" of {limit}" if limit else "")
    return f"{cause}: {attempt} in {whole(found.get('retry_delay_ms'))} ms"


def _status(found: dict[str, Any]) -> str:
    words = text(found.get("status")) or text(found.get("compact_error"))
    if words:
        return words
    result = text(found.get("compact_result"))
    return f"compaction: {result}" if result else ""


def _task_patch(found: dict[str, Any]) -> str:
    patch = mapping(found.get("patch"))
    return text(patch.get("error")) or text(patch.get("status"))


def _tasks(found: dict[str, Any]) -> str:
    tasks = found.get("tasks")
    return f"{len(tasks)} in the background" if isinstance(tasks, list) else ""


def _hook(found: dict[str, Any]) -> str:
    words = (text(found.get("hook_name")) or text(found.get("hook_event")), text(found.get("outcome")))
    return ": ".join(word for word in words if word)


def _thinking(found: dict[str, Any]) -> str:
    return f"about {whole(found.get('estimated_tokens'))} tokens"


def _progress(found: dict[str, Any]) -> str:
    return f"{text(found.get('tool_name')) or 'tool'}: {whole(found.get('elapsed_time_seconds'))} s"


_WORDINGS: dict[str, Callable[[dict[str, Any]], str]] = {
    "api_retry": _retry,
    "status": _status,
    "task_updated": _task_patch,
    "background_tasks_changed": _tasks,
    "hook_started": _hook,
    "hook_progress": _hook,
    "hook_response": _hook,
    "thinking_tokens": _thinking,
    "tool_progress": _progress,
}


def rate_limit(found: Any) -> RateLimit:
    """A ``rate_limit_info`` (its ``resetsAt`` in seconds, seen in milliseconds too)."""
    info = mapping(found)
    scope = text(info.get("rateLimitType")) or "unknown"
    message = f"{scope}: {text(info.get('status')) or 'unknown'}"
    used = info.get("utilization")
    if isinstance(used, int | float) and not isinstance(used, bool):
        message += f", {used:.0%} used"
    resets = whole(info.get("resetsAt"))
    resets_at = UNSET if not resets else resets if resets > _SECONDS_END else resets * 1000
    return RateLimit(scope=scope, message=message, resets_at=resets_at)
