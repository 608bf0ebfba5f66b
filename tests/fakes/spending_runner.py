"""A runner whose turns cost money: 0.25 US dollars, 1000 tokens in, 200 out."""

from __future__ import annotations

import json
import sys
from typing import Any


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def event(**event: Any) -> None:
    say(type="agent_event", event=event)


say(type="ready")
spent = 0.0
for line in sys.stdin:
    given = json.loads(line)
    if given["type"] == "stop":
        say(type="agent_stopped")
        break
    if given["type"] == "query":
        spent += 0.25
        say(type="agent_started", adapter="claude")
        event(type="system", subtype="init", session_id="s", model="dear-1", cwd="/", tools=[])
        event(type="result", subtype="success", is_error=False, num_turns=1, duration_ms=1, total_cost_usd=spent,
              usage={"input_tokens": 1000, "output_tokens": 200})  # fmt: skip
