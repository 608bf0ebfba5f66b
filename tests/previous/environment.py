"""An environment in which the previous version runs, beside the one under test."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

WHEELS = Path(__file__).parent


class Previous(NamedTuple):
    """The previous version; ``python`` is its interpreter."""

    python: str

    def code(self, source: str, *arguments: str, timeout: float = 60) -> str:
        """What a piece of Python prints there."""
        done = subprocess.run(
            [self.python, "-c", source, *arguments], capture_output=True, text=True, check=False, timeout=timeout
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def make_previous(directory: Path) -> Previous:
    """Unpack the wheels into an environment that has this one's packages, without the version under test."""
    unpacked = directory / "unpacked"
    for wheel in WHEELS.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
    venv.create(directory / "venv", with_pip=False, symlinks=True)
    ours = sysconfig.get_path("purelib")
    (theirs,) = (directory / "venv").glob("lib/python*/site-packages")
    # Paths of a .pth file are added, their own .pth files not: the editable install of this version stays out.
    (theirs / "previous.pth").write_text(f"{unpacked}\n{ours}\n")
    previous = Previous(str(directory / "venv" / "bin" / "python"))
    where = previous.code("import agentrq, agentrq_worker; print(agentrq.__file__, agentrq_worker.__file__)").split()
    assert all(Path(file).is_relative_to(unpacked) for file in where), (where, sys.path)
    return previous
