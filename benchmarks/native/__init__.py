"""Small programs of the benchmarks, compiled into ``.cache`` where there is a C compiler."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
CACHE: Final = HERE.parent.parent / ".cache" / "benchmarks"


@functools.cache
def compiled(name: str) -> str | None:
    """The program of ``name``.c; None without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    source, program = HERE / f"{name}.c", CACHE / name
    if compiler is None:
        return None
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, "-O2", "-o", program, source], check=True)
    return str(program)


def flood(corpus: Path) -> list[str]:
    """The command of a runner that floods with a corpus: C, else Python."""
    program = compiled("flood")
    runner = [program] if program else [sys.executable, "-S", "-E", str(HERE / "flood.py")]
    return [*runner, str(corpus)]
