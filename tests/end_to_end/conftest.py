"""The provider ``fake-claude`` for tests of sessions from end to end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


@pytest.fixture
def fake_claude(config: Path, tmp_path: Path) -> None:
    """A provider ``fake-claude``: a program that speaks Claude's protocol."""
    program = Path(__file__).parents[1] / "fakes" / "fake_claude.py"
    with config.open("a") as file:
        file.write(f"""
[providers.fake-claude]
protocol = "claude"
parser = "claude"
command = ["{sys.executable}", "-S", "{program}"]
env = {{ FAKE_CLAUDE_DIR = "{tmp_path}" }}
""")
