"""Bun from npm, at an exact version, in ``.cache``: installed when first asked for, absent where there is no npm."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from benchmarks.native import CACHE

VERSION: Final = "1.4.5"
WORKER: Final = Path(__file__).parent / "worker.mjs"


def program() -> str:
    """The program. Raises RuntimeError that says why there is none."""
    home = CACHE / f"bun-{VERSION}"
    found = home / "node_modules" / ".bin" / "bun"
    if not found.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise RuntimeError("npm is not installed")
        home.mkdir(parents=True, exist_ok=True)
        argv = [npm, "install", "--prefix", str(home), "--no-audit", "--no-fund", "--save-exact", f"bun@{VERSION}"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode or not found.exists():
            raise RuntimeError(f"npm could not install bun@{VERSION}: {done.stderr.strip()[-200:]}")
    if subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout.strip() != VERSION:
        raise RuntimeError("bun does not run here")
    return str(found)
