"""Docstrings, comments and documents name only files and modules that exist."""

from __future__ import annotations

import ast
import importlib
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.packaging.conftest import ROOT
from tests.packaging.pages import blocks

ROOMS = (
    "producer",
    "worker",
    "gateway",
    "page",
    "clients",
    "tests",
    "benchmarks",
    "examples",
    "docs",
    "deploy",
    "requirements",
)
PROGRAMS = [
    path
    for room in ("producer", "worker", "gateway", "page", "tests", "benchmarks", "examples")
    for path in (ROOT / room).rglob("*.py")
]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
THERE = {
    "/" + str(path.relative_to(ROOT))
    for found in (ROOT.glob("*"), *((ROOT / room).rglob("*") for room in ROOMS))
    for path in found
}
"""Every path of the tree, with a slash before it: a mention is the end of one."""

FILE = re.compile(r"(?<![\w/.<>*{}-])((?:\.\./)*[\w-]+(?:/[\w.-]+)*\.(?:py|lua|c|md|toml|service))(?![\w/])")
MODULE = re.compile(
    r"(?<![\w./])((?:agentrq|agentrq_worker|agentrq_gateway|agentrq_page|tests|benchmarks)(?:\.[A-Za-z_]\w*)+)(?![\w(])"
)
OF_READERS = {block.file for path in PAGES for block in blocks(path)}
"""Files that a page lets its reader write."""
OUTSIDE = {"agentrq.toml", "backend.py", "aider/io.py", "acme.service"}
"""Files of readers and of other projects."""
GROUPS = {"agentrq.commands", "agentrq.doctor", "agentrq.providers"}
"""Groups of entry points: they look like modules."""


def said(path: Path) -> Iterator[str]:
    """The comments and docstrings of a program."""
    source = path.read_text()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def missing_files(text: str, page: Path | None = None) -> list[str]:
    """Files that a text names and that are nowhere in the tree; a page's may be relative to it."""
    return [
        name
        for name in FILE.findall(text)
        if name not in OF_READERS | OUTSIDE
        and not re.search("NAME|TENANT", name)
        and not any(path.endswith("/" + name.removeprefix("../").removeprefix("../")) for path in THERE)
        and not (page is not None and (page.parent / name).exists())
    ]


def is_there(name: str) -> bool:
    """Whether a dotted name is a module, or something that a module has."""
    words = name.split(".")
    for count in range(len(words), 0, -1):
        try:
            found = importlib.import_module(".".join(words[:count]))
        except ModuleNotFoundError:
            continue
        for word in words[count:]:
            if not hasattr(found, word):
                return False
            found = getattr(found, word)
        return True
    return False


def missing_modules(text: str) -> list[str]:
    names = [
        name for name in MODULE.findall(text) if name not in GROUPS and not name.endswith((".NAME", ".toml", ".yml"))
    ]
    return [name for name in names if not is_there(name)]


def test_programs_name_what_exists() -> None:
    texts = {path.relative_to(ROOT): "\n".join(said(path)) for path in PROGRAMS}
    wrong = {str(path): [*missing_files(text), *missing_modules(text)] for path, text in texts.items()}
    assert {path: names for path, names in wrong.items() if names} == {}


def test_deploy_files_name_what_exists() -> None:
    deployed = [path for path in (ROOT / "deploy").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    files = [ROOT / "Dockerfile", ROOT / "Makefile", ROOT / "docker-compose.yml", *deployed]
    comments = {path.name: "\n".join(re.findall(r"#.*", path.read_text())) for path in files}
    wrong = {name: [*missing_files(text), *missing_modules(text)] for name, text in comments.items()}
    assert {name: names for name, names in wrong.items() if names} == {}


def test_pages_name_what_exists() -> None:
    texts = {path: path.read_text() for path in PAGES}
    wrong = {path.name: [*missing_files(text, path), *missing_modules(text)] for path, text in texts.items()}
    assert {path: names for path, names in wrong.items() if names} == {}


def test_the_check_finds_a_name_that_is_gone() -> None:
    assert missing_files("as providers/claude/wire.py says, unlike providers/klaude.py and gone.lua") == [
        "providers/klaude.py",
        "gone.lua",
    ]
    assert missing_modules("`agentrq.client.AsyncAgentClient`, agentrq.lane, agentrq.wire.keys.Keys.nothing") == [
        "agentrq.lane",
        "agentrq.wire.keys.Keys.nothing",
    ]
