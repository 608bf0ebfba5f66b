"""Git repositories that tests make and look into."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def git(place: Path, *arguments: str) -> str:
    """What git prints there, by nobody's configuration."""
    environment = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b",
                                "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}  # fmt: skip
    return subprocess.run(
        ["git", "-C", place, *arguments], env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def make_origin(directory: Path) -> Path:
    """A repository with two branches and a tag, as a server has it."""
    made, bare = directory / "made", directory / "origin.git"
    made.mkdir()
    git(made, "init", "-q", "-b", "trunk")
    (made / "a.txt").write_text("one\n")
    (made / ".gitignore").write_text("*.log\n")
    (made / "sub").mkdir()
    (made / "sub" / "b.txt").write_text("two\n")
    git(made, "add", "-A")
    git(made, "commit", "-qm", "first")
    git(made, "tag", "v1")
    git(made, "checkout", "-qb", "side")
    (made / "a.txt").write_text("side\n")
    git(made, "commit", "-qam", "second")
    git(made, "checkout", "-q", "trunk")
    git(directory, "clone", "-q", "--bare", str(made), str(bare))
    return bare
