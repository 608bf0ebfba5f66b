"""Runners that mean harm: bounded, survived and ended, while a neighbour of the same worker is served on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrq import AsyncAgentClient
from tests.attacks import attack
from tests.fakes.hostile import DEAF_ONLY, DEEP, DISK, FORK_LOOP, FORKS, SOCKETS, STDERR, no_newline
from tests.fakes.probe_provider import PROBE
from tests.rq_checks import eventually
from tests.sessions import contents, serves, until
from tests.workers import Worker, peak

Start = Callable[..., Worker]
GIB = 1024


def tree(pid: int) -> set[int]:
    """A process and all that descend from it now."""
    found: set[int] = {pid}
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found.add(child)
            waiting.append(child)
    return found


@pytest.mark.slow
@attack(
    "a runner floods stderr, forks (and forks on), opens sockets, prints 1 GiB without a newline, nests without end, "
    "ignores signals",
    "bounded, and ended with every process of its tree; neighbours are still served, the worker's memory is as before",
)
@pytest.mark.parametrize(
    ("program", "says"),
    [
        (FORKS, "forked"),
        (FORK_LOOP, "forking"),
        (SOCKETS, "open"),
        (STDERR, "flooding"),
        (no_newline(GIB), "done"),
        (DEEP, "deep"),
        (DEAF_ONLY, "deaf"),
    ],
    ids=["forks", "fork loop", "sockets", "stderr", "1 GiB without newline", "deep", "deaf"],
)
async def test_a_hostile_runner_ends_only_its_own_session(
    client: AsyncAgentClient, start_worker: Start, config: Path, raw: Any, program: str, says: str
) -> None:
    config.write_text(f"{config.read_text()}{PROBE}")
    worker = start_worker("--max-line", "1048576", "--stop-grace-s", "0")
    neighbour = await client.start("demo", "/echo neighbour")
    await until(neighbour, "idle")
    before = peak(worker.pid)
    session = await client.start("probe", program)
    async for event in session.events():
        if contents([event], "text") and event.content.text == says:  # type: ignore[union-attr]
            break
    await serves(client, neighbour)
    pid = (await session.state()).pid or 0
    await eventually(lambda: len(tree(pid)) >= (61 if program is FORKS else 1))
    pids = tree(pid)
    await session.stop()
    assert (await session.wait(30)).reason == "stopped"
    await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    await serves(client, neighbour)
    assert peak(worker.pid) - before < 64 << 20
    if program is STDERR:
        worker.wait_log(f"session {session.id}: .* lines of stderr left out")
        assert len([line for line in worker.log if f"session {session.id}: stderr" in line]) < 3000
    if says == "done":
        errors = contents([event async for event in session.events()], "error")
        assert [(error.code, error.bytes) for error in errors] == [("line_too_long", GIB << 20)]
    assert all(len(line) < 10_000 for line in worker.log)


@pytest.mark.slow
@attack("a runner closes its stdin and lives on; it is sent a prompt", "ended after 10 s with the cause")
async def test_a_runner_that_does_not_read_its_stdin_is_ended(
    client: AsyncAgentClient, start_worker: Start, config: Path
) -> None:
    config.write_text(f"{config.read_text()}{PROBE}")
    start_worker("--stop-grace-s", "0")
    session = await client.start("probe", "import os, time\nos.close(0)\nresult()\ntime.sleep(1000)")
    await until(session, "idle")
    pids = tree((await session.state()).pid or 0)
    await session.prompt("for nobody")
    state = await session.wait(60)
    assert (state.status, state.reason) == ("error", "failed")
    assert state.error == "The runner closed its stdin and did not end"
    await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


@pytest.mark.slow
@attack("a runner closes its stdout and lives on", "ended after 10 s with the cause: it could not report its end")
async def test_a_runner_that_closed_its_stdout_is_ended(
    client: AsyncAgentClient, start_worker: Start, config: Path
) -> None:
    config.write_text(f"{config.read_text()}{PROBE}")
    start_worker("--stop-grace-s", "0")
    session = await client.start("probe", "import os, time\nsay('bye')\nos.close(1)\ntime.sleep(1000)")
    await until(session, "running")
    pids = tree((await session.state()).pid or 0)
    state = await session.wait(60)
    assert (state.status, state.reason) == ("error", "failed")
    assert state.error == "The runner closed its stdout and did not end"
    await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert [content.text for content in contents([event async for event in session.events()], "text")] == ["bye"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.slow
@attack(
    "a runner fills its disk, the one that homes and spool are on too",
    "neighbours are still served, new sessions start",
)
async def test_a_full_disk_pauses_the_runner_and_loses_nothing(
    client: AsyncAgentClient, start_worker: Start, config: Path, small_disk: Path
) -> None:
    for name in ("ws", "homes", "spool"):
        (small_disk / name).mkdir(mode=0o700)
    config.write_text(f'''homes_dir = "{small_disk}/homes"
spool_dir = "{small_disk}/spool"
{config.read_text()}{PROBE}''')
    worker = start_worker("--stop-grace-s", "0")
    neighbour = await client.start("demo", "/echo neighbour")
    await until(neighbour, "idle")
    session = await client.start("probe", DISK, cwd=str(small_disk / "ws"))
    async for event in session.events():
        if contents([event], "text") and event.content.text == "full":  # type: ignore[union-attr]
            break
    assert os.statvfs(small_disk).f_bavail < 1 << 8
    await serves(client, neighbour)
    other = await client.start("probe", "say('started')")
    await until(other, "idle")
    await session.stop()
    assert (await session.wait(30)).reason == "stopped"
    await serves(client, neighbour)
    assert worker.process.poll() is None


@pytest.mark.slow
@attack("a runner writes a file of any size, or many", "`file_size` ends each; bound the sum by a quota")
async def test_a_runner_at_its_file_size_limit_ends_only_its_session(
    client: AsyncAgentClient, start_worker: Start, config: Path, tmp_path: Path
) -> None:
    config.write_text(f"{PROBE}[providers.probe.sandbox]\nfile_size = {1 << 20}\n")
    start_worker("--stop-grace-s", "0")
    (tmp_path / "ws").mkdir()
    session = await client.start("probe", DISK, cwd=str(tmp_path / "ws"))
    async for event in session.events():
        if contents([event], "text") and event.content.text == "full":  # type: ignore[union-attr]
            break
    assert {path.stat().st_size for path in (tmp_path / "ws").iterdir()} == {1 << 20}
    await session.stop()
    assert (await session.wait(30)).reason == "stopped"
