"""A runner that reaches for its worker, its neighbours and Redis: what each sandbox keeps from it, seen from inside."""

from __future__ import annotations

import ast
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrq import AsyncAgentClient
from agentrq.embedded.server_process import ServerProcess
from agentrq_worker.process import procfs
from agentrq_worker.sandbox import landlock
from tests.attacks import attack
from tests.fakes.probe_provider import PROBE
from tests.landlock_marks import needs_landlock, needs_scopes
from tests.rq_checks import eventually
from tests.sessions import texts, until
from tests.workers import Worker, read_of_process

Start = Callable[..., Worker]
FAKES = Path(__file__).parents[1] / "fakes"
KINDS = ["none", pytest.param("landlock", marks=needs_landlock)]
REACH = """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
def tried(what, *args):
    try:
        answer = what(*args)
    except OSError as error:
        return error.strerror
    return answer if isinstance(answer, (bytes, str, int)) else "DONE"
def called(name, *args):
    ctypes.set_errno(0)
    return "DONE" if getattr(libc, name)(*args) != -1 else os.strerror(ctypes.get_errno())
def read(path):
    with open(path, "rb") as file:
        return file.read(1 << 20)
def peek(pid):  # process_vm_readv(2)
    there = (ctypes.c_size_t * 2)(0x400000, 8)
    here = (ctypes.c_size_t * 2)(ctypes.addressof(ctypes.create_string_buffer(8)), 8)
    return called("process_vm_readv", pid, here, 1, there, 1, 0)
worker = os.getppid()
"""


def runs(pid: int) -> bool:
    stat = procfs.read_stat(pid)
    return stat is not None and stat.alive


def sandbox(kind: str, more: str = "") -> str:
    return f'{PROBE}[providers.probe.sandbox]\nkind = "{kind}"\nread = ["{FAKES}"]\n{more}\n'


async def answers(client: AsyncAgentClient, program: str, **options: Any) -> list[Any]:
    """What a probe says, read as Python."""
    session = await client.start("probe", REACH + program, **options)
    await until(session, "idle")
    await session.stop()
    await session.wait(20)
    return [ast.literal_eval(text) for text in await texts(session)]


@attack(
    "a runner reads or writes the memory and environment of its worker and the guardian (/proc, ptrace)",
    "denied with a sandbox of either kind, and to every worker that is not root",
)
@pytest.mark.parametrize("kind", KINDS)
async def test_an_agent_cannot_read_the_workers_memory(
    client: AsyncAgentClient, start_worker: Start, config: Path, kind: str, redis_url: str
) -> None:
    config.write_text(sandbox(kind))
    worker = start_worker(KEY_OF_THE_WORKER="not-for-runners")
    (guardian,) = [int(pid) for pid in Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()]
    found = await answers(
        client,
        f"""
for pid in (worker, {guardian}):
    say(repr([tried(read, f"/proc/{{pid}}/environ"), tried(read, f"/proc/{{pid}}/mem"),
              tried(open, f"/proc/{{pid}}/mem", "r+b"), called("ptrace", 16, pid, 0, 0), peek(pid),
              tried(os.readlink, f"/proc/{{pid}}/cwd"), tried(os.readlink, f"/proc/{{pid}}/fd/0")]))
say(repr(tried(read, f"/proc/{{worker}}/cmdline")))
""",
    )
    denied = {"Permission denied", "Operation not permitted"}
    for reached in found[:2]:
        assert set(reached) <= denied, reached
    assert worker.process.poll() is None
    # What ps shows is everybody's: the way into Redis is not in it (there is no password in a test's URL).
    assert b"not-for-runners" not in found[2]
    assert not read_of_process(guardian, "environ")


