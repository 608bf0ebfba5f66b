"""Commands in the demo's prompt, one a line, that make it misbehave, or behave, on demand: tools for tests.

A prompt with such lines carries them out in order, and nothing else, as one turn. `COMMANDS` is the list; a command
whose arguments do not parse ends the turn as an error that says its usage.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import zlib
from collections.abc import Callable

from agentrq_worker.builtin_runners.demo.claude_output import ClaudeOutput

_LIMIT = 2**31 - 1
_HANG_S = 600
"""A forgotten hanging runner ends after ten minutes."""
_CHILD_S = 300
"""How long a child left behind sleeps: longer than any test, not for ever."""


def parse(prompt: str) -> list[tuple[str, str]]:
    """The commands in ``prompt``, each with the rest of its line."""
    lines = (line.removesuffix("\r").partition(" ") for line in prompt.split("\n"))
    return [(name, rest) for name, _, rest in lines if name in COMMANDS]


def run_all(output: ClaudeOutput, commands: list[tuple[str, str]]) -> None:
    """Carries out a turn of commands, its result included."""
    last = ""
    for name, rest in commands:
        usage, act = COMMANDS[name]
        try:
            last = act(output, rest)
        except ValueError as error:
            output.result("", errors=[f"Usage: {usage} ({error})"])
            return
    output.result(last)


def line_text(number: int, count: int, size: int) -> str:
    """Text ``number`` of ``count``: its numbers, a CRC-32 of them, and dots up to ``size`` bytes."""
    name = f"{number}/{count}"
    return f"{name} {zlib.crc32(name.encode()):08x} ".ljust(size, ".")


def _whole(text: str, default: int | None = None) -> int:
    if not text.strip() and default is not None:
        return default
    value = int(text)
    if not 0 <= value <= _LIMIT:
        raise ValueError(f"{text} is out of range")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 86400:
        raise ValueError(f"{text} is out of range")
    return value


def _print(output: ClaudeOutput, text: str) -> None:
    output.texts(lambda _: text, 1)


def _crash(output: ClaudeOutput, rest: str) -> str:
    code = _whole(rest, 3)
    if code > 255:
        raise ValueError(f"{code} is not an exit code")
    _print(output, f"Crashing: exit code {code}.")
    output.runner.exit(code)


def _sleep(output: ClaudeOutput, rest: str) -> str:
    total = _seconds(rest)
    began = time.monotonic()
    while (left := began + total - time.monotonic()) > 0:
        output.runner.pause(min(1.0, left))
        _print(output, f"Working: {time.monotonic() - began:.1f} s of {total:g} s.")
    return f"Worked {total:g} s."


def _lines(output: ClaudeOutput, rest: str) -> str:
    number, _, size = rest.partition(" ")
    count, length = _whole(number), _whole(size, 100)
    output.texts(lambda at: line_text(at, count, length), count)
    return f"{count} lines."


def _huge(output: ClaudeOutput, rest: str) -> str:
    size = _whole(rest)
    _print(output, line_text(1, 1, size))
    return f"{size} bytes."


def _hang(output: ClaudeOutput, rest: str) -> str:
    output.runner.ignores_stop = True
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _print(output, "Hanging: stop and TERM are ignored.")
    time.sleep(_HANG_S)
    return "Hung."


def _spawn(output: ClaudeOutput, rest: str) -> str:
    seconds = _whole(rest, _CHILD_S)
    # It inherits our pipes, as a tool's `cmd &` does: end-of-file does not come while it runs.
    child = os.posix_spawnp("sleep", ["sleep", str(seconds)], os.environ, setsid=True)
    _print(output, f"Left a child behind: pid {child}.")
    return str(child)


def _stderr(output: ClaudeOutput, rest: str) -> str:
    sys.stderr.write(rest + "\n")
    sys.stderr.flush()
    return "Written to stderr."


def _ask(output: ClaudeOutput, rest: str) -> str:
    given = {"command": rest or "make release", "description": "Nothing is run, whatever you answer"}
    call = output.call("Bash", given)
    said = "Allowed." if output.may_use("Bash", given, call, waits=True) else "Not allowed."
    output.tool_result(call, (f"{said} Nothing was run: this is a demonstration.", said != "Allowed."))
    _print(output, f"{said} Thank you for the answer.")
    return said


def _echo(output: ClaudeOutput, rest: str) -> str:
    _print(output, rest)
    return rest


COMMANDS: dict[str, tuple[str, Callable[[ClaudeOutput, str], str]]] = {
    "/crash": ("/crash [CODE=3]: exit in mid-turn", _crash),
    "/sleep": ("/sleep SECONDS: work so long, with a text each second", _sleep),
    "/lines": ("/lines COUNT [BYTES=100]: so many texts, without a pause, as line_text makes them", _lines),
    "/huge": ("/huge BYTES: one text of that size", _huge),
    "/hang": ("/hang: ignore stop and TERM", _hang),
    "/spawn": ("/spawn [SECONDS=300]: leave a sleeping child in a session of its own", _spawn),
    "/ask": ("/ask [COMMAND]: ask whether this command may run, and wait for the answer", _ask),
    "/stderr": ("/stderr TEXT: a line on stderr", _stderr),
    "/echo": ("/echo TEXT: exactly this text", _echo),
}
"""Command → its usage, and what it does (returns the result's text, raises ValueError for bad arguments)."""
