"""The table in docs/explanation/attacks.md, made from the tests themselves: ``python -m tests.attacks`` writes it.

A test that attacks says so: ``@attack("what is tried", "what happens")``, on a function or, for all of a module,
``ATTACK = ("…", "…")``. tests/packaging/test_attacks.py holds the document to it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs/explanation/attacks.md"
BEGIN, END = "<!-- attacks: written by python -m tests.attacks -->\n", "<!-- /attacks -->\n"
T = TypeVar("T", bound=Callable[..., Any])


def attack(what: str, happens: str) -> Callable[[T], T]:
    """Marks a test for the table; changes nothing about it."""
    return lambda test: test


class Attack(NamedTuple):
    what: str
    happens: str
    test: str


def attacks() -> Iterator[Attack]:
    """All marked tests, file by file."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        place = str(path.relative_to(ROOT / "tests"))
        for node in tree.body:
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["ATTACK"]:
                what, happens = ast.literal_eval(node.value)
                yield Attack(what, happens, place)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "attack":
                        assert node.name.startswith("test_"), node.name
                        what, happens = map(ast.literal_eval, mark.args)
                        yield Attack(what, happens, f"{place}::{node.name}")


def table() -> str:
    rows = [f"| {attack.what} | {attack.happens} | `{attack.test}` |\n" for attack in attacks()]
    return "| attack | what happens | test |\n|---|---|---|\n" + "".join(rows)


def written() -> str:
    """The table that stands in the document."""
    return DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]


def main() -> None:
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    DOCUMENT.write_text(before + BEGIN + table() + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
