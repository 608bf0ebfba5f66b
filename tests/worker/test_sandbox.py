"""A process that confines itself: what it still can do, and that it does not begin where it cannot be held."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentrq_worker.sandbox import landlock, seccomp
from agentrq_worker.sandbox.apply import CANNOT
from agentrq_worker.sandbox.plan import CannotConfine, Home, complaint, confine
from agentrq_worker.sandbox_settings import Sandbox
from tests.attacks import attack
from tests.landlock_marks import needs_landlock

LANDLOCK = Sandbox(kind="landlock", home="worker")


def run(
    sandbox: Sandbox, code: str, cwd: Path, env: dict[str, str] | None = None, popen: Any = None, **given: Any
) -> subprocess.CompletedProcess[str]:
    """``code`` in a confined Python."""
    return confined_run(sandbox, [sys.executable, "-I", "-S", "-c", code], cwd, env, popen, **given)


def confined_run(
    sandbox: Sandbox, argv: list[str], cwd: Path, env: dict[str, str] | None = None, popen: Any = None, **given: Any
) -> subprocess.CompletedProcess[str]:
    kept = ["AGENTRQ_RUNNER_MARK"]
    confined = confine(sandbox, argv, {"PATH": os.environ["PATH"], **(env or {})}, keep_variables=kept, **given)
    with confined.plan:
        return subprocess.run(
            confined.argv, env={"AGENTRQ_RUNNER_MARK": "1.2.3.x", "LEAK": "no"}, cwd=cwd,
            pass_fds=[confined.plan.fileno()], capture_output=True, text=True, timeout=30, check=False, **(popen or {}),
        )  # fmt: skip


def test_the_environment_is_the_plans_and_the_mark(tmp_path: Path) -> None:
    code = "import os; print(sorted(name for name in os.environ if name != 'LC_CTYPE'), os.environ['KEY'])"
    done = run(Sandbox(umask="027"), code.replace("])", "].encode('utf-8', 'surrogateescape'))"), tmp_path,
               {"KEY": "\udcff'\n"})  # fmt: skip
    assert done.stdout == "['AGENTRQ_RUNNER_MARK', 'KEY', 'PATH'] b\"\\xff'\\n\"\n", done.stderr


def test_nothing_is_inherited_and_nothing_can_be_gained(tmp_path: Path) -> None:
    code = """
import os, resource
print(sorted(int(fd) for fd in os.listdir("/proc/self/fd")), oct(os.umask(0)),
      [line.split()[1] for line in open("/proc/self/status") if line.startswith("NoNewPrivs")],
      resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    done = run(Sandbox(umask="077", open_files=64), code, tmp_path)
    assert done.stdout == "[0, 1, 2, 3] 0o77 ['1'] (0, 0) (64, 64)\n", done.stderr


@pytest.mark.parametrize(
    ("sandbox", "code", "says"),
    [
        (Sandbox(memory=100 << 20), "bytearray(200 << 20)", "MemoryError"),
        (Sandbox(open_files=20), "f = [open('/dev/null') for _ in range(30)]", "Too many open files"),
        (Sandbox(file_size=1000), "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
         "with open('f', 'wb', 0) as f: print(f.write(b'x' * 2000)); f.write(b'x')", "File too large"),
    ],
)  # fmt: skip
def test_limits_bind(sandbox: Sandbox, code: str, says: str, tmp_path: Path) -> None:
    done = run(sandbox, code, tmp_path)
    assert done.returncode == 1
    assert says in done.stderr


def test_a_loop_without_end_is_ended(tmp_path: Path) -> None:
    assert run(Sandbox(cpu_s=1), "while True: pass", tmp_path).returncode < 0


@attack("raising a limit again", "denied")
def test_limits_cannot_be_raised_again(tmp_path: Path) -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))"
    assert "not allowed to raise" in run(Sandbox(open_files=20), code, tmp_path).stderr


def test_a_limit_on_processes_binds_or_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        with pytest.raises(CannotConfine, match=r"sandbox\.processes: this worker runs as root"):
            confine(Sandbox(processes=5), ["true"], {})
    else:
        done = run(Sandbox(processes=1), "import os; os.fork()", tmp_path)
        assert "Resource temporarily unavailable" in done.stderr


ESCAPES = """
import os, sys
def tried(what, *args, **more):
    try:
        what(*args, **more)
    except OSError as error:
        return error.strerror
    return "DONE"
outside, workspace = sys.argv[1:]
open("mine", "w").write("x")
print([
    tried(open, outside + "/secret"),
    tried(open, outside + "/new", "w"),
    tried(open, outside + "/secret", "a"),
    tried(os.truncate, outside + "/secret", 0),
    tried(os.unlink, outside + "/secret"),
    tried(os.mkdir, outside + "/dir"),
    tried(os.listdir, outside),
    tried(os.rename, "mine", outside + "/moved"),
    tried(os.link, outside + "/secret", "linked"),
    tried(open, "link-to-secret"),
    tried(open, workspace + "/../outside/secret"),
    tried(open, f"/proc/{os.getppid()}/environ"),
    tried(open, f"/proc/{os.getppid()}/root{outside}/secret"),
    tried(open, "/etc/agentrq-test", "w"),
    tried(os.kill, os.getppid(), 0),
    tried(os.execv, outside + "/tool", ["tool"]),
])
print([tried(open, "mine"), tried(open, "/etc/passwd"), tried(open, "/dev/null", "w"), tried(os.mkdir, "sub"),
       tried(os.system, "true")])
"""