@attack(
    "a runner signals its worker, the guardian and the runners of other sessions",
    "denied by `landlock` (Linux 6.12); *not prevented* without it: same user",
)
@needs_scopes
async def test_an_agent_cannot_signal_a_sandboxed_neighbour(
    client: AsyncAgentClient, start_worker: Start, config: Path
) -> None:
    config.write_text(config.read_text() + sandbox("landlock"))
    worker = start_worker()
    neighbour = await client.start("demo", "/echo neighbour")
    await until(neighbour, "idle")
    pids = [int(pid) for pid in Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()]
    assert (await neighbour.state()).pid in pids
    assert len(pids) == 2  # its runner and the guardian
    (found,) = await answers(
        client, f"say(repr([tried(os.kill, pid, number) for pid in (worker, *{pids}) for number in (0, 9, 19)]))"
    )
    assert set(found) == {"Operation not permitted"}
    assert (await neighbour.prompt("/echo still here", wait=True, timeout=20)).outcome == "applied"


@attack(
    "a runner without a sandbox kills its worker and the guardian, and again where it is resumed",
    "neighbours are recovered; it ends `lost` after `max_recoveries`; what it left behind is ended by the next worker",
)
async def test_an_agent_that_kills_its_worker_leaves_no_process(
    client: AsyncAgentClient, start_worker: Start, config: Path, tmp_path: Path
) -> None:
    config.write_text(config.read_text() + PROBE)
    arguments = ("--lease-s", "2", "--beat-s", "0.3")
    worker = start_worker(*arguments)
    neighbour = await client.start("demo", "/echo neighbour")
    await until(neighbour, "idle")
    left = tmp_path / "left"
    program = f"""
import pathlib
pids = [int(pid) for pid in read(f"/proc/{{worker}}/task/{{worker}}/children").split()]
if os.fork() == 0:
    os.setsid()
    pathlib.Path({str(left)!r}).write_text(str(os.getpid()))
    for pid in (*pids, worker):
        if pid not in (os.getpid(), os.getppid()) and b"guardian" in read(f"/proc/{{pid}}/cmdline"):
            os.kill(pid, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
signal.pause()  # the turn is never over
"""
    killer = await client.start("probe", REACH + program, max_recoveries=1)
    assert worker.process.wait(30) == -signal.SIGKILL
    second = start_worker(*arguments)
    assert not runs(int(left.read_text()))  # by the first worker of any test to start on this machine
    await until(killer, "recovering")
    await killer.prompt(REACH + program)
    assert second.process.wait(30) == -signal.SIGKILL
    third = start_worker(*arguments)
    state = await killer.wait(40)
    assert (state.status, state.reason) == ("error", "lost")
    assert (await neighbour.prompt("/echo still here", wait=True, timeout=40)).outcome == "applied"
    assert third.process.poll() is None


@pytest.fixture
def over_tcp(tmp_path: Path) -> Iterator[int]:
    """The port of a Redis that anybody on this machine reaches."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ServerProcess(tmp_path / "tcp", port=port):
        yield port


@attack(
    "a runner connects to Redis, or to anything else by TCP",
    "denied by `landlock` with `connect` (Linux 6.7); *not prevented*: UDP, and unix sockets with a path",
)
@needs_landlock
async def test_a_sandboxed_agent_cannot_reach_redis_by_tcp(
    client: AsyncAgentClient, start_worker: Start, config: Path, over_tcp: int
) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    allowed = listening.getsockname()[1]
    config.write_text(sandbox("landlock", f"connect = [{allowed}]"))
    worker = start_worker()
    program = f"""
import socket
say(repr([tried(socket.create_connection, ("127.0.0.1", port)) for port in ({over_tcp}, {allowed})]))
"""
    (found,) = await answers(client, program)
    assert found == ["Permission denied", "DONE"]
    listening.close()
    state = next(state for state in await client.states() if state.provider == "probe")
    assert f"TCP only to {allowed}" in state.enforced
    # And without that setting it is reached: the test can fail.
    assert worker.terminate() == 0
    config.write_text(sandbox("landlock"))
    start_worker()
    (found,) = await answers(client, program)
    assert found[0] == "DONE"


@attack(
    "a runner looks for what it should not have: descriptors, environment, privileges, limits, umask, home",
    "the allow-list, its own home, 0 1 2, `no_new_privs`, no capability, hard limits; the state says which apply",
)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_sandboxed_agent_sees_only_its_directories(
    client: AsyncAgentClient, start_worker: Start, config: Path, kind: str, tmp_path: Path
) -> None:
    homes = tmp_path / "homes"
    (tmp_path / "worker-home").mkdir()
    (tmp_path / "worker-home/login.json").write_text("logged in")
    # RLIMIT_NPROC does not bind a root; that it is refused there is test_sandbox.py's.
    more = "" if os.geteuid() == 0 else "processes = 400\n"
    config.write_text(f'homes_dir = "{homes}"\n' + sandbox(kind, f"""
