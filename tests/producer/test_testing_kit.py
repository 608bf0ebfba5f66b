"""The kit for backends' tests: the same assertions hold on fakeredis and on a real server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from agentrq import (
    AgentClient,
    AsyncAgentClient,
    CommandRejected,
    CursorReset,
    Message,
    Receipt,
    Session,
    SessionDelivered,
    SessionEnded,
    SessionExists,
    SessionGone,
    SessionNotFound,
    StatusEvent,
    StreamTrimmed,
)
from agentrq.client.redis_requests import Context
from agentrq.testing import session_writer
from agentrq.testing.fake_redis import FakeRedis
from agentrq.testing.scripted_agent import ScriptedAgent
from agentrq.testing.steps import (
    approval,
    cost,
    die,
    done,
    error,
    fail,
    hold,
    message,
    question,
    text,
    thinking,
    tool,
)
from agentrq.wire.messages import ApprovalRequest, Question, Text
from tests.faults import waiting
from tests.polling import wait_until


class RealRedis:
    """A real server in the place of `FakeRedis`."""

    def __init__(self, url: str) -> None:
        self.context = Context.from_environment()
        self.redis = redis.Redis.from_url(url)
        self._url = url

    def client(self) -> AgentClient:
        return AgentClient.from_url(self._url)

    def async_client(self) -> AsyncAgentClient:
        return AsyncAgentClient.from_url(self._url)


@pytest.fixture(params=["fake", "real"])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "fake":
        yield FakeRedis()
        return
    real = RealRedis(request.getfixturevalue("redis_url"))
    yield real
    real.redis.close()


@pytest.fixture
def agent(server: Any) -> Iterator[ScriptedAgent]:
    agent = ScriptedAgent(server.redis, server.context)
    yield agent
    agent.close()


@pytest.fixture
def client(server: Any) -> Iterator[AgentClient]:
    with server.client() as client:
        yield client


def heard(session: Session, until: Callable[[Any], bool], **options: Any) -> list[Any]:
    """A session's events up to one."""
    found = []
    for event in session.events(**options):
        found.append(event)
        if until(event):
            return found
    return found


def is_type(*names: str) -> Callable[[Any], bool]:
    return lambda event: getattr(event, "type", None) in names


def has_status(status: str) -> Callable[[Any], bool]:
    return lambda event: isinstance(event, StatusEvent) and event.status == status


def shown(events: list[Any]) -> list[str]:
    return [
        event.type if isinstance(event, Message) else event.status if isinstance(event, StatusEvent) else event.outcome
        for event in events
    ]


# -- a conversation


def test_a_turn_is_said_as_it_was_written(agent: ScriptedAgent, client: AgentClient) -> None:
    agent.turn(
        thinking("Hm.", pieces=1),
        text("Two files are here.", pieces=4),
        tool("Bash", {"command": "ls"}, "a b"),
        message("rate_limit", scope="requests", message="slow down"),
        error("a hiccup", "hiccup"),
        cost(0.25, input_tokens=10, output_tokens=20),
    )
    session = client.start("claude", "What is here?", cwd="/work")
    events = heard(session, has_status("idle"))
    assert shown(events) == [
        "queued", "starting", "prompt", "running", "thinking", "text", "tool_call", "tool_result", "rate_limit",
        "error", "cost", "idle",
    ]  # fmt: skip
    assert [event.cursor for event in events] == ["0-1", *(f"1-{seq}" for seq in range(1, 12))]
    assert events[2].content.text == "What is here?"
    assert events[5].content.text == "Two files are here."
    assert events[7].content.output == "a b"
    assert events[10].content.session_total.cost_usd == 0.25
    state = session.state()
    assert (state.status, state.last_turn, state.cost_usd, state.num_turns) == ("idle", "whole", 0.25, 1)
    assert (state.input_tokens, state.output_tokens, state.worker_lost) == (10, 20, False)
    assert [each.session_id for each in client.sessions(status="idle")] == [session.id]
    with pytest.raises(SessionExists):
        client.start("claude", "Again", session.id)


