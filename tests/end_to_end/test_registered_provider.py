"""A provider of another package: installed beside the worker, it is started by its name without any settings."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agentrq import AsyncAgentClient, Event, StatusEvent
from tests.sessions import contents
from tests.workers import Worker

PACKAGE = '''
"""An agent that answers in lines of its own: `say` and `over`."""
import msgspec
from agentrq.wire.messages import Init, Text
from agentrq_worker.providers.draft_message import DraftMessage
from agentrq_worker.providers.parser import OutputParser
from agentrq_worker.providers.registry import ProviderSpec


class Say(msgspec.Struct, tag="say"):
    words: str


class Over(msgspec.Struct, tag="over"):
    tokens: int


class ParrotParser(OutputParser):
    _decoder = msgspec.json.Decoder(Say | Over)
    _tags = frozenset({"say", "over"})

    def _say(self, event, line):
        return [DraftMessage("text", Text(event.words))]

    def _over(self, event, line):
        return [self._cost(0.0, 0, event.tokens, 1, False)]

    _readers = {Say: _say, Over: _over}


SPEC = ProviderSpec(name="parrot", parser=ParrotParser, program=("parrot-agent",), own_home=True)
'''
AGENT = f"""#!{sys.executable}
import json, sys
print(json.dumps({{"type": "agent_started"}}), flush=True)
for line in sys.stdin:
    query = json.loads(line)
    if query["type"] == "stop":
        break
    print(json.dumps({{"type": "say", "words": query["prompt"] + "!"}}), flush=True)
    print(json.dumps({{"type": "over", "tokens": 3}}), flush=True)
"""


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """A distribution with one entry point, as an installer leaves it, in the environment of a worker."""
    site, programs = tmp_path / "site", tmp_path / "bin"
    information = site / "agentrq_parrot-1.0.dist-info"
    information.mkdir(parents=True)
    programs.mkdir()
    (site / "agentrq_parrot.py").write_text(PACKAGE)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: agentrq-parrot\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[agentrq.providers]\nparrot = agentrq_parrot:SPEC\n")
    (programs / "parrot-agent").write_text(AGENT)
    (programs / "parrot-agent").chmod(0o755)
    return {"PYTHONPATH": str(site), "PATH": f"{programs}:{os.environ['PATH']}"}


async def until_idle(session: Any) -> AsyncIterator[Event]:
    async for event in session.events():
        yield event
        if isinstance(event, StatusEvent) and event.status == "idle":
            return


async def test_an_installed_packages_agent_runs_a_session(
    client: AsyncAgentClient, start_worker: Callable[..., Worker], installed: dict[str, str]
) -> None:
    start_worker(**installed)
    session = await client.start("parrot", "hello")
    async with asyncio.timeout(60):
        events = [event async for event in until_idle(session)]
    assert [content.text for content in contents(events, "text")] == ["hello!"]
    assert [content.output_tokens for content in contents(events, "cost")] == [3]
    await session.stop()
