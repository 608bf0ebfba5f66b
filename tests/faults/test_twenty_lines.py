"""The documented twenty lines of plain Redis commands are the same reader: run as they stand, through faults."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import redis

from agentrq.wire.messages import Text
from agentrq.wire.status import Reason, Status
from agentrq_worker.settings import Settings
from agentrq_worker.stream.event_log import EventLog
from tests.faults import waiting
from tests.faults.proxy import Plan, Proxy
from tests.faults.waiting import a_lane

PAGE = Path(__file__).parents[2] / "docs/how-to/follow-from-any-language.md"


def lines() -> str:
    (program,) = re.findall(r"^```python\n# follow\.py\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert isinstance(program, str)
    assert len([line for line in program.splitlines() if line.strip()]) <= 20
    assert "agentrq" not in "".join(line for line in program.splitlines() if line.startswith(("import", "from")))
    return program


async def start(path: Path, *arguments: str) -> asyncio.subprocess.Process:
    path.write_text(lines())
    return await asyncio.create_subprocess_exec(
        sys.executable, str(path), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


def say(lane: EventLog, count: int) -> None:
    for _ in range(count):
        lane.add_message("text", Text("x" * (lane._seq % 50)))


async def test_a_twenty_line_reader_follows_through_faults_and_deaths(redis_url: str, tmp_path: Path) -> None:
    plan, seen = Plan(3, 0.08), list[str]()
    async with (
        asyncio.timeout(60),
        Proxy.to(redis_url, plan) as network,
        a_lane(redis_url) as (lane, _),
    ):
        ended = False
        while not ended:
            process = await start(tmp_path / "follow.py", network.url, "s", *seen[-1:])
            assert process.stdout
            while line := await process.stdout.readline():
                cursor, event = line.decode().split(" ", 1)
                assert json.loads(event)["cursor"] == cursor
                seen.append(cursor)
                if len(seen) in (50, 400):
                    process.kill()
                    break
                if len(seen) % 10 == 2 and lane.written < 600:
                    say(lane, 20)
                elif lane.written >= 600 and lane._open:
                    lane.add_end(Status.DONE, Reason.COMPLETED, None)
            process._transport.close()  # type: ignore[attr-defined]
            ended = await process.wait() == 0
    assert seen == ["0-1", *(f"1-{seq}" for seq in range(1, lane.written + 1))]
    assert plan.injected.total() > 3


async def test_a_twenty_line_reader_tells_what_is_gone(redis_url: str, tmp_path: Path) -> None:
    async with asyncio.timeout(30), a_lane(redis_url, settings=Settings(name="w", max_events=10)) as (lane, _):
        say(lane, 50)
        await lane.flush()
        for cursor, said in (("1-3", b"trimmed through 1-41"), ("1-45", b"")):
            process = await start(tmp_path / "follow.py", redis_url, "s", cursor)
            if not said:
                lane.add_end(Status.DONE, Reason.COMPLETED, None)
            out, err = await process.communicate()
            assert (err.strip(), process.returncode) == (said, int(bool(said)))
            assert len(out.splitlines()) == (0 if said else 7)
        process = await start(tmp_path / "follow.py", redis_url, "nobody")
        assert (await process.communicate())[1].strip() == b"no such session"


async def test_a_twenty_line_reader_reads_the_stream_only_after_hints(
    redis_url: str, raw: redis.Redis, tmp_path: Path
) -> None:
    """Subscribed before they read: what comes afterwards is printed at once, by its hint."""
    async with asyncio.timeout(30), a_lane(redis_url) as (lane, _):
        process = await start(tmp_path / "follow.py", redis_url, "s")
        assert process.stdout
        assert [(await process.stdout.readline()).split()[0] for _ in range(2)] == [b"0-1", b"1-1"]
        await waiting.true(lambda: raw.pubsub_numsub(lane.target.messages_channel)[0][1] == 1)
        for seq in range(2, 30):
            say(lane, 1)
            assert (await process.stdout.readline()).startswith(b"1-%d " % seq)
        lane.add_end(Status.DONE, Reason.COMPLETED, None)
        assert (await process.stdout.readline()).startswith(b"1-30 ")
        assert await process.wait() == 0
