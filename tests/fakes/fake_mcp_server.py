"""An MCP server (stdio) with one tool, ``ask``, which elicits a form of one field from the user and says what came."""

from __future__ import annotations

import json
import sys
from typing import Any

FORM = {"type": "object", "properties": {"colour": {"type": "string", "title": "Colour"}}, "required": ["colour"]}
TOOL = {"name": "ask", "description": "Asks the user.", "inputSchema": {"type": "object", "properties": {}}}


def put(**message: Any) -> None:
    print(json.dumps({"jsonrpc": "2.0"} | message), flush=True)


def read() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    message: dict[str, Any] = json.loads(line)
    return message


def called() -> str:
    put(id="e1", method="elicitation/create", params={"message": "Which colour?", "requestedSchema": FORM})
    while True:
        message = read()
        if message.get("id") == "e1":
            return json.dumps(message.get("result", message.get("error")))


while True:
    message = read()
    method, number = message.get("method"), message.get("id")
    if method == "initialize":
        version = message["params"]["protocolVersion"]
        about = {"name": "asker", "version": "1"}
        put(id=number, result={"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about})
    elif method == "tools/list":
        put(id=number, result={"tools": [TOOL]})
    elif method == "tools/call":
        put(id=number, result={"content": [{"type": "text", "text": called()}]})
    elif number is not None:
        put(id=number, result={})
