"""Lines as two built-in runners write them, made by hand: there are no recordings of these agents."""

from __future__ import annotations

import json
from typing import Any


def _lines(*objects: dict[str, Any]) -> list[bytes]:
    return [json.dumps(found).encode() for found in objects]


def chunk(**message: Any) -> dict[str, Any]:
    return {"model": "m", "created_at": "2026-11-22T06:31:30Z", "message": {"role": "assistant", **message}}


DONE = {
    "model": "m",
    "message": {"role": "assistant", "content": ""},
    "done": True,
    "done_reason": "stop",
    "total_duration": 1_500_000_000,
    "prompt_eval_count": 26,
    "eval_count": 8,
}
OLLAMA = _lines(
    {"type": "init", "session_id": "s1", "model": "m", "cwd": "/srv/work"},
    chunk(content="", thinking="Let me "),
    chunk(content="", thinking="think."),
    chunk(content="The answer "),
    chunk(content="is 42."),
    chunk(content="", tool_calls=[{"id": "c1", "function": {"name": "ls", "arguments": {"path": "."}}}]),
    DONE,
    chunk(content="Half of"),
    {"error": "model runner has stopped"},
    {"type": "notice", "code": "not_resumed", "message": "a new conversation begins"},
)
AIDER = _lines(
    {"type": "init", "session_id": "s1", "model": "gpt-5", "cwd": "/srv/work"},
    {"type": "line", "text": "Aider v0.90.1", "own": True},
    {"type": "line", "text": "Main model: gpt-5 with diff edit format", "own": True},
    {"type": "line", "text": ""},
    {"type": "line", "text": "I will add the function."},
    {"type": "line", "text": ""},
    {"type": "line", "text": "hello.py"},
    {"type": "line", "text": "Tokens: 2.1k sent, 310 received. Cost: $0.01 message, $0.05 session.", "own": True},
    {"type": "line", "text": "Applied edit to hello.py", "own": True},
    {"type": "line", "text": "Commit 1a2b3c4 feat: Add hello", "own": True},
    {"type": "analytics", "event": "message_send", "properties": {"prompt_tokens": 2113, "completion_tokens": 310,
                                                                   "cost": 0.0123}},
    {"type": "exit", "code": 0, "duration_ms": 1200},
)  # fmt: skip
MADE = {"ollama": OLLAMA, "aider": AIDER}