def test_prompts_take_the_next_turns_and_an_unscripted_one_is_echoed(agent: ScriptedAgent, client: AgentClient) -> None:
    agent.turn(text("first"))
    agent.turn(text("second"), done())
    session = client.start("claude", "one", "s")
    heard(session, has_status("idle"))
    session.prompt("two", wait=True, timeout=10)
    assert session.wait(10).reason == "completed"
    texts = [event.content.text for event in session.messages() if isinstance(event.content, Text)]
    assert texts == ["first", "second"]
    with pytest.raises(SessionEnded):
        session.prompt("three")
    other = client.start("claude", "say this")
    said = heard(other, is_type("text"))[-1]
    assert said.content.text == "say this"
    other.remove()
    with pytest.raises(SessionNotFound):
        other.state()


def test_a_failed_session_says_why(agent: ScriptedAgent, client: AgentClient) -> None:
    agent.turn(text("uh"), fail("Exit code: 3"))
    session = client.start("claude", "go")
    state = session.wait(10)
    assert (state.status, state.reason, state.error, state.last_turn) == ("error", "failed", "Exit code: 3", "cut")


# -- what clients ask


def test_an_approval_waits_and_the_script_gets_the_answer(agent: ScriptedAgent, client: AgentClient) -> None:
    answers = []

    def remove(prompt: str) -> Any:
        assert prompt == "clean up"
        for name in ("a", "b"):
            answer = yield approval("Bash", {"command": f"rm {name}"}, request_id=f"rm-{name}")
            answers.append(answer)
            if answer == "allow":
                yield tool("Bash", {"command": f"rm {name}"})

    agent.turn(remove)
    session = client.start("claude", "clean up")
    events = heard(session, has_status("waiting"))
    assert isinstance(events[-2].content, ApprovalRequest)
    (asked,) = client.waiting()
    assert (asked.session_id, asked.request.id, asked.request.name) == (session.id, "rm-a", "Bash")
    assert asked.content == events[-2].content
    assert session.state().pending_approvals == 1
    with pytest.raises(CommandRejected, match="an approval is answered by"):
        session.answer("rm-a", "maybe", wait=True, timeout=10)
    with pytest.raises(CommandRejected, match="no such request is open"):
        session.answer("other", "allow", wait=True, timeout=10)
    session.answer("rm-a", "allow", wait=True, timeout=10)
    heard(session, has_status("waiting"), after=events[-1].cursor)
    denial = {"decision": "deny", "message": "keep it", "by": "alice"}
    session.answer("rm-b", denial, wait=True, timeout=10)
    rest = heard(session, has_status("idle"), after=events[-1].cursor)
    assert shown(rest) == [
        "rejected", "rejected", "applied", "approval_resolved", "running", "tool_call", "tool_result",
        "approval_request", "waiting", "applied", "approval_resolved", "running", "cost", "idle",
    ]  # fmt: skip
    assert answers == ["allow", denial]
    assert (rest[10].content.decision, rest[10].content.by) == ("deny", "alice")
    assert client.waiting() == []
    with pytest.raises(CommandRejected, match="answered already: deny by alice"):
        session.answer("rm-b", "allow", wait=True, timeout=10)


def test_a_question_is_answered(agent: ScriptedAgent, client: AgentClient) -> None:
    agent.turn(question({"id": "colour", "header": "Colour", "question": "Which one?"}, request_id="q"))
    session = client.start("claude", "paint")
    asked = heard(session, has_status("waiting"))[-2]
    assert isinstance(asked.content, Question)
    session.answer("q", {"answers": {"colour": "red"}}, wait=True, timeout=10)
    resolved = heard(session, is_type("approval_resolved"))[-1]
    assert resolved.content.decision == "answer"


def test_commands_in_the_middle_of_a_turn(agent: ScriptedAgent, client: AgentClient) -> None:
    agent.turn(text("working"), hold(), text("went on"))
    agent.turn(text("next"), approval("Bash", {}, request_id="r"), text("never"))
    session = client.start("claude", "go", "s")
    heard(session, is_type("text"))
    session.prompt("and mind the gap", mode="steer", wait=True, timeout=10)
    session.prompt("later")
    agent.go_on()
    asked = heard(session, has_status("waiting"))
    session.set_model("opus", wait=True, timeout=10)
    session.interrupt(wait=True, timeout=10)
    heard(session, has_status("idle"), after=asked[-1].cursor)
    assert session.state().last_turn == "interrupted"
    assert client.waiting() == []
    with pytest.raises(CommandRejected, match="idle"):
        session.interrupt(wait=True, timeout=10)
    texts = [event.content for event in session.history() if isinstance(event, Message) and event.type == "text"]
    assert texts == [Text("working"), Text("went on"), Text("next")]
    session.stop()
    assert session.wait(10).reason == "stopped"


