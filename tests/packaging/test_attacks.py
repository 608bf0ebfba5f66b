"""The attack table says what the tests do, and there are tests for every kind of attacker."""

from __future__ import annotations

from tests.attacks import attacks, table, written


def test_the_table_is_that_of_the_tests() -> None:
    assert written() == table(), "python -m tests.attacks"


def test_there_is_one() -> None:
    found = list(attacks())
    assert len({attack.test for attack in found}) == len(found) > 20
