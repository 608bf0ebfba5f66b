"""What a chat of Vercel AI SDK posts, read: the message that is new, and answers in the messages before it.

The whole conversation is posted each time; the session has its own, so only the last message's text and what was
answered count. Does no IO.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from agentrq_gateway.protocols.posted import Answer, InvalidPost, Posted, make_command_id, read_start
from agentrq_gateway.protocols.ui_stream import QUESTION_TOOL


def read_post(chat_id: str, body: dict[str, Any], open_requests: Collection[str]) -> Posted:
    """What a posted body asks for; ``open_requests`` are the requests of the session that wait.

    Raises `InvalidPost`.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidPost("messages", "Expected the messages of the chat")
    if any(not isinstance(message, dict) or not isinstance(message.get("parts"), list) for message in messages):
        raise InvalidPost("messages", "Expected UI messages, each with its parts")
    if body.get("trigger") == "regenerate-message":
        raise InvalidPost("trigger", "A session cannot take back what it did: send a message instead")
    answers = tuple(_answers(chat_id, messages, open_requests))
    start = read_start(body)
    last = messages[-1]
    if last.get("role") != "user":
        asked = frozenset(found[0] for part in last["parts"] if isinstance(part, dict) and (found := _answer(part)))
        return Posted(answers=answers, asked=asked, **start)
    text = _text(last["parts"])
    return Posted(text, make_command_id(chat_id, last.get("id"), text), answers, **start)


def _text(parts: list[Any]) -> str:
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "file":
            raise InvalidPost("messages", "Files cannot be sent: put them where the agent works, and name them")
    text = "\n\n".join(texts)
    if not text:
        raise InvalidPost("messages", "The last message has no text")
    return text


def _answers(chat_id: str, messages: list[Any], open_requests: Collection[str]) -> Iterator[Answer]:
    answered: set[str] = set()
    for message in messages:
        if message.get("role") != "assistant":
            continue
        for part in message["parts"]:
            found = _answer(part) if isinstance(part, dict) else None
            if found is not None and found[0] in open_requests and found[0] not in answered:
                answered.add(found[0])
                yield Answer(*found, make_command_id(chat_id, *found))


def _answer(part: dict[str, Any]) -> tuple[str, Any] | None:
    approval = part.get("approval")
    if part.get("state") == "approval-responded" and isinstance(approval, dict):
        request = approval.get("id")
        if not isinstance(request, str) or not isinstance(approval.get("approved"), bool):
            return None
        answer = {"decision": "allow" if approval["approved"] else "deny"}
        if not approval["approved"] and isinstance(approval.get("reason"), str):
            answer["message"] = approval["reason"]
        return request, answer
    is_question = QUESTION_TOOL in (part.get("toolName"), str(part.get("type")).removeprefix("tool-"))
    if is_question and isinstance(part.get("toolCallId"), str):
        if part.get("state") == "output-available":
            return part["toolCallId"], part.get("output")
        if part.get("state") == "output-error":
            return part["toolCallId"], "deny"
    return None
