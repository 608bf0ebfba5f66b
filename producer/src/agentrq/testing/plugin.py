"""Fixtures for pytest, enabled by ``pytest_plugins = ["agentrq.testing.plugin"]`` in a conftest.py.

Owns the fixtures' lifetimes: each test has an empty server of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from agentrq.client import AgentClient, AsyncAgentClient
from agentrq.testing.fake_redis import FakeRedis
from agentrq.testing.scripted_agent import ScriptedAgent


@pytest.fixture
def fake_redis() -> FakeRedis:
    """An empty server in this process; `FakeRedis.redis` is a plain redis-py client of it."""
    return FakeRedis()


@pytest.fixture
def agent_client(fake_redis: FakeRedis) -> Iterator[AgentClient]:
    """A synchronous client of ``fake_redis``."""
    with fake_redis.client() as client:
        yield client


@pytest.fixture
def async_agent_client(fake_redis: FakeRedis) -> AsyncAgentClient:
    """An asyncio client of ``fake_redis``, for the event loop of this test."""
    return fake_redis.async_client()


@pytest.fixture
def scripted_agent(fake_redis: FakeRedis) -> Iterator[ScriptedAgent]:
    """An agent that takes every session which is started on ``fake_redis``, and says what the test wrote."""
    agent = ScriptedAgent(fake_redis.redis, fake_redis.context)
    yield agent
    agent.close()


@pytest.fixture
def agents_from_any_url(fake_redis: FakeRedis, monkeypatch: pytest.MonkeyPatch) -> FakeRedis:
    """`AgentClient.from_url` and `AsyncAgentClient.from_url` give clients of ``fake_redis``, whatever the URL."""

    def sync(_: Any, url: str) -> AgentClient:
        return fake_redis.client()

    def asynchronous(_: Any, url: str) -> AsyncAgentClient:
        return fake_redis.async_client()

    monkeypatch.setattr(AgentClient, "from_url", classmethod(sync))
    monkeypatch.setattr(AsyncAgentClient, "from_url", classmethod(asynchronous))
    return fake_redis
