"""What the README promises is so: its example runs, its commands exist; links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrq import AgentClient
from tests.packaging.conftest import ROOT, Fresh
from tests.workers import Worker

pytestmark = pytest.mark.timeout(280)
README = (ROOT / "README.md").read_text()
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_readmes_example_is_short() -> None:
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 15


def test_the_readmes_example_runs(redis_url: str, start_worker: Callable[..., Worker], tmp_path: Path) -> None:
    (example,) = blocks("python")
    program = tmp_path / "backend.py"
    program.write_text(example)
    start_worker()
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        env=os.environ | {"AGENTRQ_REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = [line.split(" ", 2) for line in done.stdout.splitlines() if re.match(r"\d+-\d+ ", line)]
    types = [kind for _, kind, _ in lines]
    assert types[0] == "prompt"
    assert types[-1] == "cost"
    assert {"init", "text", "tool_call", "tool_result"} <= set(types)
    with AgentClient.from_url(redis_url) as client:
        (state,) = client.sessions()
        assert client.session(state.id).wait(30).reason == "stopped"


def test_the_readme_names_every_command_and_no_other(both: Fresh) -> None:
    listed = set(re.findall(r"`agentrq ([a-z]+)`", README))
    helped = both.run("agentrq", "--help")
    assert helped.returncode == 0, helped.stderr
    there = set(re.findall(r"^  ([a-z]+) ", helped.stdout.partition("Commands:")[2], re.MULTILINE))
    assert listed == there


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in link:
            assert (document.parent / link).exists(), link
