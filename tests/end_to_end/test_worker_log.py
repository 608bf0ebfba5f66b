"""What a real worker's log and a failed session's state say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentrq import AsyncAgentClient, StatusEvent
from tests.producer.command_line import run_cli
from tests.sessions import until
from tests.workers import Worker

Start = Callable[..., Worker]

FAILING = """
import os, sys
print("first", file=sys.stderr)
print("the key is", os.environ["KEY"], "\\x1b[31m", file=sys.stderr)
sys.exit(7)
"""


def events_of(worker: Worker) -> list[dict[str, Any]]:
    """The lines of a worker's log that have ended, as objects."""
    return [json.loads(line) for line in worker.log if line]


async def test_the_last_lines_of_stderr_are_in_the_error_without_secrets(
    client: AsyncAgentClient, start_worker: Start, config: Path, tmp_path: Path, redis_url: str
) -> None:
    program = tmp_path / "failing.py"
    program.write_text(FAILING)
    with config.open("a") as file:
        file.write(f'\n[providers.failing]\ncommand = ["python3", "{program}"]\nenv = {{ KEY = "hunter2-hunter2" }}\n')
    start_worker()
    session = await client.start("failing", "go")
    await until(session, "error")
    state = await session.state()
    assert state.stderr_tail is not None
    first, second = state.stderr_tail.splitlines()
    assert first == "first"
    assert second.startswith("the key is ")
    assert "hunter2" not in state.stderr_tail
    (end,) = [event async for event in session.events() if isinstance(event, StatusEvent) and event.status == "error"]
    assert end.stderr_tail == state.stderr_tail
    for command in ("show", "why", "attach"):
        said = run_cli(command, session.id, url=redis_url).stdout
        assert "first" in said, command
        assert "the key is" in said, command
        assert "\x1b" not in said, command


async def test_a_session_that_ends_well_has_no_stderr_in_its_state(
    client: AsyncAgentClient, start_worker: Start
) -> None:
    start_worker()
    session = await client.start("demo", "/stderr hello")
    await until(session, "idle")
    await session.stop()
    await until(session, "done")
    assert (await session.state()).stderr_tail is None


async def test_the_json_log_tells_a_sessions_life(client: AsyncAgentClient, start_worker: Start) -> None:
    worker = start_worker("--log-format", "json", "--log-level", "DEBUG", "--name", "w1", "--drain-s", "60")
    session = await client.start("demo", "/echo hi", session_id="s1")
    idle = await until(session, "idle")
    command = await session.prompt("/sleep 60")
    await until(session, "running", idle)
    worker.process.terminate()
    worker.wait_log("worker_draining")
    await session.stop()
    worker.process.wait(60)
    worker.wait_log("worker_stopped")
    lines = events_of(worker)
    assert {line["worker"] for line in lines} == {"w1"}
    of_session = [line for line in lines if line.get("session") == "s1" and line["event"] != "other"]
    assert [line["event"] for line in of_session] == [
        "session_started", "turn_began", "turn_ended", "turn_began", "command_done", "turn_ended", "session_ended"
    ]  # fmt: skip
    assert [line["turn"] for line in of_session if line["event"].startswith("turn_")] == [1, 1, 2, 2]
    assert of_session[3]["command"] == of_session[4]["command"] == command
    assert of_session[5]["outcome"] == "interrupted"
    assert {line["epoch"] for line in of_session} == {1}
    (draining, *_) = [line for line in lines if line["event"] == "worker_draining"]
    assert (draining["sessions"], draining["seconds"]) == (1, 60)
    assert "s1 running" in draining["message"]
    assert [line["event"] for line in lines if line["event"].startswith("worker_")] == [
        "worker_ready", "worker_stopping", "worker_draining", "worker_stopped"
    ]  # fmt: skip


async def test_a_takeover_is_told_by_who_takes_over(client: AsyncAgentClient, start_worker: Start) -> None:
    first = start_worker("--log-format", "json")
    session = await client.start("demo", "/echo hi", session_id="s1")
    await until(session, "idle")
    second = start_worker("--log-format", "json")
    cursor = (await session.state()).cursor
    first.terminate()
    second.wait_log("session_taken_over")
    await until(session, "idle", cursor)
    assert [line["epoch"] for line in events_of(first) if line["event"] == "session_handed_over"] == [1]
    (taken,) = [line for line in events_of(second) if line["event"] == "session_taken_over"]
    assert (taken["session"], taken["cause"], taken["epoch"]) == ("s1", "handed_over", 2)
