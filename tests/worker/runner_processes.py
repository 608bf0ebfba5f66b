"""Built-in runners as real processes: run to the end of their input, or spoken to line by line."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

Line = dict[str, Any] | bytes


def runner_environment(**extra: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "AGENTRQ_DEMO_PACE": "0", **extra}


def as_line(raw: bytes) -> Line:
    try:
        found = json.loads(raw)
    except ValueError:
        return raw.rstrip(b"\n")
    assert isinstance(found, dict)
    return found


def query(prompt: str, **options: Any) -> bytes:
    return json.dumps({"type": "query", "sessionId": "s1", "prompt": prompt, **options}).encode() + b"\n"


def run_runner(module: str, stdin: bytes, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run to the end of stdin."""
    argv = [sys.executable, "-m", module, *arguments]
    return subprocess.run(
        argv, input=stdin, capture_output=True, env=runner_environment(**environment), timeout=60, check=False
    )


class RunnerTalk:
    """A runner that is spoken to line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    def write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)

    def command(self, kind: str, **members: Any) -> None:
        self.write(json.dumps({"type": kind, "sessionId": "s1", **members}).encode() + b"\n")

    async def read(self) -> Line | None:
        assert self.process.stdout is not None
        raw = await self.process.stdout.readline()
        return as_line(raw) if raw else None

    async def until(self, *texts_or_types: str) -> list[Line]:
        """Read on to a line of one of these protocol or event types, or a text that begins so."""
        seen: list[Line] = []
        while (line := await self.read()) is not None:
            seen.append(line)
            for wanted in texts_or_types:
                if isinstance(line, dict) and (
                    wanted in (line["type"], line.get("event", {}).get("type"))
                    or any(text.startswith(wanted) for text in texts([line]))
                ):
                    return seen
        raise AssertionError(f"ended before {texts_or_types}: {seen[-3:]}")

    async def rest(self) -> list[Line]:
        seen: list[Line] = []
        while (line := await self.read()) is not None:
            seen.append(line)
        return seen


@asynccontextmanager
async def talking_runner(module: str, *arguments: str, **environment: str) -> AsyncIterator[RunnerTalk]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=runner_environment(**environment),
        limit=1 << 26,
    )
    try:
        async with asyncio.timeout(60):
            yield RunnerTalk(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # what it printed and nobody asked for is not read


def events(lines: list[Line]) -> list[dict[str, Any]]:
    return [line["event"] for line in lines if isinstance(line, dict) and line["type"] == "agent_event"]


def blocks(lines: list[Line]) -> list[dict[str, Any]]:
    return [
        block
        for event in events(lines)
        if event["type"] in ("assistant", "user")
        for block in event["message"]["content"]
    ]


def texts(lines: list[Line]) -> list[str]:
    return [block["text"] for block in blocks(lines) if block["type"] == "text"]
