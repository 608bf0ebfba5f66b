"""A runner that keeps a diary: each prompt is written down when it is read, before anything else is done.

``$DIARY_DIR/<session id>`` gets a line ``[prompt, monotonic ns, process id]`` a prompt. The prompt's last word, where
it is a number, is how many seconds the turn takes. ``mute`` is read and never answered.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

HERE = os.environ["DIARY_DIR"]


def put(*events: dict[str, Any]) -> None:
    sys.stdout.write("".join(json.dumps(event) + "\n" for event in events))
    sys.stdout.flush()


def write_down(session_id: str, prompt: str) -> None:
    entry = json.dumps([prompt, time.monotonic_ns(), os.getpid()]) + "\n"
    file = os.open(f"{HERE}/{session_id}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, entry.encode())
    os.close(file)


def turn(prompt: str) -> None:
    put({"type": "agent_started"})
    try:
        time.sleep(float(prompt.rsplit(maxsplit=1)[-1]))
    except ValueError:
        pass
    message = {"id": f"m{time.monotonic_ns()}", "content": [{"type": "text", "text": prompt}]}
    figures = {"num_turns": 1, "total_cost_usd": 0, "usage": {"input_tokens": 1, "output_tokens": 1}}
    put(
        {"type": "assistant", "message": message, "parent_tool_use_id": None},
        {"type": "result", "subtype": "success", "is_error": False, "duration_ms": 1, **figures},
    )


for line in sys.stdin.buffer:
    said = json.loads(line)
    if said["type"] == "stop":
        put({"type": "agent_stopped"})
        break
    if said["type"] == "query":
        write_down(said["sessionId"], said["prompt"])
        if said["prompt"] != "mute":
            turn(said["prompt"])
