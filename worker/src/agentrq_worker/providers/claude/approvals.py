"""Turns Claude Code's requests to its host into approval requests and questions. Pure; does not own the answers."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from agentrq.wire.messages import ApprovalRequest, Question
from agentrq_worker.providers.claude.wire import ControlRequest, ControlRequestLine
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.json_line import mapping, members, optional, passed_or, text

_QUESTION_TOOL = "AskUserQuestion"


def request_message(event: ControlRequestLine) -> DraftMessage | None:
    """The `approval_request` or `question` of a control request; None for any other request."""
    request = event.request
    questions: list[dict[str, Any]] | None = None
    if request.subtype == "can_use_tool":
        questions = questions_of(request) if request.tool_name == _QUESTION_TOOL else None
        if questions is None:
            return DraftMessage("approval_request", _approval(event.request_id, request))
    elif request.subtype == "elicitation":
        questions = [_elicitation(request)]
    elif request.subtype == "request_user_dialog":
        questions = [_dialog(request)]
    return (
        None
        if questions is None
        else DraftMessage("question", Question(request_id=event.request_id, questions=questions))
    )


def _approval(request_id: str, request: ControlRequest) -> ApprovalRequest:
    return ApprovalRequest(
        request_id=request_id,
        name=request.tool_name or "",
        input=passed_or(request.input, {}),
        tool_use_id=optional(request.tool_use_id),
        suggestions=passed_or(request.permission_suggestions, UNSET),
    )


def questions_of(request: ControlRequest) -> list[dict[str, Any]] | None:
    """The questions of the question tool with the members of the contract; a question's id is its place."""
    found = members(request.input).get("questions")
    if not isinstance(found, list) or not found:
        return None
    return [
        {**mapping(question), **_basics(place, mapping(question).get("header"), mapping(question).get("question"))}
        for place, question in enumerate(found)
    ]


def _elicitation(request: ControlRequest) -> dict[str, Any]:
    extra = {"mode": request.mode, "url": request.url, "requestedSchema": request.requested_schema}
    question = _basics(0, request.mcp_server_name, request.message)
    return question | {name: value for name, value in extra.items() if value is not None}


def _dialog(request: ControlRequest) -> dict[str, Any]:
    payload = mapping(request.payload)
    words = text(payload.get("message")) or text(payload.get("question")) or text(payload.get("title"))
    return _basics(0, request.dialog_kind, words or text(request.dialog_kind)) | {"payload": payload}


def _basics(place: int, header: Any, question: Any) -> dict[str, Any]:
    return {"id": str(place), "header": text(header), "question": text(question)}
