"""The front ends' own clients against a real gateway, worker and agent: message, thought, tool, approval, cut, stop.

What each client made of the sessions is kept in golden/: AGENTRQ_UPDATE_GOLDEN=1 writes it anew, to be reviewed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.node import needs_node
from tests.gateway.gateway_process import running
from tests.gateway.protocols.front_ends import GOLDEN, FrontEnd, capture, frame_types
from tests.workers import Worker

pytestmark = [pytest.mark.slow, needs_node]
RED = {"answers": {"0": {"colour": "red"}}}
CHATS = [("ai", "default"), ("ai6", "default"), ("ai", "workflow")]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    found = tmp_path / "workspace"
    found.mkdir()
    (found / "README.md").write_text("Hello\n")
    return found


@pytest.fixture
def address(redis_url: str, start_worker: Callable[..., Worker], config: Path) -> Iterator[str]:
    """A gateway with a worker whose demo agent takes its time, so that there is a middle to cut."""
    config.write_text('[providers.demo]\nenv = { AGENTRQ_DEMO_PACE = "0.04" }\n')
    start_worker()
    with running(redis_url=redis_url) as (_, address):
        yield address


@pytest.fixture
def chat(tmp_path: Path) -> FrontEnd:
    return FrontEnd(tmp_path, "chat.mjs")


@pytest.fixture
def agent(tmp_path: Path) -> FrontEnd:
    return FrontEnd(tmp_path, "agent.mjs")


def asks(workspace: Path) -> dict[str, Any]:
    return {"provider": "demo", "options": {"permissionMode": "default", "cwd": str(workspace)}}


def check_golden(name: str, result: dict[str, Any], workspace: Path) -> None:
    path = GOLDEN / f"{name}.json"
    found = capture(result, workspace)
    if os.environ.get("AGENTRQ_UPDATE_GOLDEN") == "1":
        path.write_text(found)
    assert found == path.read_text()


def parts(result: dict[str, Any], **members: Any) -> list[dict[str, Any]]:
    every = [part for message in result["messages"] for part in message["parts"]]
    return [part for part in every if all(part.get(name) == value for name, value in members.items())]


@pytest.mark.parametrize(("version", "transport"), CHATS)
def test_a_chat_is_answered_allowed_and_asked(
    chat: FrontEnd, address: str, workspace: Path, version: str, transport: str
) -> None:
    steps = [("send", "hello"), ("answer", {"approved": True}), ("question", RED), ("send", "/echo next")]
    result = chat.run(address, steps, ai=version, transport=transport, chat="one", body=asks(workspace))
    assert (result["status"], result["errors"]) == ("ready", [])
    assert [message["role"] for message in result["messages"]] == ["user", "assistant", "user", "assistant"]
    assert parts(result, type="reasoning", state="done")
    assert {part["state"] for part in parts(result, type="dynamic-tool")} == {"output-available"}
    assert parts(result, toolName="Read")[0]["output"] == "Hello\n"
    assert parts(result, type="text")[-1]["text"] == "next"
    check_golden(f"chat-{version}-{transport}", result, workspace)


@pytest.mark.parametrize(("version", "transport"), CHATS)
def test_a_chat_denies_and_stops(chat: FrontEnd, address: str, workspace: Path, version: str, transport: str) -> None:
    kind = "text-end"
    steps = [
        ("send", "hello"), ("answer", {"approved": False, "reason": "not this one"}), ("question", RED),
        ("begin", ["/sleep 60", kind, 1]), ("stop", None), ("settle", None), ("send", "/echo on"),
    ]  # fmt: skip
    result = chat.run(address, steps, ai=version, transport=transport, chat="two", body=asks(workspace))
    assert (result["status"], result["errors"]) == ("ready", [])
    assert [part["toolName"] for part in parts(result, state="output-denied")] == ["Read"]
    stopped, last = result["requests"][-2:]
    assert frame_types(stopped)[-3:] == ["abort", "finish-step", "finish"]
    assert frame_types(last)[-1] == "finish"
    assert parts(result, type="text")[-1]["text"] == "on"


@pytest.mark.parametrize("version", ["ai", "ai6"])
def test_a_cut_chat_is_resumed_whole(chat: FrontEnd, address: str, workspace: Path, version: str) -> None:
    body = {"provider": "demo", "options": {"cwd": str(workspace)}}
    steps = [
        ("begin", ["hello", "reasoning-delta", 2]), ("cut", None), ("settle", None), ("resume", None),
    ]  # fmt: skip
    result = chat.run(address, steps, ai=version, transport="default", chat="three", body=body)
    assert len(result["errors"]) == 1, "the cut"
    assert result["status"] == "ready"
    assert [message["role"] for message in result["messages"]] == ["user", "assistant"]
    (thought,) = parts(result, type="reasoning")
    assert thought["text"].startswith("My plan: ")
    assert thought["text"].endswith("and report.")


def test_a_chat_without_a_turn_has_nothing_to_resume(chat: FrontEnd, address: str, workspace: Path) -> None:
    body = {"provider": "demo", "options": {"cwd": str(workspace)}}
    steps = [("send", "/echo a"), ("resume", None)]
    result = chat.run(address, steps, ai="ai", transport="default", chat="four", body=body)
    assert result["requests"][-1]["status"] == 204
    assert result["status"] == "ready"


def test_a_cut_workflow_chat_goes_on_at_the_very_chunk(chat: FrontEnd, address: str, workspace: Path) -> None:
    steps = [
        ("begin", ["hello", "tool-input-available", 1]), ("cut", None), ("settle", None),
        ("answer", {"approved": True}), ("question", RED),
    ]  # fmt: skip
    how = {"ai": "ai", "transport": "workflow", "body": asks(workspace)}
    cut = chat.run(address, steps, chat="five", **how)
    whole = chat.run(address, [("send", "hello"), *steps[3:]], chat="six", **how)
    assert (cut["status"], cut["errors"]) == ("ready", [])
    first, again, *_ = cut["requests"]
    assert again["path"].startswith("/ui/five/five.0-0.p.five/stream?startIndex=")
    assert frame_types(first) + frame_types(again) == frame_types(whole["requests"][0])
    assert capture(cut, workspace).partition('"requests"')[0] == capture(whole, workspace).partition('"requests"')[0]


def test_an_agui_agent_is_answered_allowed_and_asked(agent: FrontEnd, address: str, workspace: Path) -> None:
    steps = [("send", "hello"), ("answer", {"approved": True}), ("answer", RED), ("send", "/echo next")]
    result = agent.run(address, steps, thread="thread-1", props=asks(workspace))
    assert result["errors"] == []
    assert [outcome["type"] for outcome in result["outcomes"]] == ["interrupt", "interrupt", "success", "success"]
    roles = {message["role"] for message in result["messages"]}
    assert roles == {"user", "reasoning", "assistant", "tool"}
    assert result["messages"][-1]["content"] == "next"
    frames = [frame for request in result["requests"] for frame in request["frames"] if "data: " in frame]
    assert all(frame.startswith("id: ") for frame in frames)
    check_golden("agent-agui", result, workspace)


def test_an_agui_agent_denies_and_interrupts(agent: FrontEnd, address: str, workspace: Path) -> None:
    steps = [
        ("send", "hello"), ("cancel", None), ("cancel", None),
        ("begin", ["/sleep 60", "TEXT_MESSAGE_END", 1]), ("interrupt", None), ("settle", None),
    ]  # fmt: skip
    result = agent.run(address, steps, thread="thread-2", props=asks(workspace))
    assert result["errors"] == []
    assert result["outcomes"][-1] == {"type": "cancelled"}
    assert "Not allowed" in str(result["messages"])


def test_a_cut_agui_run_goes_on_in_the_middle_of_a_message(agent: FrontEnd, address: str, workspace: Path) -> None:
    props = {"provider": "demo", "options": {"cwd": str(workspace)}}
    begin = ("begin", ["hello", "REASONING_MESSAGE_CONTENT", 2])
    cut = agent.run(
        address, [begin, ("cut", None), ("settle", None), ("connect", True)], thread="thread-3", props=props
    )
    assert len(cut["errors"]) == 1, "the cut"
    again = frame_types(cut["requests"][-1])
    assert again[:3] == ["RUN_STARTED", "REASONING_START", "REASONING_MESSAGE_START"]
    (thought,) = [message for message in cut["messages"] if message["role"] == "reasoning"]
    assert thought["content"].startswith("My plan: ")
    assert thought["content"].endswith("and report.")


def test_an_agui_client_that_knows_nothing_gets_the_conversation(
    agent: FrontEnd, address: str, workspace: Path
) -> None:
    props = {"provider": "demo", "options": {"cwd": str(workspace)}}
    steps = [("send", "/echo one"), ("send", "/echo two"), ("forget", None), ("connect", False)]
    result = agent.run(address, steps, thread="thread-4", props=props)
    assert frame_types(result["requests"][-1]) == ["RUN_STARTED", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]
    assert [(each["role"], each["content"]) for each in result["messages"]] == [
        ("user", "/echo one"), ("assistant", "one"), ("user", "/echo two"), ("assistant", "two"),
    ]  # fmt: skip
