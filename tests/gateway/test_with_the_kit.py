"""The gateway's routes on the testing kit: no server, no worker, no agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentrq import AsyncAgentClient
from agentrq.testing.scripted_agent import ScriptedAgent
from agentrq.testing.steps import approval, cost, done, hold, text
from agentrq_gateway import Gateway
from tests.gateway.conftest import connect
from tests.gateway.listening import Listener


@pytest.fixture
async def app(async_agent_client: AsyncAgentClient) -> AsyncIterator[Gateway]:
    async with async_agent_client as client:
        gateway = Gateway(client)
        yield gateway
        await gateway.aclose()


async def test_a_session_is_started_streamed_and_answered(app: Gateway, scripted_agent: ScriptedAgent) -> None:
    scripted_agent.turn(text("May I?", pieces=2), approval("Bash", {"command": "rm a"}, request_id="r"), cost(0.5))
    scripted_agent.turn(text("Bye."), done())
    async with asyncio.timeout(20), connect(app) as http:
        made = await http.post("/sessions", json={"provider": "claude", "prompt": "Clean up"})
        assert made.status_code == 201
        path = made.headers["location"]
        async with Listener(app, f"{path}/stream") as stream:
            await stream.until("status", status="waiting")
            (asked,) = (await http.get("/approvals")).json()["approvals"]
            assert (asked["requestId"], asked["name"]) == ("r", "Bash")
            answered = await http.post(f"{path}/answers/r?wait=10", json="deny")
            assert (answered.status_code, answered.json()["outcome"]) == (200, "applied")
            await stream.until("status", status="idle")
            state = (await http.get(path)).json()
            assert (state["status"], state["costUsd"], state["lastTurn"]) == ("idle", 0.5, "whole")
            await http.post(f"{path}/prompts", json={"text": "Thank you"})
            frames = await stream.rest()
        assert frames[-1].event == "end"
        events = (await http.get(f"{path}/events")).json()
        assert events["ended"]
        assert [event["cursor"] for event in events["events"]][-1] == events["cursor"]
        assert (await http.delete(path)).status_code == 204
        assert (await http.get(path)).status_code == 404


async def test_a_browser_that_joins_a_followed_session_is_served(app: Gateway, scripted_agent: ScriptedAgent) -> None:
    scripted_agent.turn(text("Hello"), hold(), text("again"), done())
    async with asyncio.timeout(20), connect(app) as http:
        path = (await http.post("/sessions", json={"provider": "claude", "prompt": "Hi"})).headers["location"]
        async with Listener(app, f"{path}/stream") as one:
            await one.until("message", type="text")
            async with Listener(app, f"{path}/stream?after=1-3") as other:
                said = (await other.until("message", type="text"))[-1]
                assert said.data["content"]["text"] == "Hello"
                scripted_agent.go_on()
                assert (await one.rest())[-1].event == (await other.rest())[-1].event == "end"
