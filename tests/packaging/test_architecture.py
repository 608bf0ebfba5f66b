"""ARCHITECTURE.md names paths and tests that exist; its packages and layers are test_reference.py's."""

from __future__ import annotations

import ast
import re

import pytest

from tests.packaging.conftest import ROOT

MAP = (ROOT / "ARCHITECTURE.md").read_text()
MOST_WORDS = 25


def chapter(title: str) -> str:
    """One chapter of the map."""
    return MAP.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


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
