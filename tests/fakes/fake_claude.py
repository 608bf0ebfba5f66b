"""A program that speaks Claude Code's stream-json both ways, for tests of approvals and recovery without npm.

A prompt ``ask COMMAND`` asks permission for a Bash call and says what it was told, as does ``Delete …``; the word to
continue asks for the last command again; ``say TEXT`` says it; ``work`` works until it is interrupted. What it asked
last is kept in ``$FAKE_CLAUDE_DIR/<session id>``, so that ``--resume`` goes on where a killed one was.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

HERE = Path(os.environ.get("FAKE_CLAUDE_DIR", "."))
SESSION = sys.argv[sys.argv.index("--resume") + 1] if "--resume" in sys.argv else str(uuid.uuid4())
turns = 0


def put(**event: Any) -> None:
    print(json.dumps({"session_id": SESSION, "uuid": str(uuid.uuid4())} | event), flush=True)


def say(block: dict[str, Any]) -> None:
    message = {"id": f"msg_{uuid.uuid4().hex}", "role": "assistant", "content": [block]}
    put(type="assistant", message=message, parent_tool_use_id=None)


def read() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    event: dict[str, Any] = json.loads(line)
    if event.get("type") == "control_request" and event["request"]["subtype"] != "interrupt":
        respond(event)
        return read()
    return event


def respond(request: dict[str, Any]) -> None:
    put(type="control_response", response={"subtype": "success", "request_id": request["request_id"], "response": {}})


def ask(command: str) -> None:
    (HERE / SESSION).write_text(command)
    call, request = f"toolu_{uuid.uuid4().hex}", str(uuid.uuid4())
    say({"type": "tool_use", "id": call, "name": "Bash", "input": {"command": command}})
    wanted = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {"command": command}, "tool_use_id": call}
    put(type="control_request", request_id=request, request=wanted)
    while True:
        event = read()
        if event.get("type") == "control_response" and event["response"]["request_id"] == request:
            told = event["response"]["response"]
            break
        if event.get("type") == "control_request":
            respond(event)
            put(type="control_cancel_request", request_id=request)
            told = {"behavior": "deny", "message": "interrupted"}
            break
    allowed = told["behavior"] == "allow"
    output = f"ran {told['updatedInput']['command']}" if allowed else told.get("message", "denied")
    result = {"type": "tool_result", "tool_use_id": call, "content": output, "is_error": not allowed}
    put(type="user", message={"role": "user", "content": [result]}, parent_tool_use_id=None)
    say({"type": "text", "text": output})


def work() -> bool:
    event = read()
    if event.get("type") == "control_request":
        respond(event)
        return False
    say({"type": "text", "text": f"meanwhile: {event['message']['content']}"})
    return True


def turn(prompt: str) -> None:
    global turns
    turns += 1
    put(type="system", subtype="init", cwd=os.getcwd(), tools=["Bash"], model="fake", permissionMode="default")
    if prompt.startswith("You were interrupted"):
        ask((HERE / SESSION).read_text())
    elif prompt.startswith("ask "):
        ask(prompt[4:])
    elif prompt.startswith("Delete "):
        ask("rm -r build")
    elif prompt == "work":
        while work():
            pass
    else:
        say({"type": "text", "text": prompt.removeprefix("say ")})
    figures = {"num_turns": 1, "total_cost_usd": 0.01 * turns, "usage": {"input_tokens": 1, "output_tokens": 1}}
    put(type="result", subtype="success", is_error=False, result="", duration_ms=1, **figures)


while True:
    said = read()
    if said.get("type") == "user":
        content = said["message"]["content"]
        turn(content if isinstance(content, str) else content[0]["text"])
    elif said.get("type") == "control_request":
        respond(said)
