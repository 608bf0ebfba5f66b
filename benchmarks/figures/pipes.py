"""Figure 2: a runner's stdout to lines, CPU time of the reading process; and the framer on very long lines.

Ours is `RunnerProcess` and `LineFramer` on a runner that floods; the peer asyncio's own subprocess and ``readline``.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from agentrq_worker.process.framing import LineFramer
from agentrq_worker.process.runner_process import RunnerProcess
from benchmarks import corpus, native
from benchmarks.report import Row, at_least, at_most, told, us

FIGURES: Final = (2,)
_MAX_LINE: Final = 10 << 20


async def _ours(argv: list[str], query: bytes, wanted: int) -> float:
    framer, seen = LineFramer(_MAX_LINE), 0

    def read(chunk: bytes) -> None:
        nonlocal seen
        for _line in framer.feed(chunk):
            seen += 1

    done = asyncio.Event()
    process = await RunnerProcess.spawn(argv, env=dict(os.environ), on_chunk=read, on_stdout_end=done.set)
    try:
        began = time.process_time()
        process.write(query)
        process.close_stdin()
        await done.wait()
        spent = time.process_time() - began
    finally:
        await process.aclose()
    assert seen == wanted, f"{seen} of {wanted} lines"
    return spent / seen


async def _readline(argv: list[str], query: bytes, wanted: int) -> float:
    pipes = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipes, stdout=pipes, limit=_MAX_LINE)
    assert process.stdin
    assert process.stdout
    began = time.process_time()
    process.stdin.write(query)
    process.stdin.close()
    seen = 0
    while await process.stdout.readline():
        seen += 1
    spent = time.process_time() - began
    await process.wait()
    assert seen == wanted, f"{seen} of {wanted} lines"
    return spent / seen


def _read_alone(argv: list[str], query: bytes, wanted: int) -> float:
    """The floor: the same bytes read and thrown away. No reader of lines can be faster by more than this leaves."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        began = time.process_time()
        process.stdin.write(query)
        process.stdin.close()
        while os.read(process.stdout.fileno(), 65536):
            pass
        return (time.process_time() - began) / wanted


_LONG_LINES: Final = """
import os, sys
line, total = map(int, sys.argv[1:])
piece = b"x" * 4096
last = piece[:-1] + b"\\n"
for _ in range(total // line):
    for _ in range(line // 4096 - 1):
        os.write(1, piece)
    os.write(1, last)
"""


def _writer(line: int, total: int) -> list[str]:
    """A runner that writes lines of so many bytes in pieces of 4 KB."""
    return [sys.executable, "-I", "-S", "-c", _LONG_LINES, str(line), str(total)]


def _long_lines(line: int, total: int) -> float:
    """CPU time a byte."""
    return asyncio.run(_ours(_writer(line, total), b"", total // line)) / line


def _placed(line: int, total: int) -> float:
    """For comparison: the same bytes, each read at once to where it stays, in one buffer that all lines share."""
    buffer, at = memoryview(bytearray(line)), 0
    with subprocess.Popen(_writer(line, total), stdout=subprocess.PIPE) as process:
        assert process.stdout
        began = time.process_time()
        while got := os.readv(process.stdout.fileno(), [buffer[at : at + 65536]]):
            at = (at + got) % line
        return (time.process_time() - began) / total


def run(quick: bool, wanted: set[int]) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    rounds, lines = (3, 40_000) if quick else (7, 200_000)
    with tempfile.TemporaryDirectory() as name:
        paths = corpus.write(Path(name))
        for kind in ("deltas", "small", "texts"):
            argv, count = native.flood(paths[kind]), lines if kind != "texts" else lines // 4
            query = b'{"type":"query","prompt":"flood %d"}\n' % count
            ours: list[float] = []
            theirs: list[float] = []
            floor: list[float] = []
            for _ in range(rounds):
                theirs.append(asyncio.run(_readline(argv, query, count + 2)))  # the lines around the turn
                floor.append(_read_alone(argv, query, count + 2))
                ours.append(asyncio.run(_ours(argv, query, count + 2)))
            mine, peer, least = (statistics.median(times) for times in (ours, theirs, floor))
            row = f"{kind}, CPU a line, against readline", us(peer), us(mine)
            if kind == "texts":  # half of the time goes into the bytes themselves
                rows.append(told(2, *row, f"{peer / mine:.3g}× (limit {peer / least:.3g}×)"))
            else:
                rows.append(at_least(2, *row, peer / mine, 3))
            rows.append(told(2, f"{kind}, the same bytes read and thrown away", us(least), us(mine),
                             f"{mine / least:.3g}× (readline {peer / least:.3g}×)"))  # fmt: skip
    total, sizes = (16 if quick else 64) << 20, (1 << 20, 8 << 20)
    times = [[way(size, total) for way in (_long_lines, _placed) for size in sizes] for _ in range(2 * rounds)]
    a, b, least_a, least_b = (statistics.median(each) for each in zip(*times, strict=True))
    rows.append(at_most(2, "an 8 MB line in 4 KB pieces against 1 MB lines, a byte", _a_byte(a, 1), _a_byte(b, 8),
                        b / a, 1.2))  # fmt: skip
    rows.append(told(2, "the same bytes read into one buffer made before", _a_byte(least_a, 1), _a_byte(least_b, 8),
                     f"{least_b / least_a:.3g}×"))  # fmt: skip
    return rows, []


def _a_byte(seconds: float, size: int) -> str:
    return f"{seconds * 1e9:.3f} ns/B at {size} MB"
