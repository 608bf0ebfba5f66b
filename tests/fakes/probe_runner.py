"""A runner that does what its prompt says: the prompt is Python. What it hands to ``say`` becomes a text message.

For attacks: it looks at, and reaches for, whatever a real agent could.
"""

from __future__ import annotations

import itertools
import json
import sys
import traceback
from typing import Any

_numbers = itertools.count()


def put(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"type": "agent_event", "event": value}) + "\n")
    sys.stdout.flush()


def say(text: object) -> None:
    put(
        {
            "type": "assistant",
            "message": {
                "id": f"m{next(_numbers)}",
                "role": "assistant",
                "content": [{"type": "text", "text": str(text)}],
            },
        }
    )


def result() -> None:
    """The turn's end."""
    put({"type": "result", "subtype": "success", "is_error": False, "duration_ms": 1, "num_turns": 1, "result": "",
         "total_cost_usd": 0.0, "usage": {"input_tokens": 1, "output_tokens": 1}})  # fmt: skip


def main() -> None:
    for line in sys.stdin:
        given = json.loads(line)
        if given["type"] == "stop":
            return
        if given["type"] != "query":
            continue
        sys.stdout.write('{"type":"agent_started"}\n')
        try:
            exec(given["prompt"], {"say": say, "put": put, "result": result, "given": given})
        except BaseException as error:  # noqa: BLE001 - whatever it tried
            say(f"{type(error).__name__}: {error}")
            traceback.print_exc()
        result()


main()
