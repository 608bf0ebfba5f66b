"""However a session or its worker ends, no process of it stays, double-forked and detached ones included."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis

from agentrq import AsyncAgentClient, AsyncSession
from agentrq_worker.process import marks
from tests.rq_checks import eventually
from tests.sessions import until
from tests.workers import Worker, alive

Start = Callable[..., Worker]
FAST = ("--lease-s", "2", "--beat-s", "0.5", "--stop-grace-s", "0.3")
GONE_S = 20.0

# A launcher that does not exec, as npm's: it starts the runner as a child and waits. The runner leaves behind: a child
# in the background, one in a session of its own, one double-forked with a cleaned environment that holds stdout.
LAUNCHER = """
import os, sys, subprocess
sys.exit(subprocess.call([sys.executable, "-S", os.path.join(os.path.dirname(__file__), "runner.py")]))
"""
RUNNER = """
import json, os, sys, subprocess, time
def fork_away():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve("/bin/sleep", ["sleep", "300.25"], {})
        os._exit(0)
    os.wait()
def say(**line):
    print(json.dumps(line), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["type"] == "stop":
        say(type="agent_stopped")
        break
    if asked["type"] == "query":
        say(type="agent_started")
        subprocess.Popen(["sleep", "300.25"])
        subprocess.Popen(["sleep", "300.25"], start_new_session=True, env={})
        fork_away()
        say(type="agent_event", event={"type": "result", "subtype": "success", "is_error": False, "result": "",
            "session_id": "x", "num_turns": 1, "duration_ms": 1, "total_cost_usd": 0, "usage": {}})
        if asked["prompt"].startswith("exit"):
            sys.exit(int(asked["prompt"][4:]))
        if asked["prompt"] == "crash":
            os.abort()
"""


@pytest.fixture
def launcher(config: Path, tmp_path: Path) -> None:
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    (tmp_path / "runner.py").write_text(RUNNER)
    with config.open("a") as file:
        file.write(f'[providers.launched]\ncommand = ["{sys.executable}", "-S", "{tmp_path}/launcher.py"]\n')


def tree(worker: Worker) -> list[psutil.Process]:
    """All that lives because of a worker, as far as it descends from it; its strays do: it is a sub-reaper."""
    return psutil.Process(worker.pid).children(recursive=True)


def sleepers(worker: Worker) -> list[psutil.Process]:
    found = []
    for process in tree(worker):
        with contextlib.suppress(psutil.Error):
            if process.cmdline() == ["sleep", "300.25"]:
                found.append(process)
    return found


async def all_gone(processes: list[psutil.Process]) -> None:
    """Waits for their ends; how long these take on a busy machine is the soak's figure (``make soak``)."""
    _, left = await asyncio.to_thread(psutil.wait_procs, processes, timeout=GONE_S)
    assert not any(map(alive, left))


async def in_full(
    client: AsyncAgentClient, worker: Worker, prompt: str = "go"
) -> tuple[AsyncSession, list[psutil.Process]]:
    """A session with all its offspring: launcher, runner, three sleepers."""
    before = {process.pid for process in tree(worker)}
    session = await client.start("launched", prompt)
    await until(session, "idle")
    await eventually(lambda: len([process for process in sleepers(worker) if process.pid not in before]) == 3)
    return session, [process for process in tree(worker) if process.pid not in before]


@pytest.mark.slow
@pytest.mark.usefixtures("launcher")
async def test_a_sessions_end_leaves_no_process(
    client: AsyncAgentClient, start_worker: Start, raw: redis.Redis
) -> None:
    worker = start_worker(*FAST)
    bystander, family = await in_full(client, worker)

    stopped, own = await in_full(client, worker)
    await stopped.stop()
    assert (await stopped.wait(20)).reason == "stopped"
    await all_gone(own)

    killed, own = await in_full(client, worker)
    psutil.Process(int(raw.hget(f"agentrq:{{{killed.id}}}:state", "pid") or 0)).kill()  # the launcher alone
    assert (await killed.wait(20)).error == "Killed by SIGKILL"
    await all_gone(own)

    inner, own = await in_full(client, worker)
    next(process for process in own if "runner.py" in " ".join(process.cmdline())).kill()
    assert (await inner.wait(20)).status == "error"
    await all_gone(own)

    for prompt, status, error in (
        ("exit0", "done", None),
        ("exit3", "error", "Exit code: 3"),
        ("crash", "error", "Exit"),
    ):
        session = await client.start("launched", prompt)
        state = await session.wait(20)  # though a survivor holds stdout open
        assert (state.status, (state.error or "")[: len(error or "")]) == (status, error or "")
        await eventually(lambda: len(sleepers(worker)) == 3)
    assert all(process.is_running() for process in family)
    await bystander.stop()
    await bystander.wait(20)
    await all_gone(family)
    # Nothing but the guardian is left, and no zombie.
    await eventually(lambda: len(tree(worker)) == 1)
    assert alive(tree(worker)[0])


@pytest.mark.slow
@pytest.mark.usefixtures("launcher")
@pytest.mark.parametrize("how", ["kill", "drain", "kill without guardian", "kill with guardian"])
async def test_a_workers_end_leaves_no_process(client: AsyncAgentClient, start_worker: Start, how: str) -> None:
    worker = start_worker(*FAST)
    _, own = await in_full(client, worker)
    guardian = [process for process in tree(worker) if process not in own]
    assert len(guardian) == 1
    if how == "kill without guardian":
        guardian[0].kill()
        worker.wait_log("the guardian process died")
        guardian = list(await eventually(lambda: [process for process in tree(worker) if process not in own]))
        # This one is frozen when its worker dies: the next worker's sweep ends what is left.
        guardian[0].send_signal(signal.SIGSTOP)
        try:
            worker.kill()
            start_worker(*FAST)
            await all_gone(own)
        finally:
            guardian[0].send_signal(signal.SIGCONT)
    elif how == "kill with guardian":
        other = start_worker(*FAST, "--name", "other")  # its guardian looks for what others left
        guardian[0].kill()
        worker.kill()
        await all_gone(own)
        assert other.process.poll() is None
    elif how == "kill":
        worker.kill()
        await all_gone(own)
    else:
        assert await asyncio.to_thread(worker.terminate) == 0
        await all_gone(own)
    await all_gone(guardian)


async def test_zombies_are_reaped(client: AsyncAgentClient, start_worker: Start, config: Path, tmp_path: Path) -> None:
    """A runner that goes on leaving orphans which end: the worker, their new parent, reaps them."""
    script = tmp_path / "orphans.sh"
    script.write_text(
        "while read -r line; do case $line in *stop*) exit 0;; esac; for i in 1 2 3 4 5 6; do (true &) ; done;\n"
        'echo \'{"type":"agent_event","event":{"type":"result","subtype":"success","is_error":false,"session_id":"x",'
        '"result":"","num_turns":1,"duration_ms":1,"total_cost_usd":0,"usage":{}}}\'; done\n'
    )
    with config.open("a") as file:
        file.write(f'[providers.orphans]\ncommand = ["sh", "{script}"]\n')
    worker = start_worker(*FAST)
    session = await client.start("orphans", "go")
    await until(session, "idle")
    await eventually(lambda: all(map(alive, tree(worker))))
    await session.stop()
    await session.wait(20)


async def test_a_process_with_a_forged_mark_is_left_alone(start_worker: Start) -> None:
    """The sweep knows its own by mark and start time: a process of a worker that lives is not touched."""
    mine = subprocess.Popen(
        ["sleep", "60"], env={**os.environ, marks.MARK_VARIABLE: marks.make_mark("test")}, start_new_session=True
    )
    try:
        start_worker(*FAST)
        assert mine.poll() is None
    finally:
        mine.kill()
        mine.wait()
