"""Plays a recorded transcript as if an agent printed it.

``python -m agentrq_worker.builtin_runners.replay [FILE] [--speed N] [--parser NAME] [--repeat N]``

FILE holds what a real agent wrote to stdout, one JSON object a line. Without FILE each prompt names it, and may give
the options, in the same words (relative to the query's ``cwd``). Each query plays the whole recording: at the pace of
its timestamps (pace.py), N times as fast with ``--speed N``, without a pause with 0; N times over with ``--repeat``.

Owns the command's options and what becomes of a line: an object goes out as its very bytes in an ``agent_event``, any
other line as it is. ``agent_started`` carries ``parser``: whose transcript it is, as given or as format_guess.py tells.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from agentrq_worker.builtin_runners.protocol import Query, Runner, RunnerError, displayable, run
from agentrq_worker.builtin_runners.replay.format_guess import guess
from agentrq_worker.builtin_runners.replay.pace import due_times

_BLOCK = 262144
"""Bytes written at once where there is no pause."""


class Request(msgspec.Struct, frozen=True):
    """What to play: ``speed`` is a factor, 0 for no pause; ``parser`` None is guessed."""

    file: str | None = None
    speed: float = 1.0
    parser: str | None = None
    repeat: int = 1


def parse(words: Sequence[str], defaults: Request) -> Request:
    """The request that ``words`` make over ``defaults``. Raises `RunnerError` for unknown options."""
    given: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            if "file" in given:
                raise RunnerError(f"More than one transcript: {displayable(word)}")
            given["file"] = word
            continue
        name, equals, value = word[2:].partition("=")
        value = value if equals else next(rest, "")
        name = _FORMER.get(name, name)
        try:
            given[name] = _OPTIONS[name](value)
        except (KeyError, ValueError):
            raise RunnerError(f"Unknown or bad option: {displayable(f'{word} {value}')}") from None
    return msgspec.structs.replace(defaults, **given)


def _speed(text: str) -> float:
    speed = float(text)
    if not 0 <= speed < math.inf:
        raise ValueError(text)
    return speed


def _repeat(text: str) -> int:
    if (times := int(text)) < 1:
        raise ValueError(text)
    return times


_OPTIONS: dict[str, Callable[[str], Any]] = {"speed": _speed, "repeat": _repeat, "parser": str}
_FORMER = {"adapter": "parser"}
"""Options by the names that they had before."""


class Replay:
    """One session. ``request`` is the command line's; the working directory is the first query's."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._cwd = ""

    def turn(self, runner: Runner, query: Query) -> None:
        """Plays the whole recording."""
        self._cwd = query.text("cwd") or self._cwd
        request = self._request if self._request.file else self._asked(query.prompt)
        lines = _read(request.file or "")
        objects = [_parse(line) for line in lines]
        runner.send("agent_started", parser=request.parser or guess(objects))
        wrapped = [
            (b'{"type":"agent_event","event":%b}\n' if found is not None else b"%b\n") % line
            for line, found in zip(lines, objects, strict=True)
        ]
        if request.speed == 0:
            _pour(runner, wrapped, request.repeat)
            return
        dues = due_times(objects)
        for _ in range(request.repeat):
            began = time.monotonic()
            for line, due in zip(wrapped, dues, strict=True):
                time.sleep(max(0.0, began + due / request.speed - time.monotonic()))
                runner.write(line)

    def _asked(self, prompt: str) -> Request:
        import shlex  # noqa: PLC0415 - brings the whole of re, which nothing else here needs

        try:
            request = parse(shlex.split(prompt), self._request)
        except ValueError as error:
            raise RunnerError(f"The prompt does not parse: {error}") from None
        if not request.file:
            raise RunnerError("No transcript named: the prompt is FILE [--speed N] [--parser NAME] [--repeat N]")
        return msgspec.structs.replace(request, file=os.path.join(self._cwd, request.file))


def _read(path: str) -> list[bytes]:
    # A regular file only: a device or a pipe would be read for ever.
    if os.path.isfile(path):
        try:
            with open(path, "rb") as file:
                return [line for line in file.read().split(b"\n") if line.strip()]
        except OSError:
            pass
    raise RunnerError(f"Transcript not found: {displayable(path)}")


def _parse(line: bytes) -> dict[str, Any] | None:
    """The object of a line; None for any other line, and for one that would break the object around it."""
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _parse_leniently(line)
    return found if isinstance(found, dict) else None


def _parse_leniently(line: bytes) -> Any:
    # JavaScript writes lone surrogates, which msgspec refuses.
    import json  # noqa: PLC0415 - rarely needed

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        return json.loads(line.decode(), parse_constant=refuse)
    except (ValueError, RecursionError):
        return None


def _pour(runner: Runner, lines: list[bytes], repeat: int) -> None:
    block: list[bytes] = []
    size = 0
    for _ in range(repeat):
        for line in lines:
            block.append(line)
            size += len(line)
            if size >= _BLOCK:
                runner.write(b"".join(block))
                block.clear()
                size = 0
    runner.write(b"".join(block))


def _main(arguments: list[str]) -> None:
    try:
        request = parse(arguments, Request())
    except RunnerError as error:
        sys.exit(str(error))
    run(Replay(request).turn)


if __name__ == "__main__":
    _main(sys.argv[1:])
