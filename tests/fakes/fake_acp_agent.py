"""A small ACP agent for tests: echoes prompts; keeps its sessions in files of the directory ``FAKE_ACP_HOME``.

Words in the prompt: ``ask`` requests a permission, ``wait`` works until it is cancelled, ``read`` asks the client for a
file (which it does not offer), ``fail`` answers with an error, ``tell NAME [and die]`` says a variable, ``form`` asks a
question and ``cross`` a permission just after it was cancelled (both end the turn with what the client answered),
``late`` goes on speaking after its answer. A mode named ``forbidden`` is refused; with ``FAKE_ACP_MUTE`` it answers
nothing at all.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

HOME = Path(os.environ["FAKE_ACP_HOME"])
MODES = {"currentModeId": "default", "availableModes": [{"id": name} for name in ("default", "yolo", "forbidden")]}
ids = itertools.count()
answers: dict[Any, Any] = {}
news = threading.Condition()
cancelled = threading.Event()


def send(**members: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **members}) + "\n")
    sys.stdout.flush()


def update(session: str, what: str, /, **members: Any) -> None:
    send(method="session/update", params={"sessionId": session, "update": {"sessionUpdate": what, **members}})


def ask(method: str, params: Any) -> Any:
    number = next(ids)
    send(id=number, method=method, params=params)
    with news:
        news.wait_for(lambda: number in answers)
        return answers[number]


def say(session: str, text: str, kind: str = "agent_message_chunk") -> None:
    for at in range(0, len(text), 8):
        update(session, kind, content={"type": "text", "text": text[at : at + 8]}, messageId="m")


def prompt(request: dict[str, Any]) -> None:
    session = request["params"]["sessionId"]
    words = "".join(block["text"] for block in request["params"]["prompt"])
    history = HOME / session
    before = history.read_text().splitlines() if history.exists() else []
    history.write_text("\n".join([*before, words]))
    if words == "fail":
        send(id=request["id"], error={"code": -32603, "message": "Internal error", "data": {"details": "no model"}})
        return
    reason = "end_turn"
    tool = {"toolCallId": f"t{len(before)}", "title": "touch x", "kind": "execute", "rawInput": {"command": "touch x"}}
    options = [
        {"optionId": "y", "name": "Yes", "kind": "allow_once"},
        {"optionId": "n", "name": "No", "kind": "reject_once"},
    ]
    if words == "ask":
        outcome = ask("session/request_permission", {"sessionId": session, "toolCall": tool, "options": options})
        allowed = outcome["result"]["outcome"].get("optionId") == "y"
        update(session, "tool_call_update", toolCallId=tool["toolCallId"], status="completed" if allowed else "failed")
    elif words == "form":
        schema = {"type": "object", "properties": {"port": {"type": "integer"}}}
        form = {"sessionId": session, "mode": "form", "message": "Which port?", "requestedSchema": schema}
        say(session, json.dumps(ask("elicitation/create", form)["result"]))
        reason = "cancelled"
    elif words == "cross":
        update(session, "tool_call", status="in_progress", **tool)
        cancelled.wait()
        cancelled.clear()
        outcome = ask("session/request_permission", {"sessionId": session, "toolCall": tool, "options": options})
        say(session, json.dumps(outcome["result"]))
        reason = "cancelled"
    elif words == "read":
        error = ask("fs/read_text_file", {"sessionId": session, "path": "/etc/hostname"})["error"]
        say(session, f"refused with {error['code']}")
    elif words.startswith("tell "):
        say(session, f"{words.split()[1]} is {os.environ[words.split()[1]]}, as you asked.")
        if words.endswith(" and die"):
            os._exit(1)
    elif words == "wait":
        update(session, "tool_call", status="in_progress", **tool)
        cancelled.wait()
        cancelled.clear()
        reason = "cancelled"
    else:
        say(session, "thinking", "agent_thought_chunk")
        say(session, f"You said {words!r} after {len(before)} others.")
    update(session, "usage_update", used=1, size=10, cost={"amount": 0.25 * (len(before) + 1), "currency": "USD"})
    send(id=request["id"], result={"stopReason": reason, "usage": {"inputTokens": 10, "outputTokens": 2}})
    if words == "late":
        say(session, "And this came late.")


def handle(request: dict[str, Any]) -> None:
    method, params = request.get("method"), request.get("params") or {}
    if method is None:
        with news:
            answers[request["id"]] = request
            news.notify_all()
    elif method == "initialize":
        send(
            id=request["id"],
            result={"protocolVersion": 1, "agentCapabilities": {"loadSession": True}, "authMethods": []},
        )
    elif method == "session/new":
        session = f"acp-{os.getpid()}"
        send(id=request["id"], result={"sessionId": session, "modes": MODES})
    elif method == "session/load":
        for words in (HOME / params["sessionId"]).read_text().splitlines():
            say(params["sessionId"], f"history: {words}")
        send(id=request["id"], result={"modes": MODES})
    elif method == "session/prompt":
        threading.Thread(target=prompt, args=(request,), daemon=True).start()
    elif method == "session/set_mode" and params["modeId"] == "forbidden":
        send(id=request["id"], error={"code": -32602, "message": "this mode is forbidden here"})
    elif method == "session/cancel":
        cancelled.set()
    else:
        send(id=request["id"], result={})


if __name__ == "__main__":
    for line in sys.stdin:
        if "FAKE_ACP_MUTE" in os.environ:
            continue
        handle(json.loads(line))
