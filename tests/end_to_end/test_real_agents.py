"""The smoke of the tier with real agent CLIs (`make test-agents`): one session an agent, where npm is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.agents import isolated
from tests.agents.installing import ROOT, CannotInstall, install

SMOKE = {"claude": "tests/agents/test_claude.py::test_a_tool_call"}
"""The test that stands for each agent."""


@pytest.mark.slow
@pytest.mark.timeout(400)  # the first run downloads the CLI
@pytest.mark.parametrize("name", SMOKE)
def test_a_real_agent_runs_a_session(name: str) -> None:
    if (reason := isolated.why_not()) is not None:
        pytest.skip(f"no session with the real {name}: {reason}")
    try:
        install(name)
    except CannotInstall as problem:
        pytest.skip(f"no session with the real {name}: {problem}")
    pytest_again = [sys.executable, "-m", "pytest", "-m", "agents", "-p", "no:xdist", SMOKE[name]]
    command = [sys.executable, "-m", "tests.agents.isolated", *pytest_again]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
