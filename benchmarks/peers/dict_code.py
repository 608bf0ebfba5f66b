"""Claude's lines to messages the plain way: decode to dicts, build dicts, encode. For json and for orjson."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class Normaliser:
    """Lines of one session to messages; the codec is given."""

    def __init__(self, session_id: str, loads: Callable[[bytes], Any], dumps: Callable[[Any], bytes]) -> None:
        self._session_id = session_id
        self._loads = loads
        self._dumps = dumps
        self._seq = 0
        self._offset = 0
        self._block = ""

    def line(self, line: bytes) -> list[tuple[str, bytes]]:
        """Type and JSON of each message that a line brings."""
        event = self._loads(line)
        kind = event["type"]
        parent = event.get("parent_tool_use_id")
        if kind == "stream_event":
            inner = event["event"]
            delta = inner.get("delta")
            if delta is None or delta["type"] != "text_delta":
                return []
            block = f"{event['api_message_id']}:{inner['index']}"
            if block != self._block:
                self._block, self._offset = block, 0
            text = delta["text"]
            content = {"text": text, "blockId": block, "offset": self._offset}
            self._offset += len(text)
            return [self._message("text_delta", content, parent)]
        if kind == "assistant" or kind == "user":
            found = []
            for block in event["message"]["content"]:
                of = block["type"]
                if of == "text":
                    found.append(self._message("text", {"text": block["text"]}, parent))
                elif of == "tool_use":
                    content = {"toolUseId": block["id"], "name": block["name"], "input": block["input"]}
                    found.append(self._message("tool_call", content, parent))
                elif of == "tool_result":
                    content = {"toolUseId": block["tool_use_id"], "output": block["content"],
                               "isError": block.get("is_error", False)}  # fmt: skip
                    found.append(self._message("tool_result", content, parent))
            return found
        if kind == "result":
            content = {"totalCostUsd": event["total_cost_usd"], "durationMs": event["duration_ms"],
                       "isError": event["is_error"], "numTurns": event["num_turns"]}  # fmt: skip
            return [self._message("cost", content, None)]
        if kind == "system":
            return [self._message("init", {"model": event["model"], "cwd": event["cwd"]}, None)]
        return [self._message("unknown", event, None)]

    def _message(self, kind: str, content: Any, parent: str | None) -> tuple[str, bytes]:
        self._seq += 1
        message: dict[str, Any] = {
            "cursor": f"1-{self._seq}",
            "sessionId": self._session_id,
            "id": f"1-{self._seq}",
            "type": kind,
        }
        if parent is not None:
            message["parentId"] = parent
        message["timestamp"] = time.time_ns() // 1_000_000
        message["content"] = content
        return kind, self._dumps(message)
