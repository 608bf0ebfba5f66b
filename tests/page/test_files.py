"""The page's files: what is vendored is what npm has, the own code is small, typed, and makes text of everything."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import agentrq_page
from tests.npm_packages import install

ROOT = Path(__file__).parents[2]
STATIC = agentrq_page.directory()
VENDOR = STATIC / "vendor"
OWN = sorted([*STATIC.glob("*.js"), *STATIC.glob("*.css"), *STATIC.glob("*.html")])
SUMS: dict[str, dict[str, str]] = json.loads((VENDOR / "files.json").read_text())
MOST_LINES = 4000
MOST_BYTES = 60_000


def loaded_first(view: str) -> set[Path]:
    """Every file that a browser fetches before a view is drawn that it begins with."""
    index = STATIC / "index.html"
    names: dict[str, str] = json.loads(re.findall(r'importmap">(.*?)</script>', index.read_text(), re.DOTALL)[0])[
        "imports"
    ]
    found = {index, STATIC / "style.css", STATIC / "icon.svg"}
    waiting = [STATIC / "main.js", STATIC / f"{view}_view.js"]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        for name in re.findall(r'\bfrom\s*"([^"]+)"', code, re.MULTILINE):
            target = STATIC / names[name].removeprefix("./page/") if name in names else path.parent / name
            waiting.append(target)
    return found


@pytest.mark.parametrize("view", ["sessions", "session", "inbox", "start", "workers", "costs"])
def test_the_first_load_is_small(view: str) -> None:
    files = loaded_first(view)
    assert {"preact.js", "htm.js", "signals.js", "signals-core.js", "preact-hooks.js"} <= {path.name for path in files}
    assert "uplot.js" not in {path.name for path in files}
    assert sum(len(gzip.compress(path.read_bytes(), 9)) for path in files) <= MOST_BYTES


def test_the_own_code_is_small_and_its_lines_are_short() -> None:
    lines = [line for path in OWN for line in path.read_text().split("\n")]
    assert len(lines) <= MOST_LINES
    assert [
        line for path in OWN if path.suffix == ".js" for line in path.read_text().split("\n") if len(line) > 120
    ] == []


def test_nothing_of_the_own_code_makes_markup_or_code_of_a_text() -> None:
    never = (
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|srcdoc|DOMParser|createContextual"
    )
    never += r"|dangerouslySet|javascript:|style=[\"$]|https?://(?!\[)"
    allowed = {("markdown.js", "https?://")}
    found = {(path.name, match) for path in OWN for match in re.findall(never, path.read_text())}
    assert found - allowed <= {("icon.svg", "http://")}


def test_the_vendored_files_have_their_sums_and_their_licences() -> None:
    assert {path.name for path in VENDOR.iterdir()} == {*SUMS, "files.json", "LICENSES.txt"}
    for name, about in SUMS.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == about["sha256"], name
    licences = (VENDOR / "LICENSES.txt").read_text()
    for about in SUMS.values():
        assert about["from"].rpartition("@")[0] in licences


@pytest.mark.slow
def test_the_vendored_files_are_what_npm_has() -> None:
    modules = install(ROOT / "page")
    for name, about in SUMS.items():
        package, _, rest = about["from"].rpartition("@")
        version, _, path = rest.partition("/")
        assert json.loads((modules / package / "package.json").read_text())["version"] == version
        assert (modules / package / path).read_bytes() == (VENDOR / name).read_bytes(), name


@pytest.mark.slow
def test_the_types_of_the_page_are_sound(tmp_path: Path) -> None:
    modules = install(ROOT / "page")
    # The compiler finds packages beside the sources or above them: both are copied, without what is not the page's.
    shutil.copytree(ROOT / "clients" / "js", tmp_path / "clients" / "js")
    shutil.copytree(ROOT / "page", tmp_path / "page", ignore=shutil.ignore_patterns("client", "vendor"), symlinks=True)
    (tmp_path / "node_modules").symlink_to(modules)
    compiler = modules / ".bin" / "tsc"
    done = subprocess.run(
        [compiler, "--project", tmp_path / "page"], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout
