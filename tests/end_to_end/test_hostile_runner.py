"""Runners that mean harm: bounded, survived and ended, while a neighbour of the same worker is served on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentrq import AsyncAgentClient
from tests.end_to_end.test_hostile_redis import serves
from tests.end_to_end.test_isolation import PROBE
from tests.rq_checks import eventually
from tests.sessions import contents, until
from tests.workers import Worker, resident

Start = Callable[..., Worker]
DEAF = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
"""
FORKS = (
    DEAF
    + """
for _ in range(30):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.environ.clear()
            os.closerange(0, 3)
        while True:
            time.sleep(60)
say("forked")
while True:
    time.sleep(60)
"""
)
SOCKETS = (
    DEAF
    + """
import socket
kept = [socket.socket(socket.AF_UNIX) for _ in range(500)]
for number, opened in enumerate(kept[:50]):
    opened.bind(f"\\0hostile-{os.getpid()}-{number}")
    opened.listen()
say("open")
while True:
    time.sleep(60)
"""
)
STDERR = (
    DEAF
    + """
say("flooding")
line = b"\\xff\\x1b[2J" + b"e" * 65536
while True:
    os.write(2, line + b"\\n" * 50)
"""
)
NO_NEWLINE = (
    DEAF
    + """
say("flooding")
for _ in range(3 * 1024):
    os.write(1, b"x" * 65536)
os.write(1, b"\\n")
say("done")
while True:
    time.sleep(60)
"""
)
DEEP = (
    DEAF
    + """
deep = '{"type":"assistant","message":' + "[" * 90_000 + "]" * 90_000 + "}"
for text in ("[" * 500_000, '{"type":' * 100_000, "\\x00\\xff\\xfe", deep):
    os.write(1, text.encode("latin-1") + b"\\n")
say("deep")
while True:
    time.sleep(60)
"""
)


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


@pytest.mark.parametrize(
    ("program", "says"),
    [(FORKS, "forked"), (SOCKETS, "open"), (STDERR, "flooding"), (NO_NEWLINE, "done"), (DEEP, "deep")],
    ids=["forks", "sockets", "stderr", "no newline", "deep"],
)
async def test_hostile(
    client: AsyncAgentClient, start_worker: Start, config: Path, raw: Any, program: str, says: str
) -> None:
    config.write_text(f"{config.read_text()}{PROBE}")
    worker = start_worker("--max-line", "1048576", "--stop-grace-s", "0")
    neighbour = await client.start("demo", "/echo neighbour")
    await until(neighbour, "idle")
    before = resident(worker.pid)
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
    assert resident(worker.pid) - before < 64 << 20
    if program is STDERR:
        worker.wait_log(f"session {session.id}: .* lines of stderr left out")
        assert len([line for line in worker.log if f"session {session.id}: stderr" in line]) < 3000
    if program is NO_NEWLINE:
        errors = contents([event async for event in session.events()], "error")
        assert [(error.code, error.bytes) for error in errors] == [("line_too_long", 3 * 1024 * 65536)]
    assert all(len(line) < 10_000 for line in worker.log)
