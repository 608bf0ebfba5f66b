"""Puts the reports of `codex app-server` about itself into short texts. Owns the wording only. Pure."""

from __future__ import annotations

from typing import Any, Final

from agentrq.wire.messages import RateLimit
from agentrq_worker.providers.codex.app_wire import Params
from agentrq_worker.providers.json_line import mapping, text, whole

NOTICES: Final = {
    "thread/status/changed": "thread_status",
    "thread/closed": "thread_closed",
    "thread/archived": "thread_archived",
    "thread/name/updated": "thread_name",
    "warning": "warning",
    "configWarning": "warning",
    "guardianWarning": "warning",
    "deprecationNotice": "warning",
    "remoteControl/status/changed": "remote_control",
    "item/mcpToolCall/progress": "tool_progress",
    "model/rerouted": "model",
    "model/verification": "model_verification",
    "modelProvider/authRecoveryStarted": "auth_recovery",
    "modelProvider/authRecoveryCompleted": "auth_recovery",
    "hook/started": "hook_started",
    "hook/completed": "hook_completed",
    "item/autoApprovalReview/started": "approval_review",
    "item/autoApprovalReview/completed": "approval_review",
    "autoApprovalReview/strictReviewRequired": "approval_review",
}
"""The methods that become a `status`, and its subtype."""

SILENT: Final = frozenset(
    {
        "turn/started",
        "item/plan/delta",
        "item/commandExecution/outputDelta",
        "item/commandExecution/terminalInteraction",
        "item/fileChange/outputDelta",
        "item/fileChange/patchUpdated",
        "thread/readState/changed",
        "thread/section/changed",
        "thread/attachment/updated",
        "thread/prediction/updated",
        "thread/goal/updated",
        "thread/goal/cleared",
        "thread/project/updated",
        "thread/environment/connected",
        "thread/environment/disconnected",
        "thread/queue/changed",
        "thread/settings/updated",
        "turn/moderationMetadata",
        "skills/changed",
        "app/list/updated",
        "mcpServer/startupStatus/updated",
        "account/updated",
    }
)
"""The methods that repeat what other lines say."""

LIMITS: Final = frozenset({"usageLimitExceeded", "rateLimitExceeded"})
"""The errors that are a rate limit."""


def notice(params: Params) -> str:
    """The text of one notice; empty when it has no words."""
    words = text(params.message) or text(params.summary) or text(params.name)
    if not words and text(params.to_model):
        words = f"{text(params.from_model)} → {text(params.to_model)}"
    run = mapping(params.run)
    if run:
        words = ": ".join(
            filter(None, (text(run.get("eventName")), text(run.get("statusMessage")), text(run.get("status"))))
        )
    review = mapping(params.review)
    return words or _status(review.get("status")) or _status(params.status)


def _status(status: Any) -> str:
    """A `ThreadStatus`, or any status that is one word."""
    kind = text(status) or text(mapping(status).get("type"))
    flags = mapping(status).get("activeFlags")
    return ": ".join([kind, *([", ".join(map(text, flags))] if isinstance(flags, list) and flags else [])])


def plan(steps: Any) -> str:
    """How far a plan has come."""
    entries = [mapping(step) for step in steps] if isinstance(steps, list) else []
    left = [entry for entry in entries if entry.get("status") != "completed"]
    words = f"{len(entries) - len(left)} of {len(entries)} done"
    if left:
        words += f"; next: {text(left[0].get('step')) or text(left[0].get('content'))}"
    return words


def diff(unified: str) -> str:
    """The size of a unified diff."""
    rows = unified.split("\n")
    files = sum(row.startswith("+++ ") for row in rows)
    added = sum(row.startswith("+") for row in rows) - files
    removed = sum(row.startswith("-") and not row.startswith("--- ") for row in rows)
    return f"{files} files changed, {added} lines added, {removed} removed"


def rate_limits(snapshot: Any) -> RateLimit | None:
    """A `RateLimitSnapshot`; None when it tells of no limit. Its times are in seconds."""
    found = mapping(snapshot)
    parts = []
    resets = 0
    for scope in ("primary", "secondary"):
        window = mapping(found.get(scope))
        if window:
            parts.append(f"{scope}: {whole(window.get('usedPercent'))}% used")
            resets = resets or whole(window.get("resetsAt"))
    reached = text(found.get("rateLimitReachedType"))
    if reached:
        parts.insert(0, f"reached: {reached}")
    if not parts:
        return None
    limit = RateLimit(scope=text(found.get("limitId")) or "codex", message=", ".join(parts))
    if resets:
        limit.resets_at = resets * 1000
    return limit


def error_code(info: Any) -> str:
    """The name of a `CodexErrorInfo`, which is a word or an object with one member."""
    return text(info) or next(iter(mapping(info)), "")
