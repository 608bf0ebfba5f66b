"""Every command and snippet of every page is run: by a real shell, against a real server and worker.

Programs of other people that change the machine (docker, systemctl, pip …) are stand-ins that do nothing; so is
Claude Code. Everything of agentrq's is real.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

from agentrq.embedded.server_process import ServerProcess
from agentrq_worker.settings import Settings, load
from tests.packaging.conftest import ROOT
from tests.packaging.pages import RUN, Block, blocks, script
from tests.workers import Worker, free_port

pytestmark = pytest.mark.timeout(120)
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
LIMIT_S = 60
LANGUAGES = {"sh", "python", "toml", "yaml", "ini", "dockerfile", "js", "html", "text", "", "{toctree}", "{eval-rst}"}
"""With none: shapes and diagrams. ``text``: settings of Redis."""
NOT_EVERYWHERE = ("curl", "node")
"""Programs of readers that a machine which runs the tests may lack."""
NOTHING = (
    "docker",
    "kubectl",
    "systemctl",
    "journalctl",
    "useradd",
    "install",
    "npm",
    "pip",
    "apt-get",
    "rq-dashboard",
)
STAND_INS = dict.fromkeys(NOTHING, "exit 0") | {
    "sudo": 'exec "$@"',
    "make": f'exec {shutil.which("make")} -n -C {ROOT} "$@" > make.log',
    "python3": '[ "$2" = venv ] || exec python "$@"; mkdir -p "$3/bin"; touch "$3/bin/activate"; '
    'cp "$(command -v pip)" "$3/bin"',
    "valkey-cli": f'exec python {ROOT / "tests/fakes/valkey_cli.py"} "$@"',
    "claude": f'exec python -S {ROOT / "tests/fakes/fake_claude.py"} "$@"',
}
CONFIG = """
[providers.demo]
env = { AGENTRQ_DEMO_PACE = "0" }
"""


class Place(NamedTuple):
    """Where the snippets of a module run: a server with a worker, and an environment whose programs are stand-ins."""

    url: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("place")
    programs = root / "programs"
    programs.mkdir()
    for name, body in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    config = root / "agentrq.toml"
    config.write_text(CONFIG)
    with ServerProcess(root / "valkey") as server:
        path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = os.environ | {"PATH": path, "AGENTRQ_REDIS_URL": server.url, "FAKE_CLAUDE_DIR": str(root)}
        worker = Worker(server.url, config, (), environment)
        try:
            worker.wait_ready()
            yield Place(server.url, environment)
        finally:
            worker.close()


@pytest.fixture
def place_apart(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server without a worker, for a page that locks others out."""
    with ServerProcess(tmp_path_factory.mktemp("apart")) as server:
        yield Place(server.url, place.environment | {"AGENTRQ_REDIS_URL": server.url})


def here(text: str, place: Place, ports: dict[str, int]) -> str:
    """A snippet with this machine's Redis and ports in the place of those that it names."""
    text = text.replace("/opt/", "opt/")
    text = re.sub(r"(?:redis|rediss|sentinel|unix)://[^\s'\"`]+", place.url, text)
    return re.sub(r"\b(8000|9105)\b", lambda port: str(ports.setdefault(port[1], free_port())), text)


def runnable() -> list[Path]:
    return [path for path in PAGES if any(block.language in RUN for block in blocks(path))]


