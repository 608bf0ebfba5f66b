"""What the packaging tests share: the wheels, built once, and fresh environments that have nothing but them."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_S = 100


class Fresh(NamedTuple):
    """A virtual environment made for a test; `run` runs a program of its bin/ away from the source tree."""

    path: Path

    @property
    def python(self) -> str:
        return str(self.path / "bin" / "python")

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.path / "bin" / program, *arguments],
            cwd=self.path,
            env={"PATH": os.defpath, "HOME": str(self.path), "LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )

    def code(self, source: str) -> str:
        """What a piece of Python prints there."""
        done = self.run("python", "-c", source)
        assert done.returncode == 0, done.stderr
        return done.stdout


def _once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A directory made by the first test process that wants it; the others wait for that one."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    made, done = root / name, root / f"{name}.done"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(made)
            done.touch()
    return made


def _call(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def _install(environment: Path, requirements: str, *wheels: Path) -> None:
    venv.create(environment, symlinks=True)
    install = (sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "install", "--quiet")
    _call(*install, "--require-hashes", "-r", f"requirements/{requirements}")
    _call(*install, "--no-deps", *wheels)
    _call(*install[:-2], "check")


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheels, built as ``make wheels`` builds them."""

    def build(directory: Path) -> None:
        for project in ("producer", "worker", "gateway", "page"):
            _call(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", directory, project)

    return _once(tmp_path_factory, "wheels", build)


@pytest.fixture(scope="session")
def producer_only(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Fresh:
    """What a web backend installs: the wheel of ``agentrq`` and its pinned requirements."""
    (wheel,) = wheels.glob("agentrq-*.whl")
    return Fresh(_once(tmp_path_factory, "producer", lambda path: _install(path, "producer.txt", wheel)))


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Fresh:
    """What a worker's machine installs."""
    return Fresh(
        _once(
            tmp_path_factory,
            "both",
            lambda path: _install(
                path, "worker.txt", *wheels.glob("agentrq-*.whl"), *wheels.glob("agentrq_worker-*.whl")
            ),
        )
    )
