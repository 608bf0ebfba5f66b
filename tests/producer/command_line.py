"""The real command as a process: run to its end, or followed as it prints."""

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

LIMIT_S = 30.0
COMMAND = (sys.executable, "-m", "agentrq")


def environment(**changes: str | None) -> dict[str, str]:
    """Ours without what would change an output; None takes a variable away."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AGENTRQ_", "PYTHONUN", "NO_COLOR"))
    }
    given = kept | {"TZ": "UTC", "TERM": "xterm-256color"} | changes
    return {name: value for name, value in given.items() if value is not None}


def run_cli(*arguments: str, url: str | None = None, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; ``url`` goes into its environment."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(AGENTRQ_REDIS_URL=url, **changes),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def run_python(code: str, *arguments: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run code that calls ``agentrq.cli.main`` somehow."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment(AGENTRQ_REDIS_URL=url),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def only_line(said: str) -> str:
    """The one line of stderr that a user's mistake costs."""
    assert said.count("\n") == 1, said
    assert said.startswith("agentrq: ")
    return said.removeprefix("agentrq: ").rstrip()


class Follower:
    """A command under way whose output is read as it comes."""

    def __init__(self, process: subprocess.Popen[bytes], output: int) -> None:
        self.process = process
        self.seen = b""
        self._output = output

    def read_until(self, text: str, times: int = 1) -> str:
        """All output so far, once it has the text so many times."""
        deadline = time.monotonic() + LIMIT_S
        while self.seen.count(text.encode()) < times:
            assert select.select([self._output], [], [], deadline - time.monotonic())[0], self.seen
            assert self._read(), self.seen
        return self.seen.decode()

    def finish(self) -> tuple[int, str, str]:
        """Exit code, whole output, stderr."""
        deadline = time.monotonic() + LIMIT_S
        while select.select([self._output], [], [], max(deadline - time.monotonic(), 0))[0] and self._read():
            pass
        said = self.process.stderr.read() if self.process.stderr else b""
        return self.process.wait(LIMIT_S), self.seen.decode(), said.decode()

    def type(self, keys: str) -> None:
        """Keys on the terminal."""
        os.write(self._output, keys.encode())

    def echoes(self) -> bool:
        """Whether the terminal shows what is typed, as it did when the command began."""
        return bool(termios.tcgetattr(self._output)[3] & termios.ECHO)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def _read(self) -> bool:
        try:
            data = os.read(self._output, 65536)
        except OSError:  # a terminal whose last writer has gone
            return False
        self.seen += data
        return bool(data)


@contextmanager
def following(
    *command: str, url: str, terminal: bool = False, keyboard: bool = False, **changes: str | None
) -> Iterator[Follower]:
    """A command under way: on a terminal of 80 columns (with its keyboard too), or with its output in a pipe."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    if terminal:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, b"\x28\x00\x50\x00\x00\x00\x00\x00")
    process = subprocess.Popen(
        command,
        env=environment(AGENTRQ_REDIS_URL=url, **changes),
        stdout=theirs,
        stderr=subprocess.PIPE,
        stdin=theirs if keyboard else subprocess.DEVNULL,
    )
    os.close(theirs)
    try:
        yield Follower(process, ours)
    finally:
        process.kill()
        process.wait(LIMIT_S)
        if process.stderr:
            process.stderr.close()
        os.close(ours)
