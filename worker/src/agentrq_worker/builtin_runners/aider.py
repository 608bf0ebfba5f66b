"""Runs aider for agentrq: ``python -m agentrq_worker.builtin_runners.aider [ARGUMENT…]``; ARGUMENTs go to aider.

Each prompt is one run of ``aider --message-file``, which ends when it has answered; the conversation goes on by
aider's own chat history file, one a session. From the first query: ``cwd``, ``model``, ``permissionMode`` (``plan``:
aider answers without editing), ``resume``. Each line that aider prints goes out in an ``agent_event``, ``own`` where
aider says it itself and not the model; then aider's analytics log and its exit code.

Owns aider's command line, its process and the end of it. Does not own the meaning of its lines (providers/aider.py).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from agentrq_worker.builtin_runners.aider_history import ChatHistory
from agentrq_worker.builtin_runners.protocol import Query, Runner, RunnerError, displayable, run
from agentrq_worker.builtin_runners.state_files import state_file

MISSING = "Aider not found. Install it first: python -m pip install aider-install && aider-install"
_PLAIN = [
    "--no-pretty",
    "--no-stream",
    "--yes-always",
    "--no-fancy-input",
    "--no-check-update",
    "--no-show-release-notes",
    "--no-analytics",
    "--no-gitignore",
    "--no-suggest-shell-commands",
]
_END_S = 2.0
"""Seconds for aider to end after TERM, before KILL."""
_COLUMNS = "100000"
"""Aider breaks its lines at the terminal's width: an answer is to come as the model wrote it."""


class Aider:
    """One session; the first query brings its options."""

    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._program = ""
        self._session = ""
        self._cwd = ""
        self._chosen: list[str] = []
        self._history: Path | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def turn(self, runner: Runner, query: Query) -> None:
        """Answers one prompt. Raises `RunnerError` when aider is not installed."""
        if not self._session:
            self._begin(runner, query)
            runner.send("agent_started", parser="aider")
            init = {"session_id": self._session, "model": query.text("model") or "", "cwd": self._cwd}
            _event(runner, "init", **init)
        else:
            runner.send("agent_started")
        assert self._scratch is not None
        prompt, log = Path(self._scratch.name, "prompt"), Path(self._scratch.name, "analytics")
        prompt.write_text(query.prompt, encoding="utf-8", errors="replace")
        log.unlink(missing_ok=True)
        began = time.monotonic()
        code = self._run(runner, [*self._command(), "--message-file", str(prompt), "--analytics-log", str(log)])
        self._send_analytics(runner, log)
        _event(runner, "exit", code=code, duration_ms=int((time.monotonic() - began) * 1000))

    def _begin(self, runner: Runner, query: Query) -> None:
        program = shutil.which("aider")
        if program is None:
            raise RunnerError(MISSING)
        self._program = program
        self._session = query.text("resume") or query.session_id
        self._cwd = os.path.abspath(query.text("cwd") or ".")
        self._scratch = tempfile.TemporaryDirectory(prefix="agentrq-aider-")
        self._history = state_file("aider", self._session, ".md") or Path(self._scratch.name, "history.md")
        if model := query.text("model"):
            self._chosen += ["--model", model]
        if query.text("permissionMode") == "plan":
            self._chosen += ["--chat-mode", "ask"]
        runner.before_exit = self.end
        # From another thread: this one may hold the lock of stdout just now.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=runner.exit, args=(143,)).start())

    def _command(self) -> list[str]:
        assert self._history is not None
        assert self._scratch is not None
        files = ["--chat-history-file", str(self._history), "--input-history-file", f"{self._scratch.name}/input"]
        if self._history.exists():
            files.append("--restore-chat-history")
        return [self._program, *_PLAIN, *files, *self._chosen, *self._arguments]

    def _run(self, runner: Runner, argv: list[str]) -> int:
        assert self._history is not None
        history = ChatHistory(self._history)
        try:
            # A session of its own, so that what aider starts can be ended with it.
            process = subprocess.Popen(
                argv,
                cwd=self._cwd,
                env={**os.environ, "COLUMNS": _COLUMNS},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise RunnerError(f"aider could not be started: {displayable(str(error))}") from None
        self._process = process
        assert process.stdout is not None
        with process.stdout:
            for raw in process.stdout:
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                _event(runner, "line", text=line, own=history.is_own(line))
        code = process.wait()
        self._process = None
        return code

    def _send_analytics(self, runner: Runner, log: Path) -> None:
        with contextlib.suppress(OSError), log.open("rb") as file:
            for line in file:
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    found = msgspec.json.decode(line, type=dict[str, Any])
                    _event(runner, "analytics", event=found.get("event"), properties=found.get("properties"))

    def end(self) -> None:
        """Ends aider and its children, and removes this process's temporary files. May be called from any thread."""
        process = self._process
        if process is not None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
            with contextlib.suppress(OSError):  # also those of its children that stayed
                os.killpg(process.pid, signal.SIGKILL)
        if self._scratch is not None:
            self._scratch.cleanup()


def _event(runner: Runner, kind: str, **members: Any) -> None:
    runner.send("agent_event", event={"type": kind, **members})


if __name__ == "__main__":
    run(Aider(sys.argv[1:]).turn)
