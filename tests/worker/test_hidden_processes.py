"""Where /proc hides a worker from its user's other processes (hidepid=, ProtectProc=), nothing of it is ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentrq_worker
from agentrq_worker.process import procfs
from tests.attacks import attack

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
PYTHONS = [os.path.realpath(sys.executable), "/usr/bin/python3"]

# A worker with two runners: one with a mark and a tag, one whose environment was cleaned, so that it has the tag only.
WORKER = """
import subprocess, sys
from agentrq_worker.process import marks, prctl, procfs
from agentrq_worker.process.guardian import Guardian
prctl.deny_inspection()
pids = [Guardian().pid] if "guardian" in sys.argv else []
mark = marks.make_mark("s")
with marks.tagged(mark):
    for env in ({marks.MARK_VARIABLE: mark}, {}):
        pids.append(subprocess.Popen(["/bin/sleep", "1000"], env=env, start_new_session=True, stdout=2).pid)
print(*pids, flush=True)
sys.stdin.read()
"""
# Another process of the same user, which sweeps before and after the worker's end.
SWEEPER = """
import json, os, select, subprocess, sys
from agentrq_worker.process import marks, prctl, procfs
from agentrq_worker.process.guardian import sweep

def runs(pid):
    stat = procfs.read_stat(pid)
    return stat is not None and stat.alive

def ends(pid):
    handle = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(20_000))

worker = subprocess.Popen([sys.executable, "-I", "-S", "-c", sys.argv[1], *sys.argv[2:]], stdin=subprocess.PIPE,
stdout=subprocess.PIPE)
*guardian, marked, tagged = map(int, worker.stdout.readline().split())
found = {"hidden": procfs.read_stat(worker.pid) is None, "swept": sweep(), "alive": [runs(marked), runs(tagged)]}
worker.kill()
worker.wait()
if guardian:
    found["ended"] = [ends(marked), ends(tagged)]
else:
    found["swept after"] = sweep()
    found["alive after"] = [runs(marked), runs(tagged)]
    if runs(tagged):
        os.kill(tagged, 9)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def nobodys() -> Iterator[list[str]]:
    """A Python for a user who may see neither the checkout nor the tests' directories, with the modules it needs."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounts /proc anew and becomes another user: needs root on Linux")
    if not all(map(shutil.which, ("unshare", "setpriv", "mount"))):
        pytest.skip("needs unshare, setpriv and mount (util-linux)")
    with tempfile.TemporaryDirectory() as directory:
        package = Path(agentrq_worker.__file__).parent
        os.chmod(directory, 0o755)
        (Path(directory) / "agentrq_worker").mkdir()
        (Path(directory) / "agentrq_worker/__init__.py").touch()
        shutil.copytree(package / "process", Path(directory) / "agentrq_worker/process")
        for python in PYTHONS:
            # Only what it starts has the rights of another user in full: setpriv keeps capabilities up to its exec.
            again = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-I', '-c', '']))"
            command = [*NOBODY, python, "-I", "-S", "-B", "-c", again]
            if Path(python).exists() and subprocess.run(command, capture_output=True, check=False).returncode == 0:
                break
        else:
            pytest.skip(f"no Python that another user may run: tried {', '.join(PYTHONS)}")
        yield [python, directory]


def sweep_beside_a_worker(nobodys: list[str], options: str, *arguments: str) -> Any:
    """What a sweep beside a live worker, and another after its end, find where /proc is mounted with ``options``."""
    python, directory = nobodys
    room = f"import sys; sys.path.append({directory!r})\n"
    inner = [*NOBODY, python, "-I", "-S", "-B", "-c", room + SWEEPER, room + WORKER, *arguments]
    mounted = ["unshare", "--mount", "sh", "-c", f'mount -t proc -o {options} proc /proc && exec "$@"', "sh", *inner]
    done = subprocess.run(mounted, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    if "mount" in done.stderr and not done.stdout:
        pytest.skip(f"/proc cannot be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@attack(
    "a host whose /proc hides processes (`hidepid=`, `ProtectProc=`): guardians and sweeps look for leftovers",
    "a worker that cannot be seen counts as alive; what an ended one has left behind is ended as far as it can be seen",
)
def test_runners_of_a_hidden_worker_live_as_long_as_it_does(nobodys: list[str]) -> None:
    found = sweep_beside_a_worker(nobodys, "hidepid=2")
    assert found["hidden"]
    assert (found["swept"], found["alive"]) == (0, [True, True])
    # The one without a mark names its worker by a number alone, and a worker of that number may live unseen.
    assert (found["swept after"], found["alive after"]) == (1, [False, True])


def test_the_guardian_of_a_hidden_worker_ends_what_it_leaves(nobodys: list[str]) -> None:
    found = sweep_beside_a_worker(nobodys, "hidepid=2", "guardian")
    assert found == {"hidden": True, "swept": 0, "alive": [True, True], "ended": [True, True]}


def test_where_nothing_is_hidden_all_that_is_left_is_swept(nobodys: list[str]) -> None:
    found = sweep_beside_a_worker(nobodys, "hidepid=0")
    assert found == {
        "hidden": False, "swept": 0, "alive": [True, True], "swept after": 2, "alive after": [False, False],
    }  # fmt: skip


def test_a_process_is_gone_only_if_it_certainly_is(monkeypatch: pytest.MonkeyPatch) -> None:
    me = os.getpid(), procfs.starttime(os.getpid())
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert not procfs.is_gone(me)
    assert procfs.is_gone((me[0], me[1] - 1))  # the pid is another's by now
    assert procfs.is_gone((ended.pid, 1))
    assert not procfs.is_gone((me[0], 0))  # its start time was not known: some process has its pid
    assert procfs.is_gone((ended.pid, 0))
    assert not procfs.is_gone((1 << 70, 1))  # not a pid
    seen = procfs.snapshot()
    assert procfs.sees_all(seen) or b"hidepid=" in procfs.read_file("/proc/self/mountinfo")
    del seen[os.getpid()]  # it could not be read for a moment, and is older than others that could
    assert not procfs.sees_all(seen)
    monkeypatch.setattr(procfs, "read_stat", lambda pid: None)
    assert not procfs.is_gone(me)
    assert procfs.is_gone((ended.pid, 1))
    monkeypatch.setattr(procfs, "AVAILABLE", False)  # its pids would be those of another PID namespace
    assert not procfs.is_gone((ended.pid, 1))
    assert not procfs.sees_all({})
