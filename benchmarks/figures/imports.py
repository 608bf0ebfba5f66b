"""Figure 12: what a web backend pays for ``import agentrq``, and a user for ``agentrq --help``."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.report import Row, at_most

FIGURES: Final = (12,)
_TIMED: Final = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"


def _import(what: str) -> float:
    argv = [sys.executable, "-c", _TIMED.format(what)]
    return float(subprocess.run(argv, capture_output=True, check=True, text=True).stdout)


def _help() -> float:
    beside = Path(sys.executable).with_name("agentrq")
    program = [str(beside)] if beside.exists() else [shutil.which("agentrq") or "agentrq"]
    began = time.perf_counter()
    subprocess.run([*program, "--help"], capture_output=True, check=True)
    return time.perf_counter() - began


def run(quick: bool, wanted: set[int]) -> tuple[list[Row], list[str]]:
    client = "from agentrq import AgentClient, AsyncAgentClient"  # as is, and with what it may load only when used
    _import(client)  # so that no round compiles
    rounds = [
        (_import("import redis, rq"), _import("import agentrq"), _import(client), _help())
        for _ in range(2 if quick else 9)
    ]
    theirs, ours, used, shown = (statistics.median(times) for times in zip(*rounds, strict=True))
    return [
        at_most(12, "import agentrq, against import redis, rq", f"{theirs * 1e3:.0f} ms", f"{ours * 1e3:.0f} ms",
                ours / theirs, 1.5),
        at_most(12, "with the clients loaded, against the same", f"{theirs * 1e3:.0f} ms", f"{used * 1e3:.0f} ms",
                used / theirs, 1.5),
        at_most(12, "agentrq --help, whole process", "", f"{shown * 1e3:.0f} ms", shown, 0.4, " s"),
    ], []  # fmt: skip
