"""What AG-UI's client does with events, in Python: what `verifyEvents` refuses, and the messages that it makes.

Rules of the npm package `@ag-ui/client` 1.0: `verify.ts` and `apply/default.ts`. The package itself is run by
test_front_end_clients.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Thread:
    """A thread as the client has it, over one run or several."""

    def __init__(self) -> None:
        self.messages: dict[str, dict[str, Any]] = {}
        self.outcome: dict[str, Any] | None = None
        self.error: str | None = None

    def read(self, events: Iterable[dict[str, Any]], whole: bool = True) -> Thread:
        """One run, from its start; ``whole``: to its end."""
        open_now: set[tuple[str, str]] = set()
        over = started = False
        for event in events:
            assert not over, event
            kind = event["type"]
            assert started or kind in ("RUN_STARTED", "RUN_ERROR")
            started = True
            about = kind.rpartition("_")[0], event.get("messageId") or event.get("toolCallId") or ""
            if kind in ("TEXT_MESSAGE_START", "REASONING_MESSAGE_START", "REASONING_START", "TOOL_CALL_START"):
                assert about not in open_now
                open_now.add(about)
            elif kind.endswith(("_CONTENT", "_ARGS")):
                assert about in open_now, event
            elif kind.endswith("_END"):
                open_now.remove(about)
            elif kind in ("RUN_FINISHED", "RUN_ERROR"):
                assert kind == "RUN_ERROR" or not open_now
                over = True
            self._apply(kind, event)
        assert over or not whole
        return self

    def _apply(self, kind: str, event: dict[str, Any]) -> None:
        message, delta = event.get("messageId", ""), event.get("delta", "")
        if kind in ("TEXT_MESSAGE_START", "REASONING_MESSAGE_START"):
            self.messages.setdefault(message, {"role": event["role"], "content": ""})
        elif kind in ("TEXT_MESSAGE_CONTENT", "REASONING_MESSAGE_CONTENT"):
            self.messages[message]["content"] += delta
        elif kind == "TOOL_CALL_START":
            call = {"name": event["toolCallName"], "arguments": ""}
            self.messages.setdefault(event["toolCallId"], {"role": "assistant", "call": call})
        elif kind == "TOOL_CALL_ARGS":
            self.messages[event["toolCallId"]]["call"]["arguments"] += delta
        elif kind == "TOOL_CALL_RESULT":
            self.messages[message] = {"role": "tool", "content": event["content"], "of": event["toolCallId"]}
        elif kind == "MESSAGES_SNAPSHOT":
            self.messages = {each["id"]: _from_snapshot(each) for each in event["messages"]}
        elif kind == "RUN_FINISHED":
            self.outcome = event["outcome"]
        elif kind == "RUN_ERROR":
            self.error = event["message"]


def _from_snapshot(message: dict[str, Any]) -> dict[str, Any]:
    if "toolCalls" in message:
        return {"role": "assistant", "call": message["toolCalls"][0]["function"]}
    if message["role"] == "tool":
        return {"role": "tool", "content": message["content"], "of": message["toolCallId"]}
    return {"role": message["role"], "content": message["content"]}