def test_a_worker_that_dies_leaves_its_sessions_to_another(agent: ScriptedAgent, client: AgentClient) -> None:
    agent.turn(text("one"), die())
    agent.turn(text("two"), done())
    session = client.start("claude", "go")
    heard(session, is_type("text"))
    wait_until(lambda: session.state().worker_lost)
    later = client.start("claude", "nobody is here")
    agent.recover()
    events = heard(session, has_status("done"), after="1-4")
    assert shown(events) == ["recovering", "starting", "error", "prompt", "running", "text", "done"]
    assert events[2].content.code == "turn_interrupted"
    assert heard(later, is_type("text"))[-1].content.text == "nobody is here"


# -- readers


async def test_asyncio_readers_and_followers(server: Any, agent: ScriptedAgent) -> None:
    agent.turn(text("Hello there", pieces=3), hold(), done())
    agent.turn(text("Other"), done())
    async with asyncio.timeout(30), server.async_client() as client:
        one = await client.start("claude", "go", "one")
        async for message in one.messages():
            if message.type == "text":
                break
        other = await client.start("claude", "go", "other")
        items: dict[str, list[Any]] = {"one": [], "other": [], "never": [], "ahead": []}
        async with client.follow({"one": None, "never": None}, until_closed=True) as follower:
            follower.add("other")
            async for session_id, item in follower:
                items[session_id].append(item)
                if item == SessionDelivered() and session_id == "other":
                    agent.go_on()
                elif item == SessionDelivered() and session_id == "one":
                    break
            assert follower.sessions == set()
        assert items["never"] == [SessionGone()]
        assert [item.cursor for item in items["one"][:-1]] == ["0-1", *(f"1-{seq}" for seq in range(1, 6))]
        async with client.follow({"other": "9-9"}, raw=True) as follower:
            found = [item async for _, item in follower]
        assert found[0] == CursorReset("unknown_cursor", "0-1")
        assert b'"text":"Other"' in b"".join(event.json for event in found[1:-1])
        assert (await other.state()).ended


async def test_deltas_come_live(server: Any, agent: ScriptedAgent) -> None:
    agent.turn(hold(), text("Hello there", pieces=3), done())
    async with asyncio.timeout(30), server.async_client() as client, asyncio.TaskGroup() as group:
        session = await client.start("claude", "go")
        channel = server.context.keys.status_channel(session.id)

        async def go_on_when_followed() -> None:
            await waiting.true(lambda: server.redis.pubsub_numsub(channel)[0][1] > 0)
            agent.go_on()

        group.create_task(go_on_when_followed())
        pieces = [event.content.text async for event in session.messages(deltas=True) if event.type == "text_delta"]
    assert pieces == ["Hell", "o th", "ere"]


def test_a_synchronous_follower(agent: ScriptedAgent, client: AgentClient) -> None:
    for _ in range(2):
        agent.turn(text("hi"), done())
    sessions = [client.start("claude", "go").id for _ in range(2)]
    with client.follow(dict.fromkeys(sessions)) as follower:
        found = list(follower)
    assert sorted(session_id for session_id, item in found if item == SessionDelivered()) == sorted(sessions)


def test_a_trimmed_stream_is_told(agent: ScriptedAgent, client: AgentClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_writer, "MAX_EVENTS", 4)
    agent.turn(*(text(str(number)) for number in range(10)), done())
    session = client.start("claude", "go")
    session.wait(10)
    with pytest.raises(StreamTrimmed):
        list(session.events("1-1"))


