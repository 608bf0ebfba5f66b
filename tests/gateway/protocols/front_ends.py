"""Runs the front ends' own clients, pinned and unmodified, from npm: a scenario in, what the client made of it out.

The programs in npm/ drive them and cut their connections by a TCP proxy; they change nothing of the clients.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from tests import npm_packages

PROGRAMS = Path(__file__).parent / "npm"
GOLDEN = Path(__file__).parent / "golden"
RUN_S = 100
Step = tuple[str, Any]


class FrontEnd:
    """A client's program, with the packages that it needs beside it."""

    def __init__(self, directory: Path, program: str) -> None:
        modules = npm_packages.install(PROGRAMS)
        for each in PROGRAMS.glob("*.mjs"):
            shutil.copy(each, directory)
        (directory / "node_modules").symlink_to(modules)
        self._directory = directory
        self._program = program

    def run(self, url: str, steps: Sequence[Step], **scenario: Any) -> dict[str, Any]:
        """What the client has after these steps: its messages, errors and requests."""
        given = {"url": url, "steps": steps, **scenario}
        done = subprocess.run(
            ["node", self._program, json.dumps(given)],
            cwd=self._directory, capture_output=True, text=True, timeout=RUN_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def frame_types(request: dict[str, Any]) -> list[str]:
    """The types of a response's frames; pieces of one text count once."""
    found = [re.search(r'data: {"type":"([^"]+)"', frame) for frame in request["frames"]]
    return [name for name, _ in groupby(each[1] for each in found if each is not None)]


def capture(result: dict[str, Any], directory: Path) -> str:
    """What is the same in each run of a scenario: messages and frames, without ids and times."""
    kept = {name: value for name, value in result.items() if name != "requests"}
    kept["requests"] = [
        {"method": each["method"], "path": each["path"], "status": each["status"], "frames": frame_types(each)}
        for each in result["requests"]
    ]
    text = json.dumps(kept, indent=2, ensure_ascii=False) + "\n"
    text = text.replace(str(directory), "/workspace")
    text = re.sub(r"demo-?[0-9a-f]{12}", "demo", text)
    text = re.sub(r"\w+agent_type", "agent_type", text)  # an input of the demo's, of no interest here
    text = re.sub(r"fe-[0-9a-f]{40}", "fe-DIGEST", text)
    text = re.sub(r'("durationMs"|"agentrqDurationMs"): \d+', r"\1: 0", text)
    random = re.compile(r'"id": "([0-9a-f-]{36}|[A-Za-z0-9]{16})"')
    for number, name in enumerate(dict.fromkeys(random.findall(text))):
        text = text.replace(name, f"message-{number}")
    return text
