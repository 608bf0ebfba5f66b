"""How many files a worker may have open: as many as its sessions take."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrq import AsyncAgentClient
from tests.sessions import contents, until
from tests.workers import Worker

PROBE = Path(__file__).parents[1] / "fakes/probe_runner.py"
# What a process inherits from the one that starts it. (RLIMIT_RTTIME is the worker's mark on its runners.)
INHERITED = """
import json, os, resource
found = {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")}
del found["RLIMIT_RTTIME"]
found["umask"] = os.umask(0)
found["niceness"], found["processors"] = os.nice(0), sorted(os.sched_getaffinity(0))
found["scheduling"] = os.sched_getscheduler(0), str(os.sched_getparam(0))
wanted = "SigBlk", "SigIgn", "NoNewPrivs", "Seccomp", "CapInh", "CapAmb", "CapBnd"
with open("/proc/self/status") as status:
    found |= dict(line.split() for line in status if line.partition(":")[0] in wanted)
# Bits of the signals 32 and 33: the C library keeps them for its threads, and resets them in a program that has some.
for mask in ("SigBlk:", "SigIgn:"):
    found[mask] = int(found[mask], 16) & ~(3 << 31)
for name in ("oom_score_adj", "timerslack_ns", "coredump_filter"):
    with open(f"/proc/self/{name}") as file:
        found[name] = file.read()
found["descriptors"] = sorted(os.listdir("/proc/self/fd"))[:3]
"""


@pytest.fixture
def few_files() -> Iterator[None]:
    """What this process starts meanwhile may open no more than 256 files, unless it raises that itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files")
def test_the_soft_limit_is_raised_to_what_the_sessions_take(start_worker: Callable[..., Worker]) -> None:
    worker = start_worker("--max-sessions", "300")
    assert resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)[0] == 256 + 5 * 300


def test_a_hard_limit_that_is_too_low_is_logged(start_worker: Callable[..., Worker]) -> None:
    worker = start_worker("--max-sessions", str(2**31))
    worker.wait_log(r"max_sessions 2147483648 needs some 10737418496 open files; the limit is \d+")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.usefixtures("few_files")
async def test_an_agent_inherits_nothing_that_the_worker_changed_for_itself(
    client: AsyncAgentClient, start_worker: Callable[..., Worker], config: Path
) -> None:
    config.write_text(f'[providers.probe]\ncommand = ["{sys.executable}", "{PROBE}"]\n')
    start_worker("--max-sessions", "300")
    session = await client.start("probe", INHERITED + "say(json.dumps(found))")
    await until(session, "idle")
    await session.stop()
    said: list[Any] = contents([event async for event in session.events()], "text")
    plain = subprocess.run(
        [sys.executable, "-c", INHERITED + "print(json.dumps(found))"], capture_output=True, check=True, text=True
    )
    assert json.loads(said[0].text) == json.loads(plain.stdout)
    assert json.loads(said[0].text)["RLIMIT_NOFILE"][0] == 256