def test_receipts_and_command_ids(agent: ScriptedAgent, client: AgentClient) -> None:
    session = client.start("claude", "go")
    heard(session, has_status("idle"))
    first = session.prompt("once", wait=True, command_id="c1", timeout=10)
    again = session.prompt("once", wait=True, command_id="c1", timeout=10)
    assert isinstance(first, Receipt)
    assert again == first == session.receipt("c1")
    assert shown(session.history()).count("prompt") == 2


# -- mistakes in a test


def test_a_script_that_raises_ends_the_session_and_fails_the_test() -> None:
    fake = FakeRedis()
    agent = ScriptedAgent(fake.redis, fake.context)

    def broken(_: str) -> Any:
        yield text("so far")
        raise KeyError("a slip of the test")

    agent.turn(broken)
    with fake.client() as client:
        state = client.start("claude", "go").wait(10)
    assert state.error == "The test's script failed: KeyError('a slip of the test')"
    with pytest.raises(KeyError, match="a slip of the test"):
        agent.close()


@pytest.mark.parametrize("steps", [("text",), (text("a"), lambda _: iter(()))])
def test_what_is_not_a_step_is_refused(steps: Any) -> None:
    fake = FakeRedis()
    agent = ScriptedAgent(fake.redis, fake.context)
    with pytest.raises(TypeError, match=r"agentrq\.testing\.steps"):
        agent.turn(*steps)
    agent.close()


# -- the plugin


def test_a_backends_own_tests_use_the_fixtures(tmp_path: Path) -> None:
    """In a project that knows nothing of this one's settings; an unmodified app makes its clients by URL."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["agentrq.testing.plugin"]\n')
    (tmp_path / "test_backend.py").write_text(
        """
import pytest
from agentrq import AgentClient, AsyncAgentClient
from agentrq.testing.steps import done, text

def test_sync(agent_client, scripted_agent):
    scripted_agent.turn(text("hi"), done())
    session = agent_client.start("claude", "go")
    assert [m.content.text for m in session.messages() if m.type == "text"] == ["hi"]

@pytest.mark.asyncio
async def test_async(async_agent_client, scripted_agent):
    scripted_agent.turn(text("hi"), done())
    session = await async_agent_client.start("claude", "go")
    assert [m.content.text async for m in session.messages() if m.type == "text"] == ["hi"]

@pytest.mark.asyncio
async def test_any_url(agents_from_any_url, scripted_agent):
    async with AsyncAgentClient.from_url("redis://redis.internal:6379/0") as client:
        session = await client.start("claude", "echo")
        async for message in session.messages():
            if message.type == "text":
                break
    with AgentClient.from_url("rediss://other/1") as client:
        assert client.session(session.id).stop()

def test_empty(agent_client):
    assert client_states(agent_client) == []

def client_states(client):
    return client.states()
"""
    )
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(tmp_path)]
    options += ["-o", "asyncio_default_fixture_loop_scope=function"]
    ran = subprocess.run([sys.executable, "-m", "pytest", *options, str(tmp_path)], capture_output=True, text=True)
    assert "4 passed" in ran.stdout, ran.stdout + ran.stderr


def test_nothing_of_agentrq_imports_the_kit() -> None:
    code = "import sys, agentrq; agentrq.AsyncAgentClient; print([n for n in sys.modules if n in FORBIDDEN])"
    code = code.replace("FORBIDDEN", "('fakeredis', 'pytest', 'agentrq.testing')")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_without_its_extra_the_kit_says_what_to_install() -> None:
    code = "import sys; sys.modules['lupa'] = None; import agentrq.testing.plugin"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stderr.splitlines()[-1].endswith("pip install 'agentrq[testing]'")


def test_a_session_that_is_both_found_and_heard_of_is_taken_once(server: Any, client: AgentClient) -> None:
    """Started between the agent's subscription and its first look at what waits."""
    session = client.start("claude", "hello", "both")
    agent = ScriptedAgent(server.redis, server.context)
    server.redis.publish("agentrq:{both}:status", b'{"type":"status","status":"queued"}')
    try:
        heard(session, has_status("idle"))
        agent.turn(text("again"))
        session.prompt("more", wait=True, timeout=10)
        events = heard(session, lambda event: is_type("text")(event) and event.content == Text("again"))
        assert shown(events).count("starting") == 1
    finally:
        agent.close()
