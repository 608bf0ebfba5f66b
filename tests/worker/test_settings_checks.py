"""Settings that cannot work on this machine end a worker at its start: one line, exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from agentrq_worker.settings import InvalidSetting, Provider, Settings
from agentrq_worker.settings_checks import check_directories, unknown_variables


@pytest.mark.parametrize("name", ["spool_dir", "runners_dir"])
def test_a_directory_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidSetting, match=rf"^{name}: there is no directory {tmp_path}/gone: make it"):
        check_directories(msgspec.convert({name: str(tmp_path / "gone")}, Settings))


@pytest.mark.parametrize("name", ["spool_dir", "runners_dir", "homes_dir"])
def test_a_file_is_no_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSetting, match=rf"^{name}: {tmp_path}/file is not a directory"):
        check_directories(msgspec.convert({name: str(tmp_path / "file")}, Settings))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere: make test-user runs this")
@pytest.mark.parametrize("name", ["spool_dir", "homes_dir"])
def test_a_directory_that_may_not_be_written_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "ours").mkdir(mode=0o500)
    with pytest.raises(InvalidSetting, match=rf"^{name}: this user may not write to {tmp_path}/ours"):
        check_directories(msgspec.convert({name: str(tmp_path / "ours")}, Settings))


def test_homes_that_sessions_will_make_are_fine(tmp_path: Path) -> None:
    check_directories(Settings(homes_dir=str(tmp_path / "not" / "yet")))


def test_variables_that_are_no_settings_are_told_with_the_nearest_name() -> None:
    settings = Settings(providers={"mine": Provider(pass_env=["AGENTRQ_OF_MY_OWN"])})
    names = ["AGENTRQ_MAX_SESSION", "AGENTRQ_NONSENSE", "AGENTRQ_OF_MY_OWN", "AGENTRQ_GATEWAY_PORT", "AGENTRQ_QUEUE"]
    told = unknown_variables(settings, dict.fromkeys(names, "1"))
    assert told is not None
    assert told.endswith(": AGENTRQ_MAX_SESSION (did you mean AGENTRQ_MAX_SESSIONS?), AGENTRQ_NONSENSE")
    assert unknown_variables(settings, {"AGENTRQ_QUEUE": "q", "HOME": "/"}) is None


TOML = [
    'spool_dir = "/no/such/directory"', 'runners_dir = "/no/such/directory"', 'max_sessions = "many"', "lease_s = nan",
    "max_sessions = true", "name = 2026-01-01", "redis_url = 3", "approvals = 3", "policy = 3", "policy = { x = 1 }",
    "providers = { x = 3 }", "providers = { x = { options = 3 } }", "providers = { x = { command = 'ls' } }",
    "providers = { x = { sandbox = { memory = 'much' } } }", "metrics_port = 0.5", "metrics_host = 1", "x.y = 1",
    "[[providers]]", 'redis_url = "http://x"',
]  # fmt: skip


@pytest.mark.parametrize("text", TOML)
def test_a_worker_that_cannot_work_ends_at_its_start_with_one_line(redis_url: str, tmp_path: Path, text: str) -> None:
    config = tmp_path / "agentrq.toml"
    config.write_text(text)
    redis = [] if "redis_url" in text else ["--redis", redis_url]
    done = subprocess.run(
        [sys.executable, "-m", "agentrq_worker", "--config", str(config), *redis],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("agentrq: ")
    assert done.stdout == ""
