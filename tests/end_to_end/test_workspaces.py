"""Sessions in workspaces: made before the agent runs, checkpointed after its turns, restored on another machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentrq.client import AsyncAgentClient
from agentrq.errors import InvalidOption
from tests.git_repositories import git, make_origin
from tests.polling import wait_until
from tests.sessions import contents, until
from tests.workers import Worker

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
Start = Callable[..., Worker]
PROBE = Path(__file__).parents[1] / "fakes/probe_runner.py"
FAST = ("--lease-s", "1", "--beat-s", "0.2")


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return make_origin(tmp_path)


@pytest.fixture
def start_machine(start_worker: Start, tmp_path: Path, origin: Path, config: Path) -> Start:
    """``start_machine(name, *args)``: a worker that shares no file with those of other machines."""
    config.write_text(
        f'[policy]\ngit = ["file:{origin}", "example.org"]\nroots = ["/nowhere"]\n'
        '[workspaces]\ncheckpoints = "origin"\n'
        f'[providers.probe]\ncommand = ["{sys.executable}", "{PROBE}"]\n'
    )

    def start(name: str, *args: str) -> Worker:
        return start_worker(*args, "--name", name, AGENTRQ_WORKSPACES_DIR=str(tmp_path / name))

    return start


async def events_until(session: Any, kind: str, after: str | None = None) -> list[Any]:
    """The session's events up to the first message of a kind."""
    found = []
    async with asyncio.timeout(60):
        async for event in session.events(after):
            found.append(event)
            if getattr(event, "type", "") == kind:
                return found
    raise AssertionError(f"the session ended without {kind}")


async def test_an_agent_works_in_a_repository_and_each_turn_is_kept(
    client: AsyncAgentClient, start_machine: Start, origin: Path, tmp_path: Path
) -> None:
    start_machine("one")
    source = {"git": str(origin), "ref": "side", "path": "sub"}
    session = await client.start("probe", "import os; say(os.getcwd())", workspace=source)
    await until(session, "idle")
    await session.prompt("open('new', 'w').write('work')")
    events = await events_until(session, "checkpoint")
    assert contents(events, "text")[0].text == str(tmp_path / "one" / session.id / "files" / "sub")
    (made,) = contents(events, "checkpoint")
    assert (made.turn, made.files) == (2, 1)
    assert git(origin, "show", f"refs/agentrq/{session.id}/2:sub/new") == "work"
    assert git(origin, "show", f"refs/agentrq/{session.id}/2:a.txt") == "side"
    assert (await session.state()).checkpoint == f"2 {made.commit}"
    await session.stop()
    await session.wait()
    assert [event async for event in session.events() if getattr(event, "type", "") == "error"] == []


async def test_a_session_whose_machine_is_lost_goes_on_from_its_checkpoint(
    client: AsyncAgentClient, start_machine: Start, origin: Path, tmp_path: Path
) -> None:
    worker = start_machine("one", *FAST)
    session = await client.start("probe", "open('kept', 'w').write('kept')", workspace={"git": str(origin)})
    await events_until(session, "checkpoint")
    hang = "open('lost', 'w').write('lost'); say('here'); import time; time.sleep(600)"
    await session.prompt(hang)
    await events_until(session, "text")
    worker.kill()
    shutil.rmtree(tmp_path / "one")
    start_machine("two", *FAST)
    events = await events_until(session, "workspace_restored")
    (restored,) = contents(events, "workspace_restored")
    assert (restored.turn, restored.lost) == (1, True)
    await session.prompt("import os; say(sorted(os.listdir('.')))")
    last = await events_until(session, "text", events[-1].cursor)
    assert contents(last, "text")[0].text == "['.git', '.gitignore', 'a.txt', 'kept', 'sub']"
    await session.stop()
    await session.wait()


async def test_work_of_a_turn_that_a_stop_cuts_is_kept(
    client: AsyncAgentClient, start_machine: Start, origin: Path
) -> None:
    start_machine("one")
    cut = "open('half', 'w').write('half'); say('here'); import time; time.sleep(600)"
    session = await client.start("probe", cut, workspace={"git": str(origin)})
    await events_until(session, "text")
    await session.stop()
    await session.wait()
    events = [event async for event in session.events()]
    (made,) = contents(events, "checkpoint")
    assert made.turn == 1
    assert git(origin, "show", f"refs/agentrq/{session.id}/1:half") == "half"


