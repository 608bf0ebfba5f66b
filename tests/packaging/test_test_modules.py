"""Test modules stand alone: what they share has a module of its own, and they wait for events instead of sleeping."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.packaging.conftest import ROOT

SOURCES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
    for room in ("tests", "benchmarks", "examples")
    for path in sorted((ROOT / room).rglob("*.py"))
}


def imported(tree: ast.Module) -> Iterator[str]:
    """The full names of all that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)


def sleeps(tree: ast.Module) -> Iterator[int]:
    """The lines that use ``time.sleep`` or ``asyncio.sleep`` for more than giving way, which is ``sleep(0)``."""
    giving_way = {
        node.func
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and [ast.unparse(argument) for argument in node.args] == ["0"]
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node not in giving_way:
            if ast.unparse(node) in ("time.sleep", "asyncio.sleep"):
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module in ("time", "asyncio"):
            yield from (node.lineno for alias in node.names if alias.name == "sleep")


def is_test_module(path: str) -> bool:
    return Path(path).name.startswith("test_")


def test_nothing_is_imported_from_a_test_module() -> None:
    """What several modules use stands in a module of its own beside them, named after what it holds."""
    modules = {path.removesuffix(".py").replace("/", ".") for path in SOURCES if is_test_module(path)}
    found = [(path, name) for path, tree in SOURCES.items() for name in imported(tree)
             if name in modules or name.rpartition(".")[0] in modules]  # fmt: skip
    assert found == []


def test_test_modules_wait_for_events_and_do_not_sleep() -> None:
    """tests/polling.py, tests/rq_checks.py and tests/faults/waiting.py wait; modules with a fault's name may pause."""
    found = [(path, line) for path, tree in SOURCES.items() if is_test_module(path) for line in sleeps(tree)]
    assert found == []


def test_a_sleep_is_found_however_it_is_imported() -> None:
    source = "import time\nfrom asyncio import sleep\ntime.sleep(1)\nasyncio.sleep(0)\nwait = asyncio.sleep\n"
    assert sorted(sleeps(ast.parse(source))) == [2, 3, 5]
