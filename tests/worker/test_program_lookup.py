"""Where Claude Code is looked for, and what is said when it is nowhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from agentrq.wire.commands import Options
from agentrq.wire.messages import SessionTotal
from agentrq_worker.providers import registry
from agentrq_worker.session.launch_plan import CannotLaunch, prepare
from agentrq_worker.session.program_lookup import resolve
from agentrq_worker.settings import Provider, Settings


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o755)
    return path


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """The places of the search, in order, within a machine of the test's own; none of them holds anything."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    table = registry.providers()
    claude = table.specs["claude"]
    own = tuple(place.replace("/usr", str(tmp_path / "usr")) for place in claude.places)
    moved = table._replace(specs={**table.specs, "claude": dataclasses.replace(claude, places=own)})
    monkeypatch.setattr(registry, "providers", lambda: moved)
    return [Path(place).expanduser() for place in own] + [tmp_path / "path" / "claude"]


def test_the_first_place_wins(places: list[Path], tmp_path: Path) -> None:
    assert [str(place.relative_to(tmp_path)) for place in places] == [
        "home/.local/bin/claude", "home/.claude/local/claude", "usr/local/bin/claude", "usr/bin/claude", "path/claude",
    ]  # fmt: skip
    for place in reversed(places):
        program(place)
        found = resolve("claude", Settings())
        assert (found.argv, found.protocol, found.parser) == ([str(place)], "claude", "claude")
    places[0].chmod(0o644)
    assert resolve("claude", Settings()).argv == [str(places[1])]


def test_nowhere(places: list[Path]) -> None:
    with pytest.raises(CannotLaunch, match=r"^Claude CLI not found\. Install Claude Code first\.$"):
        prepare("s", "claude", Options(), Options(), SessionTotal(), 1, Settings())


def test_settings_and_runners_dir_come_before(places: list[Path], tmp_path: Path) -> None:
    program(places[0])
    node = program(tmp_path / "path" / "node")
    script = program(tmp_path / "runners" / "claude-runner.mjs")
    by_script = resolve("claude", Settings(runners_dir=str(script.parent)))
    assert (by_script.argv, by_script.protocol) == ([str(node), str(script)], "runner")
    own = Provider(command=["/opt/claude"], protocol="claude")
    by_settings = resolve("claude", Settings(runners_dir=str(script.parent), providers={"claude": own}))
    assert (by_settings.argv, by_settings.protocol) == (["/opt/claude"], "claude")


def test_a_provider_of_another_name_with_its_protocol(places: list[Path]) -> None:
    program(places[2])
    named = Settings(providers={"fast": Provider(protocol="claude", options={"model": "haiku"})})
    assert resolve("fast", named).argv == [str(places[2])]


def test_a_workers_policy_makes_it_ask(places: list[Path]) -> None:
    program(places[0])
    argv = prepare("s", "claude", Options(), Options(), SessionTotal(), 1, Settings(approvals="ask")).argv
    assert argv[argv.index("--permission-mode") + 1] == "default"
    argv = prepare("s", "claude", Options(), Options(), SessionTotal(), 1, Settings()).argv
    assert argv[argv.index("--permission-mode") + 1] == "bypassPermissions"