@pytest.mark.parametrize("path", runnable(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_snippets_of_a_page_run(path: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    page = list(blocks(path))
    commands = {word for block in page if block.language == "sh" for word in block.text.split()}
    if absent := [name for name in NOT_EVERYWHERE if name in commands and shutil.which(name) is None]:
        pytest.skip(f"{', '.join(absent)} is not here")
    locks_out = "ACL SETUSER default off" in path.read_text()
    place: Place = request.getfixturevalue("place_apart" if locks_out else "place")
    installed = tmp_path / "opt/agentrq/bin"
    installed.mkdir(parents=True)
    shutil.copy(str(shutil.which("pip", path=place.environment["PATH"])), installed)  # a stand-in
    for name in ("examples", "deploy", "dist"):
        (tmp_path / name).symlink_to(ROOT / name)
    ports: dict[str, int] = {}
    page = [block._replace(text=here(block.text, place, ports), how=here(block.how, place, ports)) for block in page]
    for block in page:
        if block.file is not None:
            (tmp_path / block.file).write_text(block.text)
    process = subprocess.Popen(
        ["bash", "-c", script(page)], cwd=tmp_path, env=place.environment, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"{path.name} did not end\n{script(page)}\n{out}\n{err}")
    assert process.returncode == 0, f"{path}\n{out}\n{err}"


def of_language(*languages: str) -> list[Block]:
    return [block for path in PAGES for block in blocks(path) if block.language in languages]


def test_programs_of_pages_are_run() -> None:
    for path in PAGES:
        page = list(blocks(path))
        run = " ".join(block.text for block in page if block.language in RUN and block.file is None)
        programs = [block.file for block in page if block.file is not None and block.file.endswith((".py", ".mjs"))]
        named = run + (" conftest" if "pytest" in run else "")  # pytest finds that file by itself
        assert [name for name in programs if Path(name).stem not in named] == [], path


def test_lines_of_pages_fit_the_screen() -> None:
    pages = [path for path in PAGES if path.name != "CHANGELOG.md"]
    lines = [(path.name, line) for path in pages for line in path.read_text().splitlines()]
    assert [(name, line) for name, line in lines if len(line) > 120 and not line.startswith("|")] == []


def test_every_block_says_what_it_is() -> None:
    assert {block.language for path in PAGES for block in blocks(path)} <= LANGUAGES


def test_documented_settings_are_accepted(tmp_path: Path) -> None:
    others = ("pyproject.toml", "deliver.toml")  # the second is read by the commands below it
    shown = [block.text for block in of_language("toml") if block.file not in others]
    assert len(shown) >= 4
    for text in shown:
        path = tmp_path / "agentrq.toml"
        path.write_text(text)
        settings = load(str(path), {})
        for name in tomllib.loads(text):
            assert getattr(settings, name) != getattr(Settings(), name), f"{name} is shown with its default"


def test_redis_accepts_the_settings_shown(raw: Any) -> None:
    shown = [line.split(" ", 1) for block in of_language("text") for line in block.text.splitlines()]
    assert ["maxmemory-policy", "noeviction"] in shown
    for name, value in shown:
        before: Any = raw.config_get(name)
        assert raw.config_set(name, value)
        raw.config_set(name, before[name])


def test_yaml_and_ini_can_be_read() -> None:
    for block in of_language("yaml"):
        assert list(YAML(typ="safe").load_all(block.text))
    for block in of_language("ini"):
        text = block.text if "[" in block.text else f"[file]\n{block.text}"
        configparser.ConfigParser(interpolation=None).read_string(text)


def test_the_images_of_pages_begin_from_the_projects() -> None:
    for block in of_language("dockerfile"):
        words = [shlex.split(line) for line in block.text.replace("\\\n", " ").splitlines()]
        assert words[0] == ["FROM", "agentrq-worker"]
        assert {line[0] for line in words} <= {"FROM", "USER", "RUN", "COPY", "ENV"}


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not here")
def test_javascript_can_be_read(tmp_path: Path) -> None:
    scripts = [block.text for block in of_language("js")]
    for block in of_language("html"):
        scripts += re.findall(r"<script>(.*?)</script>", block.text, re.DOTALL)
    assert len(scripts) >= 3
    for number, text in enumerate(scripts):
        (tmp_path / f"{number}.mjs").write_text(text)
        check = ["node", "--check", f"{number}.mjs"]
        done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=LIMIT_S)
        assert done.returncode == 0, done.stderr
