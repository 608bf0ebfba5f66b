"""The pinned npm packages that tests run (from a package-lock.json), installed into .cache/npm and nowhere else."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[1] / ".cache" / "npm"
INSTALL_S = 180.0


def install(project: Path) -> Path:
    """The ``node_modules`` of a project with a lock file. Skips where npm is missing or reaches no registry."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    lock = project / "package-lock.json"
    made = CACHE / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if not made.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as directory:
                for name in ("package.json", "package-lock.json", ".npmrc"):
                    if (project / name).exists():
                        shutil.copy(project / name, directory)
                command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
                done = subprocess.run(
                    command, cwd=directory, capture_output=True, text=True, timeout=INSTALL_S, check=False
                )
                if "ENOTFOUND" in done.stderr or "ECONNREFUSED" in done.stderr or "ETIMEDOUT" in done.stderr:
                    pytest.skip("npm reaches no registry")
                assert done.returncode == 0, done.stderr
                shutil.copytree(directory, made, symlinks=True)
    return made / "node_modules"
