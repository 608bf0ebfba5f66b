"""What an ACP agent asks of its client: permissions and forms, and the shapes of their answers. Pure.

Owns both mappings. Source: agentclientprotocol.com, schema v1.
"""

from __future__ import annotations

from typing import Any, Final

from agentrq.wire.messages import ApprovalRequest, Question
from agentrq_worker.providers.acp.tool_calls import Call
from agentrq_worker.providers.acp.wire import Params
from agentrq_worker.providers.answers import Decision, read_decision, read_form
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.json_line import list_or_unset, mapping, text, value
from agentrq_worker.providers.protocol import CommandRefused

PERMISSION: Final = "session/request_permission"
ELICITATION: Final = "elicitation/create"
_CANCELLED: Final = {"outcome": {"outcome": "cancelled"}}

_KINDS: Final = {
    (True, False): ("allow_once", "allow_always"),
    (True, True): ("allow_always", "allow_once"),
    (False, False): ("reject_once", "reject_always"),
    (False, True): ("reject_always", "reject_once"),
}
"""The kinds of option that mean (allow, always), the best first."""


def permission(request_id: str, call: Call, tool_use_id: str, params: Params) -> DraftMessage:
    """The `approval_request` of a permission request; its suggestions are the agent's options."""
    request = ApprovalRequest(
        request_id=request_id,
        name=call.name,
        input=call.asked(),
        tool_use_id=tool_use_id,
        suggestions=list_or_unset(params.options),
    )
    return DraftMessage("approval_request", request, call.parent)


def elicitation(request_id: str, params: Params) -> DraftMessage:
    """The `question` of an elicitation."""
    extra = {"mode": params.mode, "url": params.url, "requestedSchema": params.requested_schema}
    question = {"id": "0", "header": "", "question": text(params.message)}
    question |= {name: member for name, member in extra.items() if member is not None}
    return DraftMessage("question", Question(request_id, [question]))


def reply(method: str, params: Params, answer: Any) -> dict[str, Any]:
    """The result that answers a request. Raises `CommandRefused` for an answer that does not fit it."""
    if method == ELICITATION:
        fields = read_form(params.requested_schema, answer)
        return {"action": "decline"} if fields is None else {"action": "accept", "content": fields}
    decided = read_decision(answer)
    if not _unchanged(decided.changed, params):
        raise CommandRefused("an ACP agent does not accept a changed input")
    if decided.interrupt:
        return _CANCELLED
    found = value(params.options)
    options = [mapping(option) for option in found] if isinstance(found, list) else []
    return {"outcome": {"outcome": "selected", "optionId": _option(options, decided)}}


def withdrawal(method: str) -> dict[str, Any]:
    """The result for a request that nobody will answer: the turn is cancelled or over."""
    return {"action": "cancel"} if method == ELICITATION else _CANCELLED


def _unchanged(given: Any, params: Params) -> bool:
    """Whether the input in an answer is the one that clients were shown."""
    if given is None or params.tool_call is None:
        return given is None
    call = Call()
    call.update(params.tool_call)
    return bool(given == call.asked())


def _option(options: list[dict[str, Any]], decided: Decision) -> Any:
    if decided.choice is not None:
        chosen = mapping(decided.choice).get("optionId", decided.choice)
        if chosen not in [option.get("optionId") for option in options]:
            raise CommandRefused("the agent did not offer this suggestion")
        return chosen
    for kind in _KINDS[decided.allow, decided.always]:
        for option in options:
            if option.get("kind") == kind:
                return option.get("optionId")
    raise CommandRefused(f"the agent offers no option that means {'allow' if decided.allow else 'deny'}")
