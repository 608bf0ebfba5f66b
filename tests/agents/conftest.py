"""Fixtures of the tier with real agent CLIs: a scripted model, a worker's settings that lead every agent to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agents.installing import place
from tests.agents.isolated import is_isolated
from tests.fakes.model_server import ModelServer

# CLAUDE: as root it refuses to bypass permissions unless it is told that it runs in a sandbox, as it does here.
SETTINGS = """
[providers.claude]
protocol = "claude"
command = ["%(claude)s"]
env = { HOME = "%(home)s", ANTHROPIC_API_KEY = "none", ANTHROPIC_BASE_URL = "%(model)s", IS_SANDBOX = "1", \
CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC = "1", CLAUDE_CODE_MAX_RETRIES = "2" }
"""


@pytest.fixture(scope="session", autouse=True)
def _no_way_out() -> None:
    assert is_isolated(), "real agents run only without a network: make test-agents"


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The agents' home."""
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """The sessions' working directory."""
    path = tmp_path / "workspace"
    path.mkdir()
    return path


@pytest.fixture
def config(tmp_path: Path, home: Path, model: ModelServer) -> Path:
    """A worker's TOML for the pinned agents."""
    path = tmp_path / "agentrq.toml"
    path.write_text(SETTINGS % {"claude": place("claude"), "home": home, "model": model.url})
    return path
