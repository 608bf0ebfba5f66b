"""Turns the requests of `codex app-server` into approval requests and questions, and answers into results. Pure.

Owns both mappings. Sources: codex-rs/app-server-protocol, `protocol/v2` (item.rs, permissions.rs, mcp.rs).
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Raw

from agentrq.wire.messages import ApprovalRequest, Question
from agentrq_worker.providers.answers import Decision, read_answers, read_decision, read_form
from agentrq_worker.providers.codex.app_wire import Params
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.json_line import list_or_unset, mapping, optional, text, value
from agentrq_worker.providers.protocol import CommandRefused

COMMAND: Final = "item/commandExecution/requestApproval"
CHANGE: Final = "item/fileChange/requestApproval"
PERMISSIONS: Final = "item/permissions/requestApproval"
INPUT: Final = "item/tool/requestUserInput"
ELICITATION: Final = "mcpServer/elicitation/request"
METHODS: Final = (COMMAND, CHANGE, PERMISSIONS, INPUT, ELICITATION)
"""The requests that clients are asked; all others are answered with an error."""

_NAMES: Final = {COMMAND: "command_execution", CHANGE: "file_change", PERMISSIONS: "permissions"}


def asked(method: str, request_id: str, params: Params, changes: Raw | None) -> DraftMessage:
    """The `approval_request` or `question` of a request; ``changes`` are those of the patch it is about."""
    call = _mcp_call(params) if method == ELICITATION else None
    if method == INPUT or (method == ELICITATION and call is None):
        found = params.questions if method == INPUT else [_elicitation(params)]
        return DraftMessage("question", Question(request_id, _questions(found)))
    request = ApprovalRequest(
        request_id=request_id,
        name=_NAMES[method] if call is None else f"mcp__{text(params.server_name)}__{text(call.get('tool_name'))}",
        input=_given(method, params, changes),
        tool_use_id=optional(params.item_id),
        suggestions=list_or_unset(params.available_decisions),
    )
    return DraftMessage("approval_request", request)


def _given(method: str, params: Params, changes: Raw | None) -> dict[str, Any]:
    """The input as plain values, which policies can read."""
    if method == ELICITATION:
        return mapping(mapping(params.meta).get("tool_params"))
    if method == COMMAND:
        found = {"command": value(params.command), "network": value(params.network_approval_context)}
    elif method == CHANGE:
        patches = value(changes) if changes is not None else None
        found = {"changes": patches, "grantRoot": value(params.grant_root)}
        if isinstance(patches, list) and len(patches) == 1:
            found["path"] = mapping(patches[0]).get("path")
    else:
        found = {"permissions": value(params.permissions)}
    found |= {"cwd": value(params.cwd), "reason": value(params.reason)}
    return {name: member for name, member in found.items() if member is not None}


def _questions(found: Any) -> list[Any]:
    questions = found if isinstance(found, list) else []
    return [
        {**question, **{name: text(question.get(name)) for name in ("header", "question")}, "id": _id(question, place)}
        for place, question in enumerate(map(mapping, questions))
    ]


def _id(question: dict[str, Any], place: int) -> str:
    return text(question.get("id")) or str(place)


def _elicitation(params: Params) -> dict[str, Any]:
    extra = {"mode": params.mode, "url": params.url, "requestedSchema": params.requested_schema}
    found = {"id": "0", "header": text(params.server_name), "question": text(params.message)}
    return found | {name: member for name, member in extra.items() if member is not None}


def reply(method: str, params: Params, answer: Any) -> dict[str, Any]:
    """The result that answers a request. Raises `CommandRefused` for an answer that does not fit it."""
    if method == INPUT:
        ids = [question["id"] for question in _questions(params.questions)]
        answers = read_answers(ids, answer) or {name: [] for name in ids}  # it cannot be declined
        return {"answers": {name: {"answers": said} for name, said in answers.items()}}
    call = _mcp_call(params) if method == ELICITATION else None
    if method == ELICITATION and call is None:
        fields = read_form(params.requested_schema, answer)
        return {"action": "accept" if fields is not None else "decline", "content": fields}
    decided = read_decision(answer)
    if decided.changed not in (None, _given(method, params, None)):
        raise CommandRefused("this agent does not support changing the input of a call")
    if call is not None:
        return _mcp_approved(decided)
    if method == PERMISSIONS:
        granted = mapping(value(params.permissions)) if decided.allow else {}
        granted = {name: member for name, member in granted.items() if member is not None}
        return {"permissions": granted, "scope": "session" if decided.always else "turn"}
    return {"decision": _decision(params, decided)}


def withdrawal(method: str, params: Params) -> dict[str, Any]:
    """The result for a request that nobody will answer: the turn is interrupted or over."""
    if method == INPUT:  # it cannot be declined
        return {"answers": {question["id"]: {"answers": []} for question in _questions(params.questions)}}
    if method == PERMISSIONS:
        return {"permissions": {}, "scope": "turn"}
    return {"action": "cancel", "content": None} if method == ELICITATION else {"decision": "cancel"}


def _decision(params: Params, decided: Decision) -> Any:
    if decided.choice is not None:
        offered = value(params.available_decisions)
        if decided.choice not in (offered if isinstance(offered, list) else []):
            raise CommandRefused("the request does not offer this suggestion")
        return decided.choice
    if not decided.allow:
        return "cancel" if decided.interrupt else "decline"
    return "acceptForSession" if decided.always else "accept"


def _mcp_call(params: Params) -> dict[str, Any] | None:
    """What an elicitation says of itself that asks for approval of an MCP server's tool; None for a real one."""
    meta = mapping(params.meta)
    return meta if meta.get("codex_approval_kind") == "mcp_tool_call" else None


def _mcp_approved(decided: Decision) -> dict[str, Any]:
    action = "accept" if decided.allow else "cancel" if decided.interrupt else "decline"
    found: dict[str, Any] = {"action": action, "content": {} if decided.allow else None}
    return found | {"_meta": {"persist": "session"}} if decided.allow and decided.always else found
