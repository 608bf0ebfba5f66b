"""What type checkers know of a user's program: the content of a message, by the message's type."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from agentrq.wire.events import MESSAGES, AnyMessage, CostMessage, Message, MessageBase, UnknownMessage, make_message
from agentrq.wire.messages import LIVE_ONLY, OUTPUT_ONLY, TYPES, UNKNOWN, Cost

CHECKERS = {
    "mypy": [sys.executable, "-m", "mypy", "--strict", "--no-incremental"],
    # basedpyright is pyright with the node it runs on; with this configuration it checks what pyright does.
    "pyright": [str(Path(sys.executable).with_name("basedpyright")), "--pythonpath", sys.executable],
}
PROGRAM = """
from agentrq import AgentClient, AsyncAgentClient, Event, Message, Receipt, StatusEvent
from agentrq.wire.events import CostMessage


def cost_of(message: Message) -> float:
    if message.type == "cost":
        reveal_type(message.content)
        return message.content.total_cost_usd
    return 0.0


def text_of(event: Event) -> str:
    if isinstance(event, Message):
        if event.type == "text":
            return event.content.text
        if event.type == "unknown":
            return str(sorted(event.content))
    elif isinstance(event, StatusEvent):
        return event.status
    return ""


def tool_of(message: Message) -> str:
    match message.type:
        case "tool_call":
            return message.content.name
        case "approval_request" | "question":
            return message.content.request_id
        case _:
            return ""


def outcome_of(event: Event) -> str | int:
    match event:
        case CostMessage(content=cost):
            return cost.num_turns
        case Receipt():
            return event.outcome
        case StatusEvent():
            return event.status
        case _:
            return event.type


def follow(client: AgentClient) -> Receipt:
    for message in client.session("s").messages():
        if message.type == "tool_result":
            print(message.content.is_error, message.content.output)
    return client.session("s").prompt("more", wait=True)


async def follow_async(client: AsyncAgentClient) -> str:
    async for event in client.session("s").events():
        if isinstance(event, Message) and event.type == "question":
            print(len(event.content.questions))
    return await client.session("s").prompt("more")
"""
WRONG = """
from agentrq import Message


def cost_of(message: Message) -> str:
    if message.type == "cost":
        return message.content.total_cost_usd
    return message.content.text
"""


@pytest.fixture(params=list(CHECKERS))
def checker(request: pytest.FixtureRequest) -> list[str]:
    command = CHECKERS[request.param]
    if not Path(command[0]).exists():
        pytest.skip(f"{command[0]} is not installed: make install")
    return command


def check(checker: list[str], directory: Path, program: str) -> tuple[int, str]:
    (directory / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    path = directory / "program.py"
    path.write_text(program)
    done = subprocess.run([*checker, str(path)], capture_output=True, text=True, cwd=directory, check=False)
    return done.returncode, done.stdout


@pytest.mark.slow
def test_a_checker_knows_the_content_by_the_type(checker: list[str], tmp_path: Path) -> None:
    code, said = check(checker, tmp_path, PROGRAM)
    assert code == 0, said
    assert re.search(r'"(agentrq\.wire\.messages\.)?Cost"', said)


@pytest.mark.slow
def test_a_checker_refuses_a_wrong_use(checker: list[str], tmp_path: Path) -> None:
    code, said = check(checker, tmp_path, WRONG)
    assert code == 1, said


def test_each_type_has_one_content_and_one_message() -> None:
    assert set(MESSAGES) == {*TYPES, UNKNOWN}
    for kind in get_args(AnyMessage):
        hints = get_type_hints(kind)
        (name,) = get_args(hints["type"])
        assert hints["content"] is TYPES[name] if name != UNKNOWN else kind is UnknownMessage
    assert {"text_delta", "thinking_delta"} == LIVE_ONLY
    assert LIVE_ONLY < OUTPUT_ONLY


def test_a_message_is_of_its_types_class() -> None:
    cost = make_message("s", "m", "cost", 1, Cost(0.5, 1, 2, 3, 1, False), "1-1")
    assert type(cost) is CostMessage
    assert isinstance(cost, Message)
    assert isinstance(make_message("s", "m", "of a newer version", 1, {}), UnknownMessage)
    assert isinstance(MessageBase("s", "m", "cost", 1, cost.content), Message)
