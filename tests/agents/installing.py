"""The pinned agent CLIs (requirements/agents.json), installed by npm into .cache/agents and nowhere else.

Owns versions and places. Never looks for a CLI that the machine has: neither it nor its login is a test's business.
``python -m tests.agents.installing NAME…`` installs; it exits 1 with npm's last words where that is not possible.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "agents"
PINNED: dict[str, dict[str, str]] = json.loads((ROOT / "requirements" / "agents.json").read_text())
INSTALL_S = 180.0


class CannotInstall(Exception):
    """There is no npm, or it failed; the text says so in one line."""


def place(name: str) -> Path:
    """Where the program of an agent is, once installed."""
    pin = PINNED[name]
    return CACHE / f"{name}-{pin['version']}" / "node_modules" / ".bin" / pin["program"]


def install(name: str) -> Path:
    """The program of an agent, installed if it is not yet. Raises `CannotInstall`."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may want the same
        if not place(name).exists():
            _install(name)
    return place(name)


def _install(name: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise CannotInstall("npm is not installed")
    pin = PINNED[name]
    wanted = f"{pin['package']}@{pin['version']}"
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        made = Path(directory) / "made"
        made.mkdir()
        # A registry that cannot be reached is found out in seconds, not in npm's own minutes.
        retries = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=2000"]
        command = [npm, "install", "--prefix", str(made), "--no-audit", "--no-fund", "--save-exact", *retries, wanted]
        try:
            done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        except subprocess.TimeoutExpired:
            raise CannotInstall(f"npm install {wanted} took over {INSTALL_S:g} s") from None
        if done.returncode != 0:
            words = [line for line in done.stderr.splitlines() if "error" in line] or ["no word of it"]
            raise CannotInstall(f"npm install {wanted}: {words[0]}")
        final = place(name).parents[2]
        shutil.rmtree(final, ignore_errors=True)
        made.rename(final)


if __name__ == "__main__":
    try:
        for each in sys.argv[1:] or PINNED:
            print(install(each), flush=True)
    except CannotInstall as problem:
        sys.exit(f"not installed: {problem}")
