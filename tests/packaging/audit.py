"""``python -m tests.packaging.audit`` (`make audit`): the pinned packages, as far as can be told without a network.

1. every requirement is pinned to one version and hashed; 2. what is installed here is what is pinned; 3. no pin is in
requirements/advisories.toml. It cannot know of an advisory that nobody wrote there; where pip-audit is installed and
reaches an index, it is asked as well, and what it says counts.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def pins(path: Path) -> Iterator[tuple[Requirement, int]]:
    """Each requirement of a compiled file, and how many hashes it has."""
    for line in path.read_text().replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            yield Requirement(line.partition("--hash")[0]), len(HASH.findall(line))


def version_of(pin: Requirement) -> str | None:
    """The only version that a pin allows."""
    found = list(pin.specifier)
    exact = len(found) == 1 and found[0].operator == "==" and "*" not in found[0].version
    return found[0].version if exact and pin.url is None else None


def unpinned(directory: Path = REQUIREMENTS) -> Iterator[str]:
    for path in sorted(directory.glob("*.txt")):
        for pin, hashes in pins(path):
            if version_of(pin) is None or not hashes:
                yield f"{path.name}: {pin}: not one version with a hash"


def not_as_pinned(path: Path = REQUIREMENTS / "dev.txt") -> Iterator[str]:
    """What is installed in another version, or not at all."""
    for pin, _ in pins(path):
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        try:
            installed = metadata.version(pin.name)
        except metadata.PackageNotFoundError:
            installed = "nothing"
        if installed != version_of(pin):
            yield f"{pin.name}: {version_of(pin)} is pinned, {installed} is installed"


def advised_against(directory: Path = REQUIREMENTS) -> Iterator[str]:
    advisories: list[dict[str, Any]] = tomllib.loads((directory / "advisories.toml").read_text())["advisory"]
    for path in sorted(directory.glob("*.txt")):
        for pin, _ in pins(path):
            version = version_of(pin)
            for known in advisories if version is not None else ():
                ranges = [SpecifierSet(text) for text in known["affected"].split("||")]
                hit = any(each.contains(version or "", prereleases=True) for each in ranges)
                if hit and canonicalize_name(pin.name) == known["package"]:
                    yield f"{path.name}: {pin}: {known['id']}: {known['what']}"


def main() -> int:
    found = [*unpinned(), *not_as_pinned(), *advised_against()]
    for line in found:
        print(line)
    print(f"{len(list(REQUIREMENTS.glob('*.txt')))} files, {len(found)} findings; advisories: those of advisories.toml")
    if shutil.which("pip-audit") is None:
        print("pip-audit is not installed: no index was asked")
        return 1 if found else 0
    asked = [
        subprocess.run(["pip-audit", "--disable-pip", "--require-hashes", "-r", str(path)], check=False).returncode
        for path in sorted(REQUIREMENTS.glob("*.txt"))
    ]
    return 1 if found or any(asked) else 0


if __name__ == "__main__":
    sys.exit(main())
