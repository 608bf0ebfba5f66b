"""What an AG-UI client posts (`RunAgentInput`), read: the last message, and the answers of ``resume``. Does no IO.

The session has its own conversation, tools and state: of what is posted only the last message, if it is the user's, and
``resume`` count; ``forwardedProps`` may name the provider, options and mode.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from agentrq_gateway.protocols.posted import Answer, InvalidPost, Posted, make_command_id, read_start

_OWN_ID: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")
"""A message id that can be the id of its command: a snapshot then has the message under its client's id."""


def read_ids(body: dict[str, Any]) -> tuple[str, str]:
    """The thread's and the run's id of an input. Raises `InvalidPost`."""
    for name in ("threadId", "runId"):
        if not isinstance(body.get(name), str) or not 0 < len(body[name]) <= 200:
            raise InvalidPost(name, "Expected a text of 1 to 200 characters")
    return body["threadId"], body["runId"]


def read_input(body: dict[str, Any], requests: Mapping[str, str]) -> Posted:
    """What an input asks for; ``requests`` are those of the session that wait, each with its kind (`StateRequest`).

    Raises `InvalidPost`.
    """
    messages, resume, props = body.get("messages"), body.get("resume"), body.get("forwardedProps")
    if not isinstance(messages, list) or any(not isinstance(message, dict) for message in messages):
        raise InvalidPost("messages", "Expected a list of messages")
    if resume is not None and not isinstance(resume, list):
        raise InvalidPost("resume", "Expected a list of answers")
    answers = tuple(_answer(entry, requests) for entry in resume or [] if _names(entry) in requests)
    start = read_start(props if isinstance(props, dict) else {})
    last = messages[-1] if messages else {}
    if last.get("role") != "user" or resume:
        return Posted(answers=answers, asked=frozenset(map(_names, resume or [])), **start)
    text = _text(last.get("content"))
    given = last.get("id")
    own = isinstance(given, str) and _OWN_ID.fullmatch(given) is not None
    return Posted(text, str(given) if own else make_command_id(given, text), answers, **start)


def _text(content: Any) -> str:
    if isinstance(content, list):
        if any(not isinstance(part, dict) or part.get("type") != "text" for part in content):
            raise InvalidPost("messages", "Only text can be sent: put files where the agent works, and name them")
        content = "\n\n".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str) or not content:
        raise InvalidPost("messages", "The last message has no text")
    return content


def _names(entry: Any) -> str:
    found = entry.get("interruptId") if isinstance(entry, dict) else None
    if not isinstance(found, str):
        raise InvalidPost("resume", "Each answer needs the interruptId that it is for")
    return found


def _answer(entry: dict[str, Any], requests: Mapping[str, str]) -> Answer:
    request, payload = _names(entry), entry.get("payload")
    if entry.get("status") == "cancelled":
        answer: Any = "deny"
    elif entry.get("status") != "resolved":
        raise InvalidPost("resume", "status: expected resolved or cancelled")
    elif requests[request] == "question":
        answer = payload
    else:
        answer = _decision(payload)
    return Answer(request, answer, make_command_id(request, answer))


def _decision(payload: Any) -> Any:
    """The answer to an approval: as `APPROVAL_SCHEMA` has it, or as the session takes it itself."""
    if isinstance(payload, bool):
        return "allow" if payload else "deny"
    if payload in ("allow", "deny"):
        return payload
    if isinstance(payload, dict) and payload.get("decision") in ("allow", "deny"):
        return payload
    if not isinstance(payload, dict) or not isinstance(payload.get("approved"), bool):
        raise InvalidPost("resume", 'payload: expected {"approved": true or false}')
    answer: dict[str, Any] = {"decision": "allow" if payload["approved"] else "deny"}
    if not payload["approved"] and isinstance(payload.get("reason"), str):
        answer["message"] = payload["reason"]
    if payload["approved"] and isinstance(payload.get("editedArgs"), dict):
        answer["input"] = payload["editedArgs"]
    return answer
