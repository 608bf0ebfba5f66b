"""The process that keeps one embedded server: ``python -m agentrq.embedded.supervisor DIRECTORY SOCKET LOCK PROGRAM``.

It owns when the server starts again and when it ends. It does NOT own how to find, lock or reach it (agentrq.embedded,
which runs this, with LOCK the number of an inherited file that holds ``server.lock``).

Its own death, SIGKILL included, is the server's. Everything it says goes to the log.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agentrq.embedded.server_process import ServerProcess
from agentrq.errors import EmbeddedServerError

if TYPE_CHECKING:
    from types import FrameType

LINGER_S = 1.0  # without users, before the end: a row of CLI commands finds the server still there
POLL_S = 0.1
READY_S = 600.0  # a large AOF takes its time to load; users wait by their own timeouts
STEADY_S = 10.0  # a server that ran so long starts the count of failures anew
PAUSES_S = (0.0, 0.2, 0.4, 0.8, 1.6, 3.2)  # before the first start and after each failure in a row


def main(arguments: list[str]) -> int:
    """Supervise until nobody is attached, or the server cannot be kept up. The exit status."""
    if os.fork():
        os._exit(0)  # who started us has no child to reap: init gets us
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    directory, path, lock, program = Path(arguments[0]), Path(arguments[1]), int(arguments[2]), Path(arguments[3])
    os.set_inheritable(lock, False)  # the server gets it by name, below
    users = os.open(directory / "users.lock", os.O_RDWR)
    failures = 0
    while failures < len(PAUSES_S):
        time.sleep(PAUSES_S[failures])
        began = time.monotonic()
        try:
            with ServerProcess(
                directory,
                program=program,
                path=path,
                log=directory / "supervisor.log",
                pass_fds=(lock,),
                timeout=READY_S,
            ) as server:
                # Only now do users see it: from here on it was up, and whatever ends it, it is started again.
                (directory / "socket").write_bytes(os.fsencode(path))
                if _wait_until_unused(server, users):
                    return 0
                _say("The server ended by itself, or its socket was removed: starting it again")
        except (EmbeddedServerError, OSError) as error:
            _say(str(error))
            if failures == 0:
                return 1  # whoever started us reads the line above and says it
        failures = 1 if time.monotonic() - began > STEADY_S else failures + 1
    _say("The server cannot be kept up: giving up")
    return 1


def _wait_until_unused(server: ServerProcess, users: int) -> bool:
    """True once nobody has been attached for LINGER_S; then ``users`` is locked, and newcomers wait for our end.

    False when the server has died, or cannot be reached any more because its socket file is gone.
    """
    idle_since: float | None = None
    while server.alive and server.path.exists():
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            idle_since = None
        else:
            now = time.monotonic()
            idle_since = now if idle_since is None else idle_since
            if now - idle_since >= LINGER_S:
                return True
            fcntl.flock(users, fcntl.LOCK_UN)
        time.sleep(POLL_S)
    return False


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)  # the server's context manager stops it on the way out


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