@attack(
    "reading, writing, truncating, renaming, linking, executing outside the workspace, by links, `..` and /proc too",
    "denied by the kernel",
)
@needs_landlock
def test_out_of_the_workspace(tmp_path: Path) -> None:
    workspace, outside = tmp_path / "workspace", tmp_path / "outside"
    workspace.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (outside / "tool").write_text("#!/bin/sh\n")
    (outside / "tool").chmod(0o755)
    (workspace / "link-to-secret").symlink_to(outside / "secret")
    argv = [sys.executable, "-I", "-S", "-c", ESCAPES, str(outside), str(workspace)]
    confined = confine(LANDLOCK, argv, {"PATH": os.environ["PATH"]})
    with confined.plan:
        done = subprocess.run(
            confined.argv, env={}, cwd=workspace, pass_fds=[confined.plan.fileno()], capture_output=True, text=True,
            timeout=30, check=False,
        )  # fmt: skip
    escapes, allowed = done.stdout.splitlines() or [done.stderr, ""]
    assert "DONE" not in escapes, escapes
    assert escapes.count("Permission denied") + escapes.count("cross-device") + escapes.count("not permitted") == 16
    assert allowed == str(["DONE"] * 5)
    assert (outside / "secret").read_text() == "secret"
    assert sorted(path.name for path in outside.iterdir()) == ["secret", "tool"]
    assert confined.enforced.startswith(f"landlock {landlock.version()}, no_new_privs, no capabilities")


@attack("the same by a child in a session of its own", "denied: restrictions are inherited")
@needs_landlock
def test_children_are_held_too_and_cannot_let_go(tmp_path: Path) -> None:
    (tmp_path / "ws").mkdir()
    (tmp_path / "secret").write_text("x")
    code = f"import os; os.system('setsid cat {tmp_path}/secret; cat {tmp_path}/secret; echo end')"
    done = run(LANDLOCK, code, tmp_path / "ws")
    assert done.stdout == "end\n"


@attack(
    "a link put in the place of a directory after the worker's check", "`refused`: checked again where it really is"
)
@needs_landlock
def test_further_directories_are_held_to_the_roots_where_they_really_are(tmp_path: Path) -> None:
    """The link came after the worker's check."""
    for name in ("ws", "outside"):
        (tmp_path / name).mkdir()
    (tmp_path / "ws/more").symlink_to(tmp_path / "outside")
    done = run(LANDLOCK, "print(1)", tmp_path / "ws", workspace=[f"{tmp_path}/ws/more"], roots=[f"{tmp_path}/ws"])
    assert (done.returncode, done.stdout) == (CANNOT, "")
    refused = complaint(done.returncode, done.stderr)
    assert refused == (True, f"The sandbox cannot be enforced: {tmp_path}/outside is not under policy.roots")


CONNECTING = """
import os, socket, sys
port, allowed = map(int, sys.argv[1:])
def plain(to): socket.create_connection(("127.0.0.1", to))
def fast(to): socket.socket().sendto(b"x", socket.MSG_FASTOPEN, ("127.0.0.1", to))
def fast_by_message(to): socket.socket().sendmsg([b"x"], [], socket.MSG_FASTOPEN, ("127.0.0.1", to))
def fast_later(to):
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
    sock.connect(("127.0.0.1", to))
    sock.send(b"x")
def multipath(to):
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    sock.connect(("127.0.0.1", to))
def mapped(to): socket.socket(socket.AF_INET6).connect(("::ffff:127.0.0.1", to))
def other(to): socket.socket(43, socket.SOCK_STREAM).connect(("127.0.0.1", to))  # AF_SMC
def tried(what, to):
    try:
        what(to)
    except OSError as error:
        return error.strerror
    return "DONE"
for way in (plain, fast, fast_by_message, fast_later, multipath, mapped, other):
    print(way.__name__, tried(way, port))
print(tried(plain, allowed), tried(lambda _: os.system("true"), 0))
"""


@attack(
    "connecting by TCP without connect(2), which is all that landlock sees: Fast Open, multipath TCP, SMC, io_uring",
    "a seccomp filter answers as a kernel without them would",
)
@needs_landlock
def test_no_way_around_connect(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as redis, socket.create_server(("127.0.0.1", 0)) as allowed:
        ports = [server.getsockname()[1] for server in (redis, allowed)]
        argv = [sys.executable, "-I", "-S", "-c", CONNECTING, *map(str, ports)]
        sandbox = Sandbox(kind="landlock", home="worker", connect=[ports[1]])
        done = confined_run(sandbox, argv, tmp_path)
        *tries, rest = done.stdout.splitlines() or [done.stderr]
        assert len(tries) == 7
        assert not [way for way in tries if "DONE" in way]
        assert rest == "DONE DONE"
        redis.setblocking(False)
        with pytest.raises(BlockingIOError):
            redis.accept()


@needs_landlock
def test_io_uring_is_not_there_where_connections_are_held(tmp_path: Path) -> None:
    code = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(425, 1, bytes(120)), ctypes.get_errno())
