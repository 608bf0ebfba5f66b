"""Runs programs of node, and says where the JavaScript client is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[2] / "clients" / "js"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")


def run_node(*arguments: str | Path, given: str = "", **env: str) -> str:
    """What a node program prints that is given a text on stdin; fails with its output if it fails."""
    assert NODE is not None
    done = subprocess.run(
        [NODE, *arguments], input=given, env=os.environ | env, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
