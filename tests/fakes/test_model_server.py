"""The scripted model itself: each API says what the script has, in order, and fails as told."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.fakes.model_server import ModelServer

SHELL = {"name": "Bash"}
REQUESTS: dict[str, tuple[str, Any, Any]] = {
    "anthropic": (
        "/v1/messages",
        lambda text: {"messages": [{"role": "user", "content": text}], "tools": [SHELL], "stream": True},
        {"role": "assistant", "content": [{"type": "tool_use", "name": "Bash", "input": {}}]},
    ),
    "responses": (
        "/v1/responses",
        lambda text: {"input": [{"role": "user", "content": [{"type": "input_text", "text": text}]}], "tools": [SHELL]},
        {"type": "function_call", "name": "Bash", "arguments": "{}"},
    ),
    "gemini": (
        "/v1beta/models/m:streamGenerateContent?alt=sse",
        lambda text: {
            "contents": [{"role": "user", "parts": [{"text": text}]}], "tools": [{"functionDeclarations": [SHELL]}]
        },
        {"role": "model", "parts": [{"functionCall": {"name": "Bash", "args": {}}}]},
    ),
    "ollama": (
        "/api/chat",
        lambda text: {"messages": [{"role": "user", "content": text}], "tools": [{"function": SHELL}]},
        {"role": "assistant", "content": "", "tool_calls": []},
    ),
}  # fmt: skip


def ask(model: ModelServer, path: str, body: Any) -> list[Any]:
    """The JSON of an answer's lines."""
    request = urllib.request.Request(model.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line and not line.startswith("event:")]


@pytest.mark.parametrize("name", REQUESTS)
def test_the_scripted_model_plays_its_script(name: str) -> None:
    path, make, called = REQUESTS[name]
    with ModelServer() as model:
        body = make("go [[error:529*1]] [[bash:echo hi]] [[text:all done now]] [[error:401]]")
        with pytest.raises(urllib.error.HTTPError) as failed:
            ask(model, path, body)
        failed.value.close()
        assert failed.value.code == 529
        assert "echo hi" in json.dumps(ask(model, path, body))
        history = next(body[key] for key in ("messages", "input", "contents") if key in body)
        history.append(called)
        said = json.dumps(ask(model, path, body))
        assert "all done now"[:12] in said
        history.append(called)
        with pytest.raises(urllib.error.HTTPError) as denied:
            ask(model, path, body)
        denied.value.close()
        assert denied.value.code == 401
        assert len(model.requests) == 4


@pytest.mark.parametrize("name", REQUESTS)
def test_the_scripted_model_thinks_and_writes_huge_texts(name: str) -> None:
    path, make, _ = REQUESTS[name]
    with ModelServer() as model:
        said = json.dumps(ask(model, path, make("[[think:deep]]")))
        assert "deep" in said
        assert said.index("deep") < said.index("Thought")
        pieces = json.dumps(ask(model, path, make("[[huge:200000]]")))
        assert pieces.count("huge text ") >= 19_990
