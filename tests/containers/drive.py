"""Drives sessions of workers that run in containers: ``python drive.py SCENARIO …``; exit 0 if it went as it should.

fifty WORKERS          50 sessions with two turns each, over so many workers
move whole|cut CMD…    CMD (``{}``: the first session's host) in the middle of four turns, which end whole or cut
home PROVIDER CMD…     a session's home is there after CMD moved it
one PROVIDER PROMPT DIRECTORY
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Any

from agentrq import AsyncAgentClient

URL = "redis://127.0.0.1:6379/0"
MOVED_S = 30
"""A turn of 12 s, or 20 s until another worker has the session, and then that turn is over."""


async def turn(messages: Any, seen: dict[str, Any]) -> None:
    """Follow to the end of a turn; no message comes twice."""
    async for message in messages:
        assert message.cursor not in seen, f"{message.cursor} came twice"
        seen[message.cursor] = message
        if message.type == "cost":
            return


async def settled(session: Any) -> None:
    """Wait until it is idle."""
    while (state := await session.state()).status != "idle":
        assert not state.ended, state
        await asyncio.sleep(0.1)


def host_of(state: Any) -> str:
    """A container's name on its network: workers are called HOST-PID."""
    return str(state.worker).rsplit("-", 1)[0]


async def fifty(client: AsyncAgentClient, workers: str) -> None:
    async def one(number: int) -> str | None:
        session, seen = await client.start("demo", f"What is here? {number}", cwd="/tmp"), dict[str, Any]()
        messages = session.messages()
        await turn(messages, seen)
        worker = (await session.state()).worker
        await session.prompt(f"/echo hello {number}", wait=True)
        await turn(messages, seen)
        assert any(getattr(each.content, "text", "") == f"hello {number}" for each in seen.values())
        await session.stop()
        state = await session.wait(timeout=60)
        assert (state.status, state.num_turns) == ("done", 2), state
        return worker

    found = set(await asyncio.gather(*map(one, range(50))))
    assert len(found) == int(workers), found


async def move(client: AsyncAgentClient, ends: str, *command: str) -> None:
    sessions = [await client.start("demo", "/sleep 12", cwd="/tmp", on_interrupt="continue") for _ in range(4)]
    seen: list[dict[str, Any]] = [{} for _ in sessions]
    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        turns = [group.create_task(turn(one.messages(), its)) for one, its in zip(sessions, seen, strict=True)]
        while not all([(await session.state()).status == "running" for session in sessions]):
            await asyncio.sleep(0.1)
        await asyncio.sleep(3)  # in the middle of their turns
        host, began = host_of(await sessions[0].state()), time.monotonic()
        process = await asyncio.create_subprocess_exec(*(word.replace("{}", host) for word in command))
        await asyncio.wait(turns)
        took = time.monotonic() - began
        await process.wait()
    cut = [any(getattr(each.content, "code", "") == "turn_interrupted" for each in its.values()) for its in seen]
    print(f"all turns over after {took:.1f} s; cut: {cut}")
    assert took < MOVED_S, took
    assert any(cut) == (ends == "cut"), cut
    for session in sessions:
        await asyncio.wait_for(settled(session), 30)
        await session.stop()


async def home(client: AsyncAgentClient, provider: str, *command: str) -> None:
    session, seen = await client.start(provider, "one", cwd="/tmp"), dict[str, Any]()
    messages = session.messages()
    await turn(messages, seen)
    before = await session.state()
    subprocess.run([word.replace("{}", host_of(before)) for word in command], check=True, stdout=subprocess.DEVNULL)
    while (await session.state()).worker in (before.worker, None):
        await asyncio.sleep(0.1)
    await settled(session)
    await session.prompt("two")
    seen.clear()
    await turn(messages, seen)
    said = [each.content.text for each in seen.values() if each.type == "text"]
    print(said, (await session.state()).enforced)
    await session.stop()
    assert "1 earlier" in said[0]


async def one(client: AsyncAgentClient, provider: str, prompt: str, directory: str) -> None:
    session = await client.start(provider, prompt, cwd=directory)
    await asyncio.wait_for(turn(session.messages(), {}), 40)
    state = await session.state()
    assert state.status == "idle", state
    await session.stop()


async def main(scenario: str, *words: str) -> None:
    async with AsyncAgentClient.from_url(URL) as client:
        scenarios: dict[str, Any] = {"fifty": fifty, "move": move, "home": home, "one": one}
        await scenarios[scenario](client, *words)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
