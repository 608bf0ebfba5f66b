"""What ``doctor`` says of a machine that runs workers."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from agentrq_worker import doctor_checks
from agentrq_worker.doctor_checks import checks, file_system
from agentrq_worker.providers import registry
from tests.packaging.conftest import ROOT


def found(monkeypatch: pytest.MonkeyPatch, **environment: str) -> dict[str, tuple[str, str]]:
    """The findings in an environment, by check."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return {check: (status, detail) for check, status, detail in checks()}


def test_settings_that_cannot_work_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, AGENTRQ_SPOOL_DIR="/no/such")["settings"] == (
        "fail", "spool_dir: there is no directory /no/such: make it, or name another"
    )  # fmt: skip


def test_misspelled_variables_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    status, detail = found(monkeypatch, AGENTRQ_MAX_SESSION="3")["settings"]
    assert status == "warn"
    assert "did you mean AGENTRQ_MAX_SESSIONS?" in detail


def test_too_few_open_files_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = str(max(hard, 1_000_000))
    status, detail = found(monkeypatch, AGENTRQ_MAX_SESSIONS=most)["open files"]
    assert status == ("ok" if hard == resource.RLIM_INFINITY else "warn"), detail


def test_directories_in_memory_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    if file_system(Path("/dev/shm")) != "tmpfs":
        pytest.skip("no tmpfs at /dev/shm here")
    told = found(monkeypatch, AGENTRQ_HOMES_DIR="/dev/shm/homes", AGENTRQ_SPOOL_DIR="/dev/shm")
    assert told["homes"][0] == told["spool"][0] == "warn"
    assert "in memory (tmpfs)" in told["homes"][1]


def test_a_mount_point_is_not_taken_for_its_neighbour() -> None:
    assert file_system(Path("/proc/self")) == "proc"
    assert file_system(Path("/procedures")) != "proc"


@pytest.mark.parametrize(
    ("says", "status", "detail"),
    [
        ("2.1.330 (Claude Code)", "ok", "2.1.330 at"),
        ("9.9.9", "warn", "; tested with 2.1.330"),
        ("?", "warn", "version"),
    ],
)
def test_an_agents_version_is_compared_with_the_one_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, status: str, detail: str
) -> None:
    program = tmp_path / "claude"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    (spec,) = (each for each in registry.providers().specs.values() if each.name == "claude")
    here = registry.ProviderSpec(name="claude", program=(str(program),), tested=spec.tested)
    name, given, said = doctor_checks._agent(here)
    assert (name, given) == (str(program), status)
    assert detail in said


def test_the_versions_tested_are_those_that_the_tests_install() -> None:
    pinned = json.loads((ROOT / "requirements/agents.json").read_text())
    specs = registry.providers().specs
    told = {name: spec.tested for name, spec in specs.items() if spec.tested}
    assert told == {name: pinned[name]["version"] for name in told}
    assert set(told) == {name for name, spec in specs.items() if spec.program and name in pinned}
