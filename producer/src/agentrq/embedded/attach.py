"""The private embedded Valkey: attach to the one of a data directory, or start it.

This module owns the way in: where the files lie and the two locks. It does NOT own the server as a child process
(agentrq.embedded.server_process), when it ends (agentrq.embedded.supervisor) nor any Redis client (agentrq.connection).

Below ``<data_dir>/valkey``::

    users.lock      every user holds it shared while attached; who gets it exclusively knows that nobody is left
    server.lock     held exclusively from the start of a supervisor to the death of its server, in ONE open file that
                    both inherit: as long as either lives, or is being started, nobody can start another
    socket          the path of the socket, written by the supervisor once its server answers: users with another
                    runtime directory (ssh, cron) find the same server
    supervisor.log  what supervisor and server say
    appendonlydir/  the data

Both locks are flock(2): the kernel drops them when their holder dies, however it dies, so nothing stale ever blocks.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from agentrq.embedded.server_process import (
    POLL_S,
    answers,
    ask,
    find_server,
    is_private,
    last_line,
    plain_environment,
    socket_path,
    socket_url,
)
from agentrq.errors import EmbeddedServerError

_LOG_MAX = 1 << 20  # bytes kept from earlier lives


class EmbeddedServer:
    """A user's hold on the embedded server, from `attach`. A context manager: leaving it closes.

    ``url`` is a redis-py URL (``unix:///…?db=0``), ``data_dir`` the resolved data directory. The server outlives this
    object as long as others are attached.
    """

    def __init__(self, data_dir: Path, socket_path: Path, lock: int) -> None:
        self.data_dir = data_dir
        self.url = socket_url(socket_path)
        self._socket_path = socket_path
        self._lock: int | None = lock

    @property
    def pid(self) -> int:
        """The server's process id, asked of the server: it changes when the supervisor had to restart it.

        Raises EmbeddedServerError when no server answers.
        """
        try:
            reply = ask(self._socket_path, b"INFO server", timeout=5.0)
        except OSError as error:
            raise EmbeddedServerError(f"The embedded server at {self._socket_path} does not answer: {error}") from error
        found = re.search(rb"^process_id:(\d+)", reply, re.MULTILINE)
        if found is None:
            raise EmbeddedServerError(f"The embedded server at {self._socket_path} does not say its process id")
        return int(found[1])

    def close(self) -> None:
        """Detach. The server ends shortly after its last user has gone. May be called again."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def close_and_wait(self, timeout: float) -> bool:
        """Detach and wait for the server and its supervisor to end; ``timeout`` in seconds.

        False if they still run after it: somebody else is attached, or the server takes longer to end.
        """
        self.close()
        deadline = time.monotonic() + timeout
        # Both inherit the lock: it is free only once both have ended.
        while (lock := try_lock(self.data_dir / "valkey" / "server.lock", fcntl.LOCK_EX)) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        os.close(lock)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def attach(data_dir: Path | None = None, *, timeout: float = 15.0) -> EmbeddedServer:
    """Attach to the embedded server of ``data_dir`` (default: `default_data_dir`), starting it if none runs.

    Blocks for at most about ``timeout`` seconds: a start, or the end of an earlier life. Raises EmbeddedServerError,
    one line with the cause.
    """
    deadline = time.monotonic() + timeout
    data_dir = (data_dir or default_data_dir()).expanduser()
    try:
        data_dir = data_dir.resolve()
        directory = data_dir / "valkey"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        users = _wait_for_shared(directory / "users.lock", deadline)
        try:
            return EmbeddedServer(data_dir, _reach(data_dir, directory, deadline), users)
        except BaseException:
            os.close(users)
            raise
    except TimeoutError as error:
        cause = last_line(data_dir / "valkey" / "supervisor.log") or "no log"
        raise EmbeddedServerError(f"The embedded server is not ready after {timeout:g} s: {cause}") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: resolve() met a loop of symlinks (Python < 3.13)
        raise EmbeddedServerError(f"Cannot use the data directory {data_dir}: {error}") from error


def default_data_dir() -> Path:
    """``AGENTRQ_DATA_DIR``, else ``$XDG_DATA_HOME/agentrq``, else ``~/.local/share/agentrq``."""
    if given := os.environ.get("AGENTRQ_DATA_DIR"):
        return Path(given)
    xdg = os.environ.get("XDG_DATA_HOME", "")
    # A relative XDG path is to be ignored (XDG Base Directory Specification).
    return (Path(xdg) if xdg.startswith("/") else Path("~/.local/share").expanduser()) / "agentrq"


def try_lock(path: Path, operation: int) -> int | None:
    """An open file (not inheritable) holding the flock ``operation`` on ``path``, or None while others prevent it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, operation | fcntl.LOCK_NB)
    except BaseException as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return lock


def _wait_for_shared(path: Path, deadline: float) -> int:
    while (lock := try_lock(path, fcntl.LOCK_SH)) is None:  # a supervisor is ending its server
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(POLL_S)
    return lock


def _reach(data_dir: Path, directory: Path, deadline: float) -> Path:
    """The socket of a server that answers; one supervisor is started if there is none. Needs users.lock held."""
    log = directory / "supervisor.log"
    said: int | None = None
    while (path := _recorded_socket(directory)) is None or not answers(path):
        lock = try_lock(directory / "server.lock", fcntl.LOCK_EX)
        if lock is not None:
            try:
                if said is not None:  # ours is gone again
                    cause = last_line(log, said) or "no cause given"
                    raise EmbeddedServerError(f"The embedded server could not be started: {cause}")
                said = _start_supervisor(directory, path or socket_path(data_dir), log, lock, deadline)
            finally:
                os.close(lock)  # never LOCK_UN: that would release the supervisor's copy too
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(POLL_S)
    return path


def _start_supervisor(directory: Path, path: Path, log: Path, lock: int, deadline: float) -> int:
    """Hand ``lock`` to a new detached supervisor; the size of its log before."""
    program = find_server()
    (directory / "socket").unlink(missing_ok=True)
    with log.open("ab") as stream:
        if stream.tell() > _LOG_MAX:
            stream.truncate(0)
        said = os.fstat(stream.fileno()).st_size
        # -P: a module in the data directory must not shadow one of ours. What is run here forks and returns at once.
        argv: list[str | Path] = [sys.executable, "-P", "-m", "agentrq.embedded.supervisor"]
        argv += [directory, path, str(lock), program]
        try:
            subprocess.run(
                argv,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                env=plain_environment(),
                pass_fds=(lock,),
                timeout=max(deadline - time.monotonic(), POLL_S),
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error
    return said


def _recorded_socket(directory: Path) -> Path | None:
    """The socket of the present or the last server, unless it lies in a directory that others could have made."""
    try:
        path = Path(os.fsdecode((directory / "socket").read_bytes()))
    except FileNotFoundError:
        return None
    return path if path.is_absolute() and is_private(path.parent) else None
