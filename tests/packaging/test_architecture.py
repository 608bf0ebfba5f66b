"""ARCHITECTURE.md is the map of this tree: its packages, its layers, the tests that hold its invariants."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

from tests.packaging.conftest import ROOT

MAP = (ROOT / "ARCHITECTURE.md").read_text()
MOST_WORDS = 25


def chapter(title: str) -> str:
    """One chapter of the map."""
    return MAP.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_package_is_on_the_map() -> None:
    sources = [ROOT / "producer/src", ROOT / "worker/src"]
    packages = {path.parent.relative_to(ROOT) for source in sources for path in source.glob("*/**/__init__.py")}
    packages -= {path for path in packages if path.parent.name == "src"}
    assert set(re.findall(r"^\| `((?:producer|worker)/[\w/]+)/` \|", MAP, re.MULTILINE)) == {
        str(path) for path in packages
    }


def test_the_layers_are_those_of_the_import_contracts() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [" > ".join(contract["layers"]) for contract in contracts if contract["type"] == "layers"]
    assert layers == re.findall(r"^__main__ > .*$", chapter("The layers"), re.MULTILINE)


def test_each_invariant_is_held_by_tests_that_exist() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", chapter("What must stay true"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 12))
    assert [number for number, tests in rows if "::test_" not in tests] == []


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(tests/[\w/]+\.py::test_\w+)`", MAP))))
def test_a_named_test_exists(named: str) -> None:
    path, _, name = named.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_named_path_exists() -> None:
    named = re.findall(r"`((?:producer|worker|tests|docs)/[\w./-]+?)/?`", MAP)
    assert len(named) > 20
    assert [path for path in named if "NAME" not in path and not (ROOT / path).exists()] == []


def test_the_glossary_is_short() -> None:
    words = re.findall(r"^\| (\w[\w ]*) \|", chapter("Words"), re.MULTILINE)
    assert len(words) <= MOST_WORDS + 1  # and the head of the table
