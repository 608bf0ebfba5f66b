"""The runner's side of the runner protocol (docs/reference/runner-protocol.md): JSON lines on stdin and stdout.

Owns the two pipes, the order of prompts and how a runner ends. Does not own what a turn does, nor its events.
Imports little: a runner's start is part of every session's start.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, NoReturn

import msgspec

_EXCERPT = 100
"""Characters of a line quoted in a complaint about it."""


class RunnerError(Exception):
    """The session cannot go on: its text becomes the ``agent_error`` and the runner exits 1."""


class Query(msgspec.Struct, frozen=True):
    """One prompt; ``options`` are the line's other members, camelCase (in later queries there are none)."""

    session_id: str
    prompt: str
    options: dict[str, Any]

    def text(self, name: str) -> str | None:
        """The option ``name`` if it is a text and not empty."""
        value = self.options.get(name)
        return value if isinstance(value, str) and value else None


class Runner:
    """The two pipes. Every method may be called from any thread; a line is never torn by another.

    ``deaf`` makes it ignore the protocol's stop. ``before_exit`` ends what the runner has started itself.
    """

    def __init__(self) -> None:
        self.deaf = False
        self.before_exit: Callable[[], None] | None = None
        self._stdout = sys.stdout.buffer
        self._writing = threading.Lock()
        self._waiting: SimpleQueue[Query | None] = SimpleQueue()

    def write(self, lines: bytes) -> None:
        """Write whole lines, their newlines included, and flush."""
        with self._writing:
            self._stdout.write(lines)
            self._stdout.flush()

    def send(self, kind: str, **members: Any) -> None:
        """Write one object of the protocol."""
        self.write(msgspec.json.encode({"type": kind, **members}) + b"\n")

    def exit(self, code: int) -> NoReturn:
        """End the process at once, between two lines; what was written stays written."""
        if self.before_exit is not None:
            self.before_exit()
        with self._writing:
            # Not sys.exit: at its shutdown the interpreter aborts when the reader thread is inside stdin.
            os._exit(code)

    def queries(self) -> Iterator[Query]:
        """The prompts in the order they came; ends when stdin has ended and none is left."""
        while (query := self._waiting.get()) is not None:
            yield query

    def read(self) -> None:
        """Read stdin to its end: a thread's work, so that stop and ping are heard in mid-turn."""
        try:
            for line in sys.stdin.buffer:
                if line.strip():
                    self._take(line)
        finally:
            self._waiting.put(None)

    def _take(self, line: bytes) -> None:
        try:
            command = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._complain("Malformed line on stdin", line)
            return
        kind = command.pop("type", None)
        if kind == "query":
            session_id, prompt = command.pop("sessionId", ""), command.pop("prompt", None)
            if isinstance(session_id, str) and isinstance(prompt, str):
                self._waiting.put(Query(session_id, prompt, command))
            else:
                self._complain("Malformed query on stdin", line)
        elif kind == "ping":
            self.send("pong")
        elif kind != "stop":
            self._complain("Unknown type on stdin", line)
        elif not self.deaf:
            self.send("agent_stopped")
            self.exit(0)

    def _complain(self, what: str, line: bytes) -> None:
        excerpt = line.decode(errors="replace").strip()[:_EXCERPT]
        self.send("agent_log", message=f"{what}: {excerpt}")


def run(turn: Callable[[Runner, Query], None]) -> NoReturn:
    """Be a runner: call ``turn`` for each prompt in turn, on the main thread, until stop or the end of stdin.

    Exits 0 then; 1 with an ``agent_error`` when ``turn`` raises. A stop ends the process from the reader
    thread, in mid-turn: a runner with children of its own sets `Runner.before_exit`.
    """
    # The defaults, whatever was inherited: TERM ends at once, and so does writing to nobody.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    runner = Runner()
    runner.send("ready")
    threading.Thread(target=runner.read, name="stdin", daemon=True).start()
    try:
        for query in runner.queries():
            turn(runner, query)
    except RunnerError as error:
        runner.send("agent_error", message=str(error))
        runner.exit(1)
    except Exception as error:  # noqa: BLE001 - the last resort: told to the worker, the trace to the log
        sys.excepthook(type(error), error, error.__traceback__)
        runner.send("agent_error", message=f"{type(error).__name__}: {displayable(str(error))}")
        runner.exit(1)
    runner.exit(0)


def displayable(text: str) -> str:
    """``text`` as JSON can carry it: what is no UTF-8 in a file name becomes question marks."""
    return text.encode("utf-8", "replace").decode()