home = "session"
login = ["login.json"]
umask = "077"
memory = {1 << 30}
open_files = 99
file_size = {1 << 20}
cpu_s = 77
{more}"""))  # fmt: skip
    start_worker(HOME=str(tmp_path / "worker-home"), SECRET_OF_THE_WORKER="x", CLAUDECODE="1", OPENAI_API_KEY="x")
    found = await answers(
        client,
        """
import resource, stat
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
say(repr({
    "environ": sorted(os.environ), "umask": os.umask(0),
    "fds": {n: stat.S_IFMT(os.fstat(int(n)).st_mode) == stat.S_IFIFO for n in os.listdir("/proc/self/fd") if int(n) < 3
            or tried(os.fstat, int(n)) == "DONE"},
    "status": {name: status[name].strip() for name in ("NoNewPrivs", "CapEff", "CapBnd", "CapPrm", "CapInh", "CapAmb")},
    "limits": {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name))
               for name in ("DATA", "NOFILE", "FSIZE", "CPU", "CORE", "NPROC")},
    "home": [os.environ[name] for name in ("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")],
    "login": open(os.path.expanduser("~/login.json")).read(),
    "session": os.getsid(0) == os.getpid() == os.getpgid(0),
}))
""",
    )
    inside = found[0]
    (state,) = await client.states()
    assert not {"SECRET_OF_THE_WORKER", "CLAUDECODE", "OPENAI_API_KEY", "AGENTRQ_REDIS_URL"} & set(inside["environ"])
    assert inside["umask"] == 0o77
    assert inside["fds"] == {"0": True, "1": True, "2": True}
    nothing = "0" * 16
    bounding = inside["status"].pop("CapBnd")  # who has no capability cannot give up what he might have been given
    assert bounding == nothing or os.geteuid() != 0
    assert inside["status"] == {"NoNewPrivs": "1"} | dict.fromkeys(("CapEff", "CapPrm", "CapInh", "CapAmb"), nothing)
    limits = inside["limits"]
    assert limits["DATA"] == (1 << 30, 1 << 30)
    assert limits["NOFILE"] == (99, 99)
    assert limits["FSIZE"] == (1 << 20, 1 << 20)
    assert limits["CPU"] == (77, 77)
    assert limits["CORE"] == (0, 0)
    assert all(place.startswith(f"{homes}/{state.session_id}/") for place in inside["home"])
    assert inside["login"] == "logged in"
    assert inside["session"]
    said = state.enforced.split(", ")
    assert {"no_new_privs", "no capabilities", "own home", "cpu_s 77", f"memory {1 << 30}"} <= set(said)
    assert (f"landlock {landlock.version()}" in said) == (kind == "landlock")


@attack("sessions of runners that keep no login look into each other's home", "each has its own, by default")
async def test_a_built_in_runner_gets_a_home_of_its_session(
    client: AsyncAgentClient, start_worker: Start, config: Path, tmp_path: Path
) -> None:
    config.write_text(f'homes_dir = "{tmp_path}/homes"\n[providers.off.sandbox]\nhome = "worker"\n' + PROBE)
    start_worker()
    session = await client.start("demo", "/echo hi")
    await until(session, "idle")
    state = await session.state()
    environment = Path(f"/proc/{state.pid}/environ").read_bytes().split(b"\0")
    assert f"HOME={tmp_path}/homes/{session.id}/home".encode() in environment
    assert state.enforced == "own home"
    probe = await client.start("probe", "say(given)")  # a program of the operator's: its login is in its home
    await until(probe, "idle")
    assert (await probe.state()).enforced == ""
    await session.stop()
    await session.wait(20)
    await eventually(lambda: not list((tmp_path / "homes").iterdir()))
