"""The last lines of a runner's stderr, as the error of its session has them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from agentrq_worker.process.pipes import STDERR_TAIL
from agentrq_worker.process.stderr_tail import MOST_CHARACTERS, MOST_LINES, last_lines


@pytest.mark.parametrize(
    ("kept", "lines"),
    [
        ("", ""),
        ("one\n\n  \ntwo  \n", "one\ntwo"),
        ("".join(f"{n}\n" for n in range(50)), "\n".join(str(n) for n in range(50 - MOST_LINES, 50))),
        ("x" * 1500 + "\n" + "y" * 1500 + "\n", "y" * 1500),
        ("x" * (MOST_CHARACTERS + 1), ""),
    ],
)
def test_few_whole_lines_are_left(kept: str, lines: str) -> None:
    assert last_lines(SimpleNamespace(stderr_tail=kept)) == lines


def test_a_line_whose_beginning_is_not_kept_is_left_out() -> None:
    kept = ("f-a-secret\n" + "z" * STDERR_TAIL)[:STDERR_TAIL]
    assert "secret" not in last_lines(SimpleNamespace(stderr_tail=kept))
    kept = "half a secret\nlast line\n".rjust(STDERR_TAIL, "x")
    assert last_lines(SimpleNamespace(stderr_tail=kept)) == "last line"
