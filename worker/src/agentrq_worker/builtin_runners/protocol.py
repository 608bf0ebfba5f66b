"""The runner's side of the runner protocol (docs/reference/runner-protocol.md): JSON lines on stdin and stdout.

Owns the two pipes, the order of prompts, answers and interrupts, and how a runner ends. Does not own what a turn does,
nor its events.
Imports little: a runner's start is part of every session's start.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, NoReturn

import msgspec

_WITHDRAWN = object()
_EXCERPT = 100
"""Characters of a line quoted in a complaint about it."""


class RunnerError(Exception):
    """The session cannot go on: its text becomes the ``agent_error`` and the runner exits 1."""


class TurnInterrupted(Exception):
    """The user has interrupted the turn."""


class NotAnswered(Exception):
    """Nobody has answered a request, for the reason that the text says."""


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
    """The runner's stdin and stdout. Every method may be called from any thread; lines are never mixed.

    ``ignores_stop`` makes it ignore the protocol's stop. ``before_exit`` ends what the runner has started itself.
    """

    def __init__(self) -> None:
        self.ignores_stop = False
        self.before_exit: Callable[[], None] | None = None
        self._stdout = sys.stdout.buffer
        self._writing = threading.Lock()
        self._waiting: SimpleQueue[Query | None] = SimpleQueue()
        self._answers: dict[str, Any] = {}  # by request id; those withdrawn: `_WITHDRAWN`
        self._interrupted = False
        self._stdin_ended = False
        self._news = threading.Condition()  # of the three above

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

    def pause(self, seconds: float) -> None:
        """Waits so long. Raises `TurnInterrupted` at once when the user interrupts the turn."""
        with self._news:
            self._news.wait_for(lambda: self._interrupted, seconds)
            self._raise_if_interrupted()

    def _raise_if_interrupted(self) -> None:
        if self._interrupted:
            self._interrupted = False
            raise TurnInterrupted

    def wait_for_answer(self, request_id: str, bound_s: float) -> Any:
        """The answer to a request that was sent in an event.

        Raises `NotAnswered` when it is withdrawn, stdin ends or ``bound_s`` seconds pass; `TurnInterrupted`.
        """

        def has_news() -> bool:
            return request_id in self._answers or self._interrupted or self._stdin_ended

        with self._news:
            self._news.wait_for(has_news, bound_s)
            self._raise_if_interrupted()
            if request_id not in self._answers:
                raise NotAnswered("stdin has ended" if self._stdin_ended else f"no answer within {bound_s:g} s")
            answer = self._answers.pop(request_id)
        if answer is _WITHDRAWN:
            raise NotAnswered("withdrawn")
        return answer

    def queries(self) -> Iterator[Query]:
        """The prompts in the order they came; ends when stdin has ended and none is left."""
        while (query := self._waiting.get()) is not None:
            yield query

    def read(self) -> None:
        """Reads stdin to its end, on a thread of its own: a turn under way does not delay a stop or a ping."""
        try:
            for line in sys.stdin.buffer:
                if line.strip():
                    self._take(line)
        finally:
            self._waiting.put(None)
            with self._news:
                self._stdin_ended = True
                self._news.notify_all()

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
                with self._news:  # what came for the turn before
                    self._interrupted = False
                    self._answers.clear()
                self._waiting.put(Query(session_id, prompt, command))
            else:
                self._complain("Malformed query on stdin", line)
        elif kind == "ping":
            self.send("pong")
        elif kind == "interrupt":
            self._tell(interrupted=True)
        elif kind in ("answer", "withdraw") and isinstance(request_id := command.get("requestId"), str):
            self._tell(request_id, command.get("answer") if kind == "answer" else _WITHDRAWN)
        elif kind != "stop":
            self._complain("Unknown type on stdin", line)
        elif not self.ignores_stop:
            self.send("agent_stopped")
            self.exit(0)

    def _tell(self, request_id: str | None = None, answer: Any = None, *, interrupted: bool = False) -> None:
        with self._news:
            self._interrupted = self._interrupted or interrupted
            if request_id is not None:
                self._answers[request_id] = answer
            self._news.notify_all()

    def _complain(self, what: str, line: bytes) -> None:
        excerpt = line.decode(errors="replace").strip()[:_EXCERPT]
        self.send("agent_log", message=f"{what}: {excerpt}")


def run(turn: Callable[[Runner, Query], None], accepts: Sequence[str] = ()) -> NoReturn:
    """Runs a runner: calls ``turn`` for each prompt in turn, on the main thread, until stop or the end of stdin.

    Exits 0 then; 1 with an ``agent_error`` when ``turn`` raises. A stop ends the process from the reader
    thread, in mid-turn: a runner with children of its own sets `Runner.before_exit`. ``accepts`` are the commands that
    ``turn`` obeys beside prompts: ``answer``, ``interrupt``.
    """
    # The defaults, whatever was inherited: TERM ends at once, and so does writing to nobody.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    runner = Runner()
    runner.send("ready", **({"accepts": accepts} if accepts else {}))
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
    """``text`` as JSON can carry it: bytes of a file name that are not UTF-8 become question marks."""
    return text.encode("utf-8", "replace").decode()