@pytest.mark.parametrize(
    ("source", "said", "reason"),
    [
        ({"git": "https://elsewhere.example/r"}, "'elsewhere.example' is not allowed by policy.git", "refused"),
        ({"git": "/etc"}, "'file:/etc' is not allowed by policy.git", "refused"),
        ({"copy": "/etc"}, "is not under policy.roots", "refused"),
        ({"git": "ORIGIN", "ref": "gone"}, "it has no branch, tag or commit 'gone'", "failed"),
        ({"git": "ORIGIN", "credentials": "mine"}, "the worker has no credentials 'mine'", "failed"),
    ],
)
async def test_a_workspace_that_cannot_be_had_ends_the_session_before_its_agent_runs(
    client: AsyncAgentClient, start_machine: Start, origin: Path, source: dict[str, str], said: str,
    reason: str,
) -> None:  # fmt: skip
    start_machine("one")
    source = {name: str(origin) if value == "ORIGIN" else value for name, value in source.items()}
    session = await client.start("probe", "say('ran')", workspace=source)
    state = await session.wait()
    assert (state.status, state.reason) == ("error", reason)
    assert said in (state.error or "")
    assert contents([event async for event in session.events()], "text") == []


async def test_a_start_that_names_both_a_directory_and_a_workspace_is_refused(client: AsyncAgentClient) -> None:
    with pytest.raises(InvalidOption, match="leave out cwd"):
        await client.start("probe", "x", cwd="/", workspace={"copy": "/srv"})
    with pytest.raises(InvalidOption, match="must not carry a password"):
        await client.start("probe", "x", workspace={"git": "https://u:p@h/r"})


async def test_a_stop_ends_the_making_of_a_workspace(
    client: AsyncAgentClient, start_worker: Start, tmp_path: Path
) -> None:
    slow = tmp_path / "git"
    slow.mkdir()
    began = tmp_path / "began"
    (slow / "git").write_text(f"#!/bin/sh\ntouch {began}\nexec sleep 600\n")
    (slow / "git").chmod(0o755)
    start_worker(PATH=f"{slow}:{os.environ['PATH']}", AGENTRQ_WORKSPACES_DIR=str(tmp_path / "w"))
    session = await client.start("demo", "x", workspace={"git": "https://example.org/r"})
    await asyncio.to_thread(wait_until, began.exists)
    await session.stop()
    state = await session.wait()
    assert (state.status, state.reason) == ("done", "stopped")
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["mirrors"]


async def test_a_sessions_changes_are_a_branch_when_it_ends(
    client: AsyncAgentClient, start_machine: Start, origin: Path
) -> None:
    start_machine("one")
    source = {"git": str(origin)}
    session = await client.start("probe", "open('new', 'w').write('work')", workspace=source, on_end="branch")
    await events_until(session, "checkpoint")
    await session.stop()
    await session.wait()
    (pushed,) = contents([event async for event in session.events()], "branch_pushed")
    assert pushed.branch == f"agentrq/{session.id}"
    assert git(origin, "show", f"{pushed.branch}:new") == "work"
    assert git(origin, "rev-parse", f"{pushed.branch}^") == git(origin, "rev-parse", "trunk")


async def test_a_branch_of_somebody_else_is_not_overwritten(
    client: AsyncAgentClient, start_machine: Start, origin: Path
) -> None:
    start_machine("one")
    git(origin, "branch", "agentrq/mine", "side")
    session = await client.start(
        "probe", "open('new', 'w').write('work')", session_id="mine", workspace={"git": str(origin)}, on_end="branch"
    )
    await events_until(session, "checkpoint")
    await session.stop()
    state = await session.wait()
    assert state.status == "done"
    (error,) = contents([event async for event in session.events()], "error")
    assert error.code == "branch_not_pushed"
    assert git(origin, "rev-parse", "agentrq/mine") == git(origin, "rev-parse", "side")


async def test_a_session_that_changed_nothing_pushes_no_branch(
    client: AsyncAgentClient, start_machine: Start, origin: Path
) -> None:
    start_machine("one")
    session = await client.start("probe", "say('x')", workspace={"git": str(origin)}, on_end="branch")
    await until(session, "idle")
    await session.stop()
    await session.wait()
    assert contents([event async for event in session.events()], "branch_pushed") == []
    assert "agentrq" not in git(origin, "branch")
