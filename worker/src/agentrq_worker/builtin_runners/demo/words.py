"""The demo's small words: prompt lines that make it misbehave, or behave, on demand. Testers' tools.

A prompt with such lines does them in order, and nothing else, as one turn. `WORDS` is the list; a word whose
arguments do not parse ends the turn as an error that says its usage.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import zlib
from collections.abc import Callable

from agentrq_worker.builtin_runners.demo.voice import Voice

_LIMIT = 2**31 - 1
_HANG_S = 600
"""A forgotten hanging runner ends after ten minutes."""
_CHILD_S = 300
"""So long a child left behind sleeps: beyond any test, not for ever."""


def words(prompt: str) -> list[tuple[str, str]]:
    """The words in ``prompt``, each with the rest of its line."""
    lines = (line.removesuffix("\r").partition(" ") for line in prompt.split("\n"))
    return [(name, rest) for name, _, rest in lines if name in WORDS]


def do(voice: Voice, asked: list[tuple[str, str]]) -> None:
    """Do a turn of words, its result included."""
    last = ""
    for name, rest in asked:
        usage, act = WORDS[name]
        try:
            last = act(voice, rest)
        except ValueError as error:
            voice.result("", errors=[f"Usage: {usage} ({error})"])
            return
    voice.result(last)


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


def _say(voice: Voice, text: str) -> None:
    voice.texts(lambda _: text, 1)


def _crash(voice: Voice, rest: str) -> str:
    code = _whole(rest, 3)
    if code > 255:
        raise ValueError(f"{code} is no exit code")
    _say(voice, f"Crashing: exit code {code}.")
    voice.runner.exit(code)


def _sleep(voice: Voice, rest: str) -> str:
    total = _seconds(rest)
    began = time.monotonic()
    while (left := began + total - time.monotonic()) > 0:
        time.sleep(min(1.0, left))
        _say(voice, f"Working: {time.monotonic() - began:.1f} s of {total:g} s.")
    return f"Worked {total:g} s."


def _lines(voice: Voice, rest: str) -> str:
    number, _, size = rest.partition(" ")
    count, length = _whole(number), _whole(size, 100)
    voice.texts(lambda at: line_text(at, count, length), count)
    return f"{count} lines."


def _huge(voice: Voice, rest: str) -> str:
    size = _whole(rest)
    _say(voice, line_text(1, 1, size))
    return f"{size} bytes."


def _hang(voice: Voice, rest: str) -> str:
    voice.runner.deaf = True
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _say(voice, "Hanging: deaf to stop and to TERM.")
    time.sleep(_HANG_S)
    return "Hung."


def _spawn(voice: Voice, rest: str) -> str:
    seconds = _whole(rest, _CHILD_S)
    # It keeps our pipes, as a tool's `cmd &` does: end-of-file does not come while it lives.
    child = os.posix_spawnp("sleep", ["sleep", str(seconds)], os.environ, setsid=True)
    _say(voice, f"Left a child behind: pid {child}.")
    return str(child)


def _stderr(voice: Voice, rest: str) -> str:
    sys.stderr.write(rest + "\n")
    sys.stderr.flush()
    return "Written to stderr."


def _echo(voice: Voice, rest: str) -> str:
    _say(voice, rest)
    return rest


WORDS: dict[str, tuple[str, Callable[[Voice, str], str]]] = {
    "/crash": ("/crash [CODE=3]: exit in mid-turn", _crash),
    "/sleep": ("/sleep SECONDS: work so long, with a text each second", _sleep),
    "/lines": ("/lines COUNT [BYTES=100]: so many texts, flat out, as line_text makes them", _lines),
    "/huge": ("/huge BYTES: one text of that size", _huge),
    "/hang": ("/hang: deaf to stop and TERM", _hang),
    "/spawn": ("/spawn [SECONDS=300]: leave a sleeping child in a session of its own", _spawn),
    "/stderr": ("/stderr TEXT: a line on stderr", _stderr),
    "/echo": ("/echo TEXT: exactly this text", _echo),
}
"""Word → its usage, and what it does (returns the result's text, raises ValueError for bad arguments)."""