"""
    done = run(Sandbox(kind="landlock", home="worker", connect=[443]), code, tmp_path)
    assert done.stdout == f"-1 {errno.ENOSYS}\n", done.stderr


@needs_landlock
def test_a_machine_without_a_filter_holds_no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "_ARCHITECTURES", {})
    with pytest.raises(CannotConfine, match=r"sandbox\.connect: not on this kind of machine"):
        confine(Sandbox(kind="landlock", connect=[443]), ["true"], {"PATH": os.environ["PATH"]})
    confine(LANDLOCK, ["true"], {"PATH": os.environ["PATH"]}).plan.close()


def test_a_kernel_without_landlock_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (0, landlock.NEEDED - 1):
        monkeypatch.setattr(landlock, "version", lambda version=version: version)
        with pytest.raises(CannotConfine, match=r"sandbox\.kind landlock: this kernel has .* is needed"):
            confine(LANDLOCK, ["true"], {"PATH": os.environ["PATH"]})


def test_a_path_that_is_asked_for_and_not_there_starts_nothing() -> None:
    with pytest.raises(CannotConfine, match=r"sandbox\.write: /no/such does not exist"):
        confine(Sandbox(write=["/no/such"]), ["true"], {"PATH": os.environ["PATH"]})


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        confine(Sandbox(), ["no-such-program"], {"PATH": os.environ["PATH"]})
    confined = confine(Sandbox(), ["./nothing"], {"PATH": os.environ["PATH"]})
    with confined.plan:
        done = subprocess.run(
            confined.argv, env={}, cwd=tmp_path, pass_fds=[confined.plan.fileno()], capture_output=True, text=True,
            timeout=30, check=False,
        )  # fmt: skip
    expected = (False, "Runner could not be started: ./nothing: No such file or directory")
    assert complaint(done.returncode, done.stderr) == expected


@attack(
    "variables against the interpreter that applies the sandbox (PYTHONPATH, LD_PRELOAD)", "no effect: it gets none"
)
def test_no_start_reaches_the_interpreter_that_confines(tmp_path: Path) -> None:
    """Python's, the loader's and the C library's variables are the runner's business only."""
    (tmp_path / "sitecustomize.py").write_text("open('sprung', 'w')")
    env = {"PYTHONPATH": str(tmp_path), "LD_PRELOAD": "/no/such.so", "GCONV_PATH": str(tmp_path), "PYTHONINSPECT": "1"}
    done = run(Sandbox(umask="077"), "print('ran')", tmp_path, env)
    assert done.stdout == "ran\n"
    assert done.stderr.count("/no/such.so") == 1  # by the runner's own loader
    assert not (tmp_path / "sprung").exists()


def test_a_complaint_is_no_other_exit() -> None:
    assert complaint(1, "agentrq: cannot be confined as asked: x") is None
    assert complaint(CANNOT, "something else") is None


# -- homes


@attack("links in a session's home, where the login is copied and where it is removed", "not followed")
def test_a_home_is_its_sessions_and_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own"
    (own / ".agent").mkdir(parents=True)
    (own / ".agent/login.json").write_text("token")
    (own / ".agent.json").write_text("{}")
    monkeypatch.setenv("HOME", str(own))
    home = Home.make(tmp_path / "homes", "s1", [".agent", ".agent.json", ".absent"])
    assert (home.path / "home/.agent/login.json").read_text() == "token"
    assert (home.path / "home/.agent.json").stat().st_mode & 0o777 == 0o600
    assert home.path.stat().st_mode & 0o777 == 0o700
    assert set(home.variables) >= {"HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"}
    assert all(value.startswith(str(home.path)) for value in home.variables.values())
    # The agent puts links there: neither the next copy nor the removal follows them.
    (home.path / "home/.agent.json").unlink()
    (home.path / "home/.agent.json").symlink_to(own / "target")
    (home.path / "home/all").symlink_to(own)
    assert Home.make(tmp_path / "homes", "s1", [".agent.json"]) == home
    home.remove()
    assert sorted(path.name for path in own.iterdir()) == [".agent", ".agent.json"]
    assert list((tmp_path / "homes").iterdir()) == []


@attack("homes_dir that another user made or may write", "`refused`")
def test_homes_that_others_could_write_are_not_used(tmp_path: Path) -> None:
    homes = tmp_path / "homes"
    homes.mkdir()
    homes.chmod(0o777)
    with pytest.raises(CannotConfine, match="not a directory that only this user writes"):
        Home.make(homes, "s", [])
    homes.chmod(0o700)
    (homes / "s").symlink_to(tmp_path)
    with pytest.raises(CannotConfine, match="not a directory"):
        Home.make(homes, "s", [])
