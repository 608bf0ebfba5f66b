"""What a turn cost, by what its agent told, and what an agent has told of a turn that is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentrq_worker.providers.claude.parser import ClaudeParser
from agentrq_worker.providers.parser import Spent
from agentrq_worker.session.turn_cost import cost_of


@pytest.mark.parametrize(("spent", "model", "free", "told", "basis", "nano_usd"), [
    (Spent(0.0123456789, 5, 5), "m", False, True, "reported", 12_345_679),
    (Spent(0.5, 5, 5), "m", True, True, "reported", 500_000_000),
    (Spent(0.0, 1_000_000, 1_000_000), "gpt-5-codex", False, True, "priced", 11_250_000_000),
    (Spent(0.0, 1, 0), "claude-sonnet-4-5-20250929", False, False, "priced", 3000),
    (Spent(0.0, 5, 5), "m", True, True, "free", 0),
    (Spent(0.0, 0, 0), "m", True, False, "free", 0),
    (Spent(0.0, 5, 5), "m", False, True, "unknown", None),
    (Spent(0.0, 5, 5), None, False, True, "unknown", None),
    (Spent(0.0, 0, 0), "gpt-5", False, True, "reported", 0),
    (Spent(0.0, 0, 0), "gpt-5", False, False, "unknown", None),
    (Spent(9e9, 0, 0), "gpt-5", False, False, "unknown", None),
])  # fmt: skip
def test_each_cost_has_its_basis(
    spent: Spent, model: str | None, free: bool, told: bool, basis: str, nano_usd: int | None
) -> None:
    assert cost_of(spent, model, free=free, told=told) == (basis, nano_usd)


def line(**members: Any) -> bytes:
    return json.dumps(members).encode() + b"\n"


def test_claude_has_told_the_tokens_of_each_message_of_the_turn_once() -> None:
    parser = ClaudeParser()

    def say(message_id: str, tokens: Any) -> None:
        block = {"type": "text", "text": "x"}
        parser.receive(line(type="assistant", message={"id": message_id, "content": [block], "usage": tokens}))

    say("a", {"input_tokens": 10, "output_tokens": 1})
    say("a", {"input_tokens": 10, "output_tokens": 1})
    say("b", {"input_tokens": 20, "output_tokens": 2})
    say("c", "no object")
    assert parser.spent() == Spent(0.0, 30, 3)
    parser.receive(line(type="result", subtype="success", is_error=False, total_cost_usd=1, usage={}))
    assert parser.spent() == Spent()
    say("b", {"input_tokens": 4, "output_tokens": 0})
    assert parser.spent() == Spent(0.0, 4, 0)
