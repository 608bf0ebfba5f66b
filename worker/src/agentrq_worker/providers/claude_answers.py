"""How Claude Code is answered: the ``response`` of a ``control_response``, from an answer of ours. Pure.

Owns the shapes, which are `PermissionResult`, `ElicitResult` and `UserDialogResult` of
`@anthropic-ai/claude-agent-sdk` 0.3.330. What the requests mean is claude_asks.py's.
"""

from __future__ import annotations

from typing import Any, Final

from agentrq_worker.providers.answers import Decision, answers_to, decision
from agentrq_worker.providers.claude_asks import questions_of
from agentrq_worker.providers.claude_lines import ControlRequest
from agentrq_worker.providers.dialect import Refused
from agentrq_worker.providers.lines import mapping, members, passed_or, text, value

DENIED: Final = "The user denied this."


def reply(request: ControlRequest, answer: Any) -> dict[str, Any]:
    """What answers ``request``. Raises `Refused` for an answer that does not fit it."""
    decided = _decided(answer)
    if request.subtype == "can_use_tool":
        questions = questions_of(request) if request.tool_name == "AskUserQuestion" else None
        if questions is None or (decided is not None and (not decided.allow or decided.changed is not None)):
            return _permitted(request, decided or decision(answer))
        if decided is None:
            return _answered(request, questions, answer)
        return _answered(request, questions, mapping(answer).get("answers", {}))
    content = decided.changed if decided is not None else mapping(answer).get("answers", answer)
    if request.subtype == "elicitation":
        if decided is not None and not decided.allow:
            return {"action": "decline"}
        return {"action": "accept", "content": _form(request, content)}
    if decided is not None and not decided.allow:
        return {"behavior": "cancelled"}
    return {"behavior": "completed", "result": mapping(content).get("0", content)}


def _decided(answer: Any) -> Decision | None:
    """The decision that an answer is; None if it is the answers to questions."""
    found = mapping(answer)
    if answer in ("allow", "deny") or "decision" in found or "behavior" in found or "suggestion" in found:
        return decision(answer)
    return None


def _permitted(request: ControlRequest, decided: Decision) -> dict[str, Any]:
    if not decided.allow:
        denial = {"behavior": "deny", "message": decided.message or DENIED}
        return denial | {"interrupt": True} if decided.interrupt else denial
    if decided.changed is not None and not isinstance(decided.changed, dict):
        raise Refused("the input of a tool is an object")
    # The CLI's validator requires updatedInput, whatever its types say.
    given = passed_or(request.input, {}) if decided.changed is None else decided.changed
    allowed = {"behavior": "allow", "updatedInput": given}
    granted = _granted(request, decided)
    return allowed | {"updatedPermissions": granted} if granted else allowed


def _granted(request: ControlRequest, decided: Decision) -> list[Any]:
    found = value(request.permission_suggestions)
    offered = found if isinstance(found, list) else []
    if decided.choice is None:
        return offered if decided.always else []
    if decided.choice not in offered:
        raise Refused("the suggestion is none of those offered")
    return [decided.choice]


def _answered(request: ControlRequest, questions: list[dict[str, Any]], answer: Any) -> dict[str, Any]:
    """The tool reads its answers from its own input, by the questions' texts."""
    # Allowed without a text, as a policy may: the agent is told that there is none.
    said = {} if answer == {} else answers_to([question["id"] for question in questions], answer)
    answers = {each["question"]: ", ".join(said[each["id"]]) for each in questions if said.get(each["id"])}
    return {"behavior": "allow", "updatedInput": {**members(request.input), "answers": answers}}


def _form(request: ControlRequest, content: Any) -> dict[str, Any]:
    """The fields of an elicited form; one text will do for a form of one field."""
    if content is None:
        return {}
    content = mapping(content).get("0", content)
    fields = list(mapping(mapping(request.requested_schema).get("properties")))
    if isinstance(content, dict):
        return content
    if len(fields) == 1 and text(content):
        return {fields[0]: content}
    raise Refused(f"this form is answered by an object with its fields: {', '.join(fields)}")
