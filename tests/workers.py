"""Real worker processes for tests: started, waited for, ended."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.request import urlopen

import psutil

READY_S = 60.0
END_S = 60.0
_FIRST_PORT = 20_000 + 200 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_PORTS = itertools.cycle(range(_FIRST_PORT, _FIRST_PORT + 200))


def free_port() -> int:
    """A port of loopback that nobody has, not one that the system gives away by itself meanwhile."""
    while True:
        port = next(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def resident(pid: int) -> int:
    """Bytes of a process's memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def peak(pid: int) -> int:
    """The most bytes of memory that a process has had so far."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10


def read_of_process(pid: int, name: str) -> bytes:
    """A file of a process below /proc, as far as this user may read it: nothing where the kernel forbids it."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except PermissionError:
        return b""


def metrics_of(port: int) -> dict[str, float]:
    """The figures that a worker serves on its metrics port, by name and labels."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    figures = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in figures}


def alive(process: psutil.Process) -> bool:
    """Whether it is there, and no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Worker:
    """One ``agentrq worker`` process. Its log is kept in `log` and can be waited on."""

    def __init__(
        self,
        url: str | None,
        config: Path | None,
        args: tuple[str, ...],
        env: Mapping[str, str],
        python: str = sys.executable,
    ) -> None:
        command = [python, "-m", "agentrq_worker", *(["--redis", url] if url else []), *args]
        if config is not None:
            command += ["--config", str(config)]
        self.process = subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            with self._news:
                self.log.append(line)
                self._news.notify_all()
        with self._news:
            self.log.append("")
            self._news.notify_all()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def name(self) -> str:
        for line in self.log:
            if found := re.search(r"worker (\S+) is ready", line):
                return found[1]
        raise AssertionError("the worker is not ready")

    def wait_log(self, pattern: str, timeout: float = READY_S) -> str:
        """The first log line that matches; fails with the log when none comes."""
        with self._news:
            found: list[str] = []

            def seen() -> bool:
                found[:] = [line for line in self.log if re.search(pattern, line)]
                return bool(found) or self.log[-1:] == [""]

            self._news.wait_for(seen, timeout)
            if not found:
                raise AssertionError(f"no {pattern!r} in the worker's log:\n{''.join(self.log)}")
            return found[0]

    def wait_ready(self) -> Self:
        self.wait_log("is ready")
        return self

    def terminate(self) -> int:
        """SIGTERM, then the exit code."""
        self.process.terminate()
        return self.process.wait(END_S)

    def kill(self) -> None:
        """SIGKILL: the worker's death without a word."""
        self.process.kill()
        self.process.wait(END_S)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, however it stands; the second signal hands over what still runs. It has to end."""
        if self.process.poll() is None:
            self.thaw()
            self.process.terminate()
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                self.process.terminate()
                try:
                    self.process.wait(END_S)
                except subprocess.TimeoutExpired:
                    self.kill()
                    raise
        self._reader.join(END_S)
        assert self.process.stderr
        self.process.stderr.close()
