"""Texts that are being written: their pieces, and clients that come into the middle of one."""

from __future__ import annotations

import pytest

from agentrq import AsyncAgentClient
from agentrq_gateway import Gateway, Settings
from tests.faults.talking_agent import an_agent
from tests.gateway.listening import Frame, Listener


def shown(stream_frames: list[Frame], before: str = "") -> str:
    """A text as a page shows it: of each piece only what it does not have, and none that begins beyond that."""
    text = before
    for frame in stream_frames:
        if frame.event == "delta":
            assert frame.id is None
            content = frame.data["content"]
            if content["offset"] <= len(text):
                text += content["text"][len(text) - content["offset"] :]
    return text


async def read_text(stream: Listener, whole: str) -> None:
    """Read until a page shows this text."""
    text = ""
    while text != whole:
        text = shown(await stream.until("delta"), text)


@pytest.mark.parametrize("kept", [True, False], ids=["pieces are kept", "pieces are dropped"])
async def test_a_client_that_comes_into_the_middle_of_a_text_has_all_of_it(redis_url: str, kept: bool) -> None:
    async with an_agent(redis_url) as agent, AsyncAgentClient.from_url(redis_url) as client:
        gateway = Gateway(client, settings=Settings(max_unsent=256 * 1024 if kept else 1000))
        path = "/sessions/s/stream"
        said = "".join(f"piece {number} " for number in range(30))
        async with Listener(gateway, f"{path}?deltas=1") as first, Listener(gateway, path) as plain:
            await first.until("status", status="running")
            for number in range(30):
                agent.say("a", f"piece {number} ")
            await read_text(first, said)
            async with Listener(gateway, f"{path}?deltas=1") as second:
                await read_text(second, said)
                agent.say("a", "the last")
                agent.finish("a")
                whole = await second.until("message", type="text")
                assert shown(whole, said) == f"{said}the last" == whole[-1].data["content"]["text"]
            frames = await plain.until("message", type="text")
            assert "delta" not in {frame.event for frame in frames}, "no pieces without deltas=1"
        await gateway.aclose()
