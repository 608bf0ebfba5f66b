"""The container files, checked without a container engine: valid, and as safe as they say."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import Any

import pytest
from ruamel.yaml import YAML

from agentrq_worker.cli import EXIT_USAGE
from agentrq_worker.settings import load
from agentrq_worker.worker import LAST_WRITE_S
from tests.packaging.conftest import ROOT

Instruction = tuple[str, list[str]]


@pytest.fixture(scope="module")
def compose() -> Any:
    return YAML(typ="safe").load(ROOT / "docker-compose.yml")


@pytest.fixture(scope="module")
def stages() -> list[list[Instruction]]:
    """The Dockerfile's instructions (name, words), a list for each stage."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    found: list[list[Instruction]] = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, *words = shlex.split(line)
            if name == "FROM":
                found.append([])
            found[-1].append((name, words))
    return found


def words_of(stage: list[Instruction], name: str) -> list[list[str]]:
    return [words for instruction, words in stage if instruction == name]


def test_the_compose_file_is_valid() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_valkey_writes_to_disk_and_evicts_nothing(compose: Any) -> None:
    valkey = compose["services"]["valkey"]
    command = valkey["command"]
    assert command[command.index("--appendonly") + 1] == "yes"
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert valkey["volumes"] == ["valkey:/data"]
    assert "valkey" in compose["volumes"]
    _, _, version = valkey["image"].partition(":")
    assert version.count(".") >= 1, "pinned to a minor version"
    assert all(port.startswith("127.0.0.1:") for port in valkey["ports"]), "it has no password"


def test_a_worker_has_the_time_to_drain(compose: Any) -> None:
    worker = compose["services"]["worker"]
    settings = load(None, worker["environment"])
    assert worker["stop_signal"] == "SIGTERM"
    assert worker["init"] is True
    # After the drain: the stop ladder (grace, 2 s for TERM, KILL), and the last writes.
    needed = settings.drain_s + settings.stop_grace_s + 2 + LAST_WRITE_S
    assert int(worker["stop_grace_period"].removesuffix("s")) > needed
    assert worker["depends_on"] == {"valkey": {"condition": "service_healthy"}}
    assert worker["deploy"]["replicas"] == 2


@pytest.mark.parametrize("name", ["worker", "valkey"])
def test_a_container_can_do_little_harm(compose: Any, name: str, stages: list[list[Instruction]]) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "cap_add", "devices", "pid", "network_mode", "userns_mode"} & set(service)
    assert not [volume for volume in service["volumes"] if "docker.sock" in str(volume)]
    assert service.get("user") == "valkey" or words_of(stages[-1], "USER")[-1] == ["10001:10001"]


def test_a_fork_bomb_ends_at_its_container(compose: Any) -> None:
    assert 100 <= compose["services"]["worker"]["pids_limit"] <= 32768


@pytest.fixture(scope="module")
def unit() -> dict[str, str]:
    """The systemd unit's settings."""
    lines = (ROOT / "deploy/agentrq-worker@.service").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def test_the_unit_is_told_what_the_worker_does(unit: dict[str, str]) -> None:
    assert unit["Type"] == "notify"
    assert unit["RestartPreventExitStatus"] == str(EXIT_USAGE)
    assert int(unit["WatchdogSec"]) >= 30


def test_the_unit_gives_agents_little(unit: dict[str, str]) -> None:
    assert unit["User"] not in {"", "root"}
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == ""
    assert unit["ProtectSystem"] == "strict"
    protects = ("ControlGroups", "KernelTunables", "KernelModules", "KernelLogs", "Clock", "Hostname", "Home")
    others = ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "RestrictSUIDSGID", "RestrictRealtime", "RemoveIPC")
    on = [*(f"Protect{name}" for name in protects), *others, "LockPersonality"]
    assert {name: unit.get(name) for name in on} == dict.fromkeys(on, "yes")
    assert unit["UMask"] == "0077"
    assert unit["TasksMax"].isdigit()
    assert "MemoryMax" in unit


def test_the_unit_leaves_what_a_worker_and_its_agents_need(unit: dict[str, str]) -> None:
    """A drain's time, JIT compilers, landlock, pidfds and signals of the guardian, browsers' own sandboxes."""
    assert int(unit["TimeoutStopSec"]) > load(None, {}).drain_s + 40
    assert unit["KillMode"] == "mixed"
    assert not {"MemoryDenyWriteExecute", "RestrictNamespaces", "PrivateNetwork", "PrivateUsers"} & set(unit)
    assert unit["SystemCallFilter"].startswith("~")  # what is not named stays: landlock_*, prctl, pidfd_open, setrlimit
    assert not {"@sandbox", "@process", "@signal", "@resources", "@privileged"} & set(unit["SystemCallFilter"].split())
    assert "AF_UNIX" in unit["RestrictAddressFamilies"]


def test_the_spool_is_on_disk(compose: Any, stages: list[list[Instruction]]) -> None:
    variables = dict(word.split("=", 1) for words in words_of(stages[-1], "ENV") for word in words)
    volumes = dict(reversed(volume.split(":")) for volume in compose["services"]["worker"]["volumes"])
    assert volumes[variables["AGENTRQ_SPOOL_DIR"]] in compose["volumes"], (
        "a named volume: none is left with each container"
    )


def test_the_homes_of_sessions_are_on_the_volume_that_workers_share(
    compose: Any, stages: list[list[Instruction]]
) -> None:
    variables = dict(word.split("=", 1) for words in words_of(stages[-1], "ENV") for word in words)
    volumes = dict(reversed(volume.split(":")) for volume in compose["services"]["worker"]["volumes"])
    assert any(variables["AGENTRQ_HOMES_DIR"].startswith(f"{path}/") for path in volumes)


def test_a_valkey_that_answers_with_an_error_is_not_healthy(compose: Any) -> None:
    assert compose["services"]["valkey"]["healthcheck"]["test"] == ["CMD", "valkey-cli", "-e", "ping"]


def test_the_unit_lets_the_guardian_see_the_worker(unit: dict[str, str]) -> None:
    assert "ProtectProc" not in unit


def test_the_image_is_built_in_two_stages_and_not_run_as_root(stages: list[list[Instruction]]) -> None:
    assert len(stages) == 2
    user = words_of(stages[-1], "USER")[-1][0].partition(":")[0]
    assert user not in {"root", "0"}
    assert stages[-1].index(("USER", words_of(stages[-1], "USER")[-1])) > max(
        position for position, (name, _) in enumerate(stages[-1]) if name in {"RUN", "COPY"}
    ), "the program's files belong to root"


def test_what_the_image_copies_exists_and_reaches_it(stages: list[list[Instruction]]) -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [words for stage in stages for words in words_of(stage, "COPY") if not words[0].startswith("--from=")]
    assert copied
    for *sources, _ in copied:
        for source in sources:
            assert (ROOT / source).exists(), source
            assert source.split("/")[0] in sent, source


def test_the_image_installs_nothing_that_is_not_pinned(stages: list[list[Instruction]]) -> None:
    for stage in stages:
        for words in words_of(stage, "RUN"):
            if "install" in words and "pip" in words:
                assert "--require-hashes" in words or "--no-deps" in words, words
