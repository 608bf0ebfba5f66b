"""Makes the ``response`` of a ``control_response`` to Claude Code from a client's answer. Pure.

Owns the shapes, which are `PermissionResult`, `ElicitResult` and `UserDialogResult` of
`@anthropic-ai/claude-agent-sdk` 0.3.330. What the requests mean is claude/approvals.py's.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from agentrq_worker.providers.answers import Decision, find_decision, read_answers, read_decision, read_form
from agentrq_worker.providers.claude.approvals import questions_of
from agentrq_worker.providers.claude.wire import ControlRequest
from agentrq_worker.providers.json_line import mapping, members, passed_or, value
from agentrq_worker.providers.protocol import CommandRefused

DENIED: Final = "The user denied this."
UNANSWERED: Final = "The turn was interrupted before anybody answered."


def reply(request: ControlRequest, answer: Any) -> dict[str, Any]:
    """The response to ``request``. Raises `CommandRefused` for an answer that does not fit it."""
    if request.subtype == "can_use_tool":
        questions = questions_of(request) if request.tool_name == "AskUserQuestion" else None
        given = find_decision(answer) if questions is not None else read_decision(answer)
        if questions is None or (given is not None and (not given.allow or given.changed is not None)):
            return _permitted(request, given or read_decision(answer))
        return _answered(request, questions, answer)
    if request.subtype == "elicitation":
        fields = read_form(request.requested_schema, answer)
        return {"action": "decline"} if fields is None else {"action": "accept", "content": fields}
    given = find_decision(answer)
    if given is not None and not given.allow:
        return {"behavior": "cancelled"}
    content = given.changed if given is not None else mapping(answer).get("answers", answer)
    return {"behavior": "completed", "result": mapping(content).get("0", content)}


def cancelled(request: ControlRequest) -> dict[str, Any]:
    """The response to ``request`` when nobody will answer it."""
    if request.subtype == "can_use_tool":
        return {"behavior": "deny", "message": UNANSWERED}
    return {"action": "cancel"} if request.subtype == "elicitation" else {"behavior": "cancelled"}


def _permitted(request: ControlRequest, given: Decision) -> dict[str, Any]:
    if not given.allow:
        denial = {"behavior": "deny", "message": given.message or DENIED}
        return denial | {"interrupt": True} if given.interrupt else denial
    if given.changed is not None and not isinstance(given.changed, dict):
        raise CommandRefused("the input of a tool must be an object")
    # The CLI's validator requires updatedInput, whatever its types say.
    updated = passed_or(request.input, {}) if given.changed is None else given.changed
    allowed = {"behavior": "allow", "updatedInput": updated}
    granted = _granted(request, given)
    return allowed | {"updatedPermissions": granted} if granted else allowed


def _granted(request: ControlRequest, given: Decision) -> list[Any]:
    found = value(request.permission_suggestions)
    offered = found if isinstance(found, list) else []
    if given.choice is None:
        return offered if given.always else []
    if given.choice not in offered:
        raise CommandRefused("the request does not offer this suggestion")
    return [given.choice]


def _answered(request: ControlRequest, questions: list[dict[str, Any]], answer: Any) -> dict[str, Any]:
    """The response to the question tool, which reads the answers in its input by the questions' texts.

    Where several questions have the same text, one answer tells theirs apart by their headers.
    """
    given_answers = read_answers([question["id"] for question in questions], answer) or {}
    by_text: dict[str, list[tuple[str, str]]] = {}
    for number, each in enumerate(questions, 1):
        if given := given_answers.get(each["id"]):
            by_text.setdefault(each["question"], []).append((each["header"] or str(number), ", ".join(given)))
    asked = Counter(each["question"] for each in questions)
    answers = {
        words: "; ".join(f"{header}: {one}" for header, one in given) if asked[words] > 1 else given[0][1]
        for words, given in by_text.items()
    }
    return {"behavior": "allow", "updatedInput": {**members(request.input), "answers": answers}}
