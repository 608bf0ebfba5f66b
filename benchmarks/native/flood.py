"""flood.c in Python, for machines without a C compiler (start it with ``python -S``)."""

import json
import os
import sys
import time
from typing import Any

INIT: dict[str, Any] = {
    "type": "system",
    "subtype": "init",
    "cwd": "/",
    "session_id": "1a1fc116",
    "tools": [],
    "model": "m",
}
RESULT: dict[str, Any] = {
    "type": "result",
    "subtype": "success",
    "is_error": False,
    "duration_ms": 1,
    "num_turns": 1,
    "result": "ok",
    "total_cost_usd": 0.001,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


def put(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view[:65536]) :]


def flood(lines: list[bytes], count: int, cycle: int) -> int:
    while count > 0:
        now = b"".join(lines[:count])
        put(now.replace(b"########", b"%08d" % cycle))
        count -= len(lines)
        cycle += 1
    return cycle


def piece(text: str, message: int) -> dict[str, Any]:
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return {"type": "stream_event", "event": event, "session_id": "1a1fc116", "api_message_id": f"msg_{message}"}


def pace(rate: float, seconds: float, message: int = 0) -> None:
    step = int(1e9 / rate)
    due = time.monotonic_ns() + 500_000_000 + os.getpid() * 7919 * 1000003 % step
    for _ in range(int(rate * seconds)):
        time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
        now = time.monotonic_ns()
        if message:
            line = piece(f"{now} some words", message)
        else:
            block = {"type": "text", "text": f"{now} Some words, as an agent says them in passing."}
            whole = {"id": f"msg_{now}", "type": "message", "role": "assistant", "content": [block]}
            line = {"type": "assistant", "message": whole, "session_id": "1a1fc116"}
        put(json.dumps(line).encode() + b"\n")
        due += step


def main() -> None:
    lines: list[bytes] = []
    begun, cycle = False, 0
    for line in sys.stdin:
        said = json.loads(line)
        if said["type"] == "stop":
            return
        if said["type"] != "query":
            continue
        if not begun:
            begun = True
            put(json.dumps(INIT).encode() + b"\n")
        kind, *numbers = said["prompt"].split()
        if kind == "flood":
            if numbers != ["0"] and not lines:
                with open(sys.argv[1], "rb") as file:
                    lines = file.readlines()
            cycle = flood(lines, int(numbers[0]), cycle)
        elif kind == "pace":
            pace(float(numbers[0]), float(numbers[1]))
        elif kind == "stream":
            pace(float(numbers[0]), float(numbers[1]), time.monotonic_ns())
        put(json.dumps(RESULT | {"uuid": str(time.monotonic_ns())}).encode() + b"\n")


main()
