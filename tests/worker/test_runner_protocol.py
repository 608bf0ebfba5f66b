"""The runner protocol: what a runner says of itself beside its agent's lines."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from agentrq.wire.commands import Options
from agentrq.wire.messages import SessionTotal
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.registry import make_parser
from agentrq_worker.providers.runner_protocol import RunnerProtocol


class Talk:
    def __init__(self) -> None:
        make = partial(make_parser, epoch=1)
        self._protocol = RunnerProtocol("s", Options(), "claude", make, SessionTotal())

    def say(self, **line: Any) -> list[DraftMessage]:
        return [said for said in self._protocol.receive(json.dumps(line).encode()) if isinstance(said, DraftMessage)]

    def event(self, **event: Any) -> list[DraftMessage]:
        return self.say(type="agent_event", event=event)

    def call(self) -> list[str]:
        block = {"type": "tool_use", "id": "T1", "name": "Bash", "input": {}}
        return [said.type for said in self.event(type="assistant", message={"id": "m", "content": [block]})]

    def cost(self, so_far: float) -> Any:
        *_, draft = self.event(type="result", subtype="success", is_error=False, total_cost_usd=so_far, num_turns=1)
        return draft.content


def test_a_runner_may_introduce_itself_in_every_turn() -> None:
    talk = Talk()
    assert talk.call() == ["tool_call"]
    assert talk.say(type="agent_started", adapter="claude") == []
    assert talk.call() == []  # the same line once more
    assert talk.cost(0.25).session_total.cost_usd == 0.25
    assert talk.say(type="agent_started", adapter="claude") == []
    assert talk.cost(0.75).session_total.cost_usd == 0.75


def test_another_agent_closes_what_the_one_before_left_open() -> None:
    talk = Talk()
    talk.call()
    assert [said.type for said in talk.say(type="agent_started", adapter="codex")] == ["tool_result"]
    assert talk.say(type="agent_started", adapter="codex") == []
    assert talk.say(type="agent_started", adapter="nobody's") == []
